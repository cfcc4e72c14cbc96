//! Other tasks over the same inputs, made by program, each with descriptions of its own.
//!
//! Among few tasks the input alone mostly tells what is asked, and a hypernetwork need not read. Here one input serves
//! many tasks: whether a proposed answer is right, whether the text has a comma, its last word, the answer in capitals;
//! and which words to answer with stands in the description alone.

mod extracts;
mod formats;
mod judged;
mod labels;
mod questions;
mod renamed;
mod wording;
mod write;

use std::collections::BTreeSet;

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{DataError, Descriptions, Example, Kind, Metric, Part, Task, TaskSet, draws};

pub use write::write_derived;

/// Words of the longest input and of the longest answer that other tasks are made of.
const LONGEST: (usize, usize) = (60, 20);
/// Sources that are tried for a task before there are held to be no more.
const TRIES: usize = 50;

/// How many tasks to derive, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeriveConfig {
    /// Tasks.
    pub tasks: usize,
    /// Training examples of each at most; an eighth as many more are held out.
    pub examples: usize,
    /// Seed of every draw.
    pub seed: u64,
}

impl Default for DeriveConfig {
    fn default() -> Self {
        Self { tasks: 600, examples: 40, seed: 0 }
    }
}

/// A derived task with its examples.
#[derive(Debug, Clone, PartialEq)]
pub struct DerivedTask {
    /// The task.
    pub task: Task,
    /// Its examples, and whether they are for training or held out.
    pub examples: Vec<(Part, Example)>,
}

/// What other tasks are made of: a task, and those of its examples that are short enough.
struct Source<'a> {
    task: &'a Task,
    examples: Vec<(Part, Example)>,
}

impl<'a> Source<'a> {
    fn read(set: &TaskSet, task: &'a Task) -> Result<Self, DataError> {
        if task.benchmark {
            return Err(DataError::Benchmark { name: task.name.clone() });
        }
        let short = |e: &Example| words(&e.input) <= LONGEST.0 && words(&e.target) <= LONGEST.1;
        let mut examples = Vec::new();
        for part in [Part::Train, Part::Valid] {
            examples.extend(set.examples(task, part)?.into_iter().filter(short).map(|e| (part, e)));
        }
        Ok(Self { task, examples })
    }

    /// The source's inputs as users see them: with the options where those are shown.
    fn turn(&self, example: &Example) -> String {
        crate::user_turn(None, &example.input, if self.task.show_options { &example.choices } else { &[] })
    }

    /// What it is described by, for training and for evaluation.
    fn descriptions(&self) -> [&[String]; 2] {
        let Descriptions { train, eval } = &self.task.descriptions;
        match (train.is_empty(), eval.is_empty()) {
            (true, _) => [eval, eval],
            (_, true) => [train, train],
            _ => [train, eval],
        }
    }
}

/// What a kind of derivation makes of a source.
struct Made {
    descriptions: Descriptions,
    kind: Kind,
    metric: Metric,
    labels: Vec<String>,
    examples: Vec<(Part, Example)>,
}

type Derivation = fn(&Source<'_>, &mut ChaCha8Rng) -> Option<Made>;

/// The kinds of derivation. Which words to answer with is what few tasks teach, so the two kinds that can be made of any
/// source and have labels stand here twice.
const KINDS: [(&str, Derivation); 7] = [
    ("judged", judged::make),
    ("question", questions::make),
    ("renamed", renamed::make),
    ("judged", judged::make),
    ("extract", extracts::make),
    ("question", questions::make),
    ("format", formats::make),
];

/// Derives tasks from others, of every kind in turn.
///
/// The descriptions for evaluation have wordings of their own, and stand on those of the source for evaluation; held-out
/// examples come of held-out examples. There are fewer tasks than asked for where the sources do not give as many.
///
/// # Errors
/// A source that is a benchmark or cannot be read, sources of which nothing can be made.
pub fn derive(set: &TaskSet, sources: &[&Task], config: DeriveConfig) -> Result<Vec<DerivedTask>, DataError> {
    let sources = sources.iter().map(|task| Source::read(set, task)).collect::<Result<Vec<_>, _>>()?;
    let (mut derived, mut told) = (Vec::new(), BTreeSet::new());
    for index in 0..config.tasks {
        let (kind, make) = KINDS[index % KINDS.len()];
        let mut rng = draws(&format!("derived task {index}"), config.seed);
        let made = (0..TRIES).find_map(|_| {
            let source = sources.choose(&mut rng)?;
            let made = make(source, &mut rng).map(|made| bounded(made, config.examples, &mut rng))?;
            let trains = made.examples.iter().any(|(part, _)| *part == Part::Train);
            // The same words over the same inputs would be the first task again.
            (trains && told.insert((&source.task.name, made.descriptions.eval.clone()))).then_some((source, made))
        });
        derived.extend(made.map(|(source, made)| named(kind, index, source.task, made)));
    }
    if derived.is_empty() {
        let reason = "no task can be derived from these: their examples are too few or too long".to_owned();
        return Err(DataError::Format { path: set.folder().to_owned(), reason });
    }
    Ok(derived)
}

fn named(kind: &str, index: usize, source: &Task, made: Made) -> DerivedTask {
    let name = format!("{kind}_{index:04}_{}", source.name);
    let task = Task {
        file: format!("tasks/{kind}_{index:04}.jsonl").into(),
        descriptions: made.descriptions,
        kind: made.kind,
        metric: made.metric,
        instruction: None,
        show_options: false,
        // Capitals may be what is asked for.
        case_sensitive: made.metric == Metric::ExactMatch,
        labels: made.labels,
        source: format!("derived from {} ({kind})", source.name),
        licence: source.licence.clone(),
        family: Some(format!("derived-{kind}")),
        benchmark: false,
        name,
    };
    DerivedTask { task, examples: made.examples }
}

/// At most so many examples for training and an eighth as many held out, drawn evenly from the answers where there are
/// labels.
fn bounded(mut made: Made, train: usize, rng: &mut ChaCha8Rng) -> Made {
    made.examples.shuffle(rng);
    let mut kept = Vec::new();
    for (part, most) in [(Part::Train, train), (Part::Valid, train.div_ceil(8))] {
        let of_part: Vec<Example> =
            made.examples.iter().filter(|(p, _)| *p == part).map(|(_, example)| example.clone()).collect();
        kept.extend(evenly(of_part, made.labels.len(), most).into_iter().map(|example| (part, example)));
    }
    made.examples = kept;
    made
}

/// Examples of each label in turn while each has one more; without labels, the first ones.
fn evenly(examples: Vec<Example>, labels: usize, most: usize) -> Vec<Example> {
    if labels == 0 {
        return examples.into_iter().take(most).collect();
    }
    let mut of_label: Vec<Vec<Example>> = vec![vec![]; labels];
    for example in examples {
        if let Some(list) = example.answer.and_then(|answer| of_label.get_mut(answer)) {
            list.push(example);
        }
    }
    let rounds = of_label.iter().map(Vec::len).min().unwrap_or(0).min(most.div_ceil(labels));
    let mut kept: Vec<Example> = (0..rounds).flat_map(|i| of_label.iter().map(move |list| list[i].clone())).collect();
    kept.truncate(most);
    kept
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// An example whose answer is one of a few labels.
fn labelled(input: String, labels: &[String], answer: usize) -> Example {
    let target = labels[answer].clone();
    Example { input, targets: vec![target.clone()], target, choices: labels.to_vec(), answer: Some(answer) }
}

/// An example whose answer is a text.
fn free(input: String, target: String) -> Example {
    Example { input, targets: vec![target.clone()], target, choices: vec![], answer: None }
}
