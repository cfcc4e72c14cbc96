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

use labels::Vocabulary;
pub use write::write_derived;

/// Words, and bytes, of the longest input and of the longest answer that other tasks are made of.
const LONGEST: [(usize, usize); 2] = [(60, 1000), (20, 300)];
/// Examples of a part of a source that are looked at.
const POOL: usize = 1000;
/// Sources that are tried for a task before there are held to be no more of its kind.
const TRIES: usize = 100;
/// Most examples of all tasks together: they are held in memory.
const MOST: usize = 1_000_000;
/// Fewest examples of a task: one of each label.
const FEWEST: usize = renamed::CLASSES;

/// How many tasks to derive, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeriveConfig {
    /// Tasks.
    pub tasks: usize,
    /// Training examples of each at most, from 8, and of all at most 1,000,000; an eighth as many more are held out, or one
    /// for each label.
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
        let fits = |text: &str, (most, bytes)| text.len() <= bytes && words(text) <= most;
        // Options count as part of the input, shown or not.
        let whole = |e: &Example| e.input.len() + e.choices.iter().map(String::len).sum::<usize>();
        let short = |e: &Example| {
            fits(&e.input, LONGEST[0])
                && whole(e) <= 2 * LONGEST[0].1
                && e.targets.iter().chain(&e.choices).all(|answer| fits(answer, LONGEST[1]))
        };
        let mut examples = Vec::new();
        for part in [Part::Train, Part::Valid] {
            examples.extend(set.examples(task, part)?.into_iter().filter(short).take(POOL).map(|e| (part, e)));
        }
        Ok(Self { task, examples })
    }

    /// The source's inputs as users see them: with the options where those are shown.
    fn turn(&self, example: &Example) -> String {
        crate::user_turn(None, &example.input, if self.task.show_options { &example.choices } else { &[] })
    }

    fn of_part(&self, part: Part) -> impl Iterator<Item = &Example> {
        self.examples.iter().filter(move |(p, _)| *p == part).map(|(_, example)| example)
    }

    /// What it is described by, for training and for evaluation.
    fn descriptions(&self) -> [&[String]; 2] {
        [&self.task.descriptions.train, &self.task.descriptions.eval]
    }

    /// Whether there are both: those for evaluation never become some for training.
    fn is_described(&self) -> bool {
        self.descriptions().iter().all(|said| !said.is_empty())
    }
}

/// What a kind of derivation makes of a source.
struct Made {
    /// What is asked, whatever the words of the description: no source is asked it twice.
    what: String,
    descriptions: Descriptions,
    kind: Kind,
    metric: Metric,
    labels: Vec<String>,
    examples: Vec<(Part, Example)>,
}

type Derivation = fn(&Source<'_>, &Vocabulary, &mut ChaCha8Rng) -> Option<Made>;

/// The kinds of derivation. Which words to answer with is what few tasks teach, so the two kinds that can be made of any
/// source and have labels stand here twice.
const KINDS: [(&str, Derivation); 7] = [
    ("judged", judged::make),
    ("question", questions::make),
    ("renamed", renamed::make),
    ("judged", judged::make),
    ("extract", |source, _, rng| extracts::make(source, rng)),
    ("question", questions::make),
    ("format", |source, _, rng| formats::make(source, rng)),
];

/// Derives tasks from others, of every kind in turn.
///
/// The descriptions for evaluation have wordings of their own, and stand on those of the source for evaluation; held-out
/// examples come of held-out examples. A kind of which the sources give no more is left out from then on, and there are
/// fewer tasks than asked for where that leaves none.
///
/// # Errors
/// Too few or too many examples, a source that is a benchmark or cannot be read, sources of which nothing can be made.
pub fn derive(set: &TaskSet, sources: &[&Task], config: DeriveConfig) -> Result<Vec<DerivedTask>, DataError> {
    let wrong = |reason: String| DataError::Format { path: set.folder().to_owned(), reason };
    if config.examples < FEWEST || config.tasks.saturating_mul(config.examples) > MOST {
        let asked = format!("{} tasks of {} examples are asked for", config.tasks, config.examples);
        return Err(wrong(format!("{asked}; tasks have at least {FEWEST}, and all together at most {MOST}")));
    }
    let sources = sources.iter().map(|task| Source::read(set, task)).collect::<Result<Vec<_>, _>>()?;
    let inputs = sources.iter().flat_map(|source| source.of_part(Part::Train)).map(|example| example.input.as_str());
    let vocabulary = Vocabulary::of(inputs.flat_map(bare_words));
    let (mut derived, mut asked, mut kinds) = (Vec::new(), BTreeSet::new(), KINDS.to_vec());
    while derived.len() < config.tasks && !kinds.is_empty() {
        let index = derived.len();
        let (kind, make) = kinds[index % kinds.len()];
        let mut rng = draws(&format!("derived task {index}"), config.seed);
        let made = (0..TRIES).find_map(|_| {
            let source = sources.choose(&mut rng)?;
            let made = make(source, &vocabulary, &mut rng).map(|made| bounded(made, config.examples, &mut rng))?;
            let trains = made.examples.iter().any(|(part, _)| *part == Part::Train);
            let new = trains && asked.insert((kind, &source.task.name, made.what.clone()));
            new.then(|| named(kind, index, source.task, made))
        });
        match made {
            Some(task) => derived.push(task),
            None => kinds.retain(|(other, _)| *other != kind),
        }
    }
    if derived.is_empty() {
        return Err(wrong("no task can be derived from these: their examples are too few or too long".to_owned()));
    }
    Ok(derived)
}

fn named(kind: &str, index: usize, source: &Task, made: Made) -> DerivedTask {
    let name = format!("{kind}_{index:04}_{}", source.name);
    let instruction = made.descriptions.train.first().cloned();
    let task = Task {
        file: format!("tasks/{kind}_{index:04}.jsonl").into(),
        descriptions: made.descriptions,
        kind: made.kind,
        metric: made.metric,
        // Never one of the descriptions for evaluation, not even in a prompt.
        instruction,
        show_options: false,
        // Capitals may be what is asked for.
        case_sensitive: made.metric == Metric::ExactMatch,
        labels: made.labels,
        source: source.source.clone(),
        licence: source.licence.clone(),
        derived_from: source.derived_from.clone().or_else(|| Some(source.name.clone())),
        family: Some(format!("derived-{kind}")),
        benchmark: false,
        name,
    };
    DerivedTask { task, examples: made.examples }
}

/// At most so many examples for training and an eighth as many held out, as many of each label where there are labels.
fn bounded(mut made: Made, train: usize, rng: &mut ChaCha8Rng) -> Made {
    made.examples.shuffle(rng);
    let labels = made.labels.len();
    let valid = train.div_ceil(8).max(labels);
    let (for_training, held_out): (Vec<_>, Vec<_>) =
        made.examples.into_iter().partition(|(part, _)| *part == Part::Train);
    made.examples = evenly(for_training, labels, train);
    made.examples.extend(evenly(held_out, labels, valid));
    made
}

/// As many examples of each label; without labels, the first ones.
fn evenly(mut examples: Vec<(Part, Example)>, labels: usize, most: usize) -> Vec<(Part, Example)> {
    if labels == 0 {
        examples.truncate(most);
        return examples;
    }
    let (mut counts, mut kept) = (vec![0; labels], vec![0; labels]);
    for answer in examples.iter().filter_map(|(_, example)| example.answer) {
        if let Some(count) = counts.get_mut(answer) {
            *count += 1;
        }
    }
    let each = counts.into_iter().min().unwrap_or(0).min(most / labels);
    examples.retain(|(_, example)| {
        let Some(count) = example.answer.and_then(|answer| kept.get_mut(answer)) else { return false };
        *count += 1;
        *count <= each
    });
    examples
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// A word without the signs around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// The words of a text without the signs around them.
fn bare_words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(bare).filter(|word| !word.is_empty())
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
