//! An evaluation from plan to report: which examples, under which conditions, in which batches.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use t2l_backbone::Backbone;
use t2l_backbone::chat::Message;
use t2l_core::{Adapter, AdapterGenerator, LoraFactors, TextEncoder};
use t2l_data::{Example, Part, PromptMode, PromptRenderer, Task, TaskSet, draws, example_turn, user_turn};

use crate::answers::Answers;
use crate::distinct::{distinct, distinct_modes};
use crate::report::{EvalReport, Scores, summarise};
use crate::worn::{Baselines, Wardrobe, Worn, not_finite};
use crate::{Condition, EvalError};

/// Tasks that are averaged together.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Name in the report.
    pub name: String,
    /// Tasks to score.
    pub tasks: Vec<&'a Task>,
    /// Tasks that the `other` condition draws from.
    pub pool: Vec<&'a Task>,
    /// Which examples.
    pub part: Part,
}

impl Group<'_> {
    /// The same, every task once.
    fn distinct(&self) -> Self {
        Self { tasks: distinct(self.tasks.iter().copied(), |t| &t.name), ..self.clone() }
    }
}

/// What to score and how.
#[derive(Debug, Clone)]
pub struct EvalPlan<'a> {
    /// Groups of tasks.
    pub groups: Vec<Group<'a>>,
    /// Prompt modes, with the conditions scored in each.
    pub modes: Vec<(PromptMode, Vec<Condition>)>,
    /// Examples of a task at most; the same ones under every condition.
    pub limit: Option<usize>,
    /// Seed of every draw.
    pub seed: u64,
    /// Prompt and response together, in tokens.
    pub max_tokens: usize,
    /// How much is scored of each answer.
    pub scoring: Scoring,
}

/// How much is scored of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Likelihood of the right answer alone (`nll`, `token_acc`): enough to compare checkpoints, in a fraction of the
    /// time.
    Nll,
    /// The tasks' own metrics too: options compared, other answers generated.
    Metrics,
    /// And an answer generated for choices (`acc_generated`).
    MetricsAndGenerated,
}

/// Everything that scoring needs.
pub struct Evaluator<'a> {
    /// The base model.
    pub backbone: &'a Backbone,
    /// The encoder of the generator.
    pub encoder: &'a dyn TextEncoder,
    /// The hypernetwork.
    pub generator: &'a dyn AdapterGenerator,
    /// Where examples are read from.
    pub set: &'a TaskSet,
    /// What else it is compared with.
    pub baselines: Baselines<'a>,
}

/// What a report says of where it came from.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Where the hypernetwork came from.
    pub checkpoint: String,
    /// SHA-256 of its weights.
    pub checkpoint_sha256: String,
    /// The command.
    pub command: String,
}

/// Tasks whose adapters are held together and whose rows share batches.
const TASKS_AT_ONCE: usize = 8;

/// One example under one condition.
pub(crate) struct Item<'a> {
    pub task: &'a Task,
    pub mode: PromptMode,
    pub condition: Condition,
    pub description: Option<String>,
    /// The adapter it wears, of those of its chunk.
    pub adapter: Option<Worn>,
    pub prompt: Vec<u32>,
    pub answers: Answers,
    pub scores: Vec<(&'static str, f64)>,
}

impl Evaluator<'_> {
    /// Scores everything in the plan. `tell(done, of)` hears of tasks.
    ///
    /// # Errors
    /// Nothing to score, files that cannot be read, descriptions that cannot be encoded, adapters that do not fit, a
    /// model whose outputs are not finite.
    pub fn run(
        &self,
        plan: &EvalPlan<'_>,
        from: Provenance,
        mut tell: impl FnMut(usize, usize),
    ) -> Result<EvalReport, EvalError> {
        let started = Instant::now();
        let renderer = PromptRenderer::of(self.backbone)?;
        // What is named twice is scored once.
        let groups: Vec<Group<'_>> = plan.groups.iter().map(Group::distinct).collect();
        let modes = distinct_modes(&plan.modes);
        self.baselines.check(modes.iter().flat_map(|(_, conditions)| conditions.iter().copied()))?;
        let total = groups.iter().map(|g| g.tasks.len()).sum();
        let mut scores = Vec::new();
        let mut done = 0;
        for group in &groups {
            for tasks in group.tasks.chunks(TASKS_AT_ONCE) {
                let (mut items, wardrobe) = self.items(plan, &modes, group, tasks, &renderer)?;
                self.score_answers(&mut items, &wardrobe)?;
                if plan.scoring != Scoring::Nll {
                    let choices = plan.scoring == Scoring::MetricsAndGenerated;
                    self.judge_generated(choices, &mut items, &wardrobe)?;
                }
                collect(group, &items, &mut scores);
                done += tasks.len();
                tell(done, total);
            }
        }
        if scores.is_empty() {
            return Err(EvalError::Nothing { reason: "no task has an example in this part".into() });
        }
        let (rows, averages, paired) = summarise(&scores);
        Ok(EvalReport {
            base_model: self.generator.layout().base_model.clone(),
            checkpoint: from.checkpoint,
            checkpoint_sha256: from.checkpoint_sha256,
            seed: plan.seed,
            command: from.command,
            seconds: started.elapsed().as_secs_f64(),
            rows,
            averages,
            paired,
        })
    }

    /// Every example of some tasks in every mode and condition, and the adapters they wear.
    fn items<'a>(
        &'a self,
        plan: &EvalPlan<'_>,
        modes: &[(PromptMode, Vec<Condition>)],
        group: &Group<'_>,
        tasks: &[&'a Task],
        renderer: &PromptRenderer<'_>,
    ) -> Result<(Vec<Item<'a>>, Wardrobe<'a>), EvalError> {
        let context = self.backbone.decoder.config().longest_context();
        let (mut texts, mut turns, mut wardrobe) = (Texts::default(), Texts::default(), Wardrobe::default());
        let mut items = Vec::new();
        for task in tasks.iter().copied() {
            let mut examples = self.set.examples(task, group.part)?;
            examples.shuffle(&mut draws(&task.name, plan.seed));
            examples.truncate(plan.limit.unwrap_or(usize::MAX));
            let answers = examples.iter().map(|e| Answers::of(task, e, renderer)).collect::<Result<Vec<_>, _>>()?;
            for (mode, conditions) in modes {
                let render = |e: &Example| renderer.prompt(&example_turn(task, e, *mode));
                let plain = examples.iter().map(render).collect::<Result<Vec<_>, _>>()?;
                for &condition in conditions {
                    let description = condition.description(task, &group.pool, plan.seed);
                    let Some(worn) = self.worn(condition, task, description.as_deref(), &mut texts, &mut wardrobe)?
                    else {
                        continue;
                    };
                    let shots = if condition == Condition::FewShot {
                        let shots = self.shots(task, group.part, *mode, plan.seed)?;
                        if shots.is_empty() {
                            continue;
                        }
                        shots
                    } else {
                        vec![]
                    };
                    for ((example, answers), plain) in examples.iter().zip(&answers).zip(&plain) {
                        let prompt = match (condition, &description) {
                            (Condition::Prompted, Some(text)) => {
                                let options = if task.show_options { &example.choices[..] } else { &[] };
                                renderer.prompt(&user_turn(Some(text), &example.input, options))?
                            }
                            (Condition::FewShot, _) => {
                                let question = Message::user(example_turn(task, example, *mode));
                                let turns: Vec<Message> = shots.iter().cloned().chain([question]).collect();
                                renderer.conversation(&turns)?
                            }
                            _ => plain.clone(),
                        };
                        let mut answers = answers.clone();
                        // Examples before a question are part of it: they may fill what the model reads.
                        let room = if condition == Condition::FewShot { context } else { plan.max_tokens.min(context) };
                        let prompt = answers.fit(prompt, room);
                        if prompt.is_empty() {
                            let reason = format!("the chat template writes no prompt for task {:?}", task.name);
                            return Err(EvalError::Nothing { reason });
                        }
                        if plan.scoring == Scoring::Nll {
                            answers.keep_right();
                        }
                        let adapter = if condition == Condition::Hyperdecoder {
                            let turn = example_turn(task, example, PromptMode::Definition);
                            Some(Worn::OfTurn(turns.index(task, &turn)))
                        } else {
                            worn
                        };
                        let (description, scores) = (description.clone(), vec![]);
                        items.push(Item {
                            task,
                            mode: *mode,
                            condition,
                            description,
                            adapter,
                            prompt,
                            answers,
                            scores,
                        });
                    }
                }
            }
        }
        if !texts.0.is_empty() {
            wardrobe.generated = Some(self.factors(&texts)?);
        }
        if let Some((encoder, generator)) = self.baselines.hyperdecoder.filter(|_| !turns.0.is_empty()) {
            wardrobe.turns = Some((encoded(encoder, &turns)?, generator));
        }
        Ok((items, wardrobe))
    }

    /// What a task's rows wear under a condition; nothing where the task has not what the condition needs.
    fn worn<'a>(
        &'a self,
        condition: Condition,
        task: &'a Task,
        description: Option<&str>,
        texts: &mut Texts<'a>,
        wardrobe: &mut Wardrobe<'a>,
    ) -> Result<Option<Option<Worn>>, EvalError> {
        let mut loaded = |adapter: Cow<'a, Adapter>| {
            wardrobe.loaded.push(adapter);
            Some(Some(Worn::Loaded(wardrobe.loaded.len() - 1)))
        };
        Ok(match condition {
            Condition::Base | Condition::FewShot | Condition::Hyperdecoder => Some(None),
            Condition::Prompted => description.map(|_| None),
            Condition::Own | Condition::OwnTrain | Condition::Other | Condition::Random => {
                description.map(|text| Some(Worn::Generated(texts.index(task, text))))
            }
            Condition::Multitask => self.baselines.multitask.and_then(|a| loaded(Cow::Borrowed(a))),
            Condition::MeanLora => self.baselines.mean_lora.and_then(|a| loaded(Cow::Borrowed(a))),
            Condition::TaskLora => match self.baselines.task_lora {
                Some(library) => library(task)?.and_then(|a| loaded(Cow::Owned(a))),
                None => None,
            },
        })
    }

    /// A few of a task's examples that are not scored, each a question and its answer: drawn once by the seed.
    fn shots(&self, task: &Task, scored: Part, mode: PromptMode, seed: u64) -> Result<Vec<Message>, EvalError> {
        let Some(part) = part_of_shots(task.benchmark, scored) else { return Ok(vec![]) };
        let mut examples = self.set.examples(task, part)?;
        examples.shuffle(&mut draws(&task.name, seed.wrapping_add(1)));
        examples.truncate(self.baselines.shots);
        let turns = |e: &Example| [Message::user(example_turn(task, e, mode)), Message::assistant(e.target.clone())];
        Ok(examples.iter().flat_map(turns).collect())
    }

    fn factors(&self, texts: &Texts<'_>) -> Result<LoraFactors, EvalError> {
        let factors = self.generator.generate(encoded(self.encoder, texts)?)?;
        if let Some(index) = not_finite(&factors) {
            let (task, text) = texts.0.get(index).cloned().unwrap_or_default();
            let what = format!("the adapter generated from {text:?}");
            return Err(EvalError::NotFinite { task: task.to_owned(), what });
        }
        Ok(factors)
    }
}

/// The part that examples before a question come from, where another is scored; none where nothing is left that is not
/// scored.
pub fn part_of_shots(benchmark: bool, scored: Part) -> Option<Part> {
    match (benchmark, scored) {
        (true, Part::Test) => Some(Part::Dev),
        (false, Part::Valid | Part::Test) => Some(Part::Train),
        _ => None,
    }
}

/// Embeddings of texts: `[texts, e]`.
fn encoded(encoder: &dyn TextEncoder, texts: &Texts<'_>) -> Result<Tensor<2>, EvalError> {
    let all: Vec<&str> = texts.0.iter().map(|(_, text)| text.as_str()).collect();
    let encoded = encoder.encode(&all).map_err(|source| {
        use t2l_core::EncodeError::{Empty, Tokenize, TooLong};
        let index = match &source {
            Empty { index, .. } | TooLong { index, .. } | Tokenize { index, .. } => Some(*index),
            _ => None,
        };
        let task = index.and_then(|i| texts.0.get(i)).map(|(task, _)| (*task).to_owned()).unwrap_or_default();
        EvalError::Description { task, source }
    })?;
    Ok(encoded.embeddings)
}

/// Texts of a chunk, each once, with the task that first asked for it.
#[derive(Default)]
struct Texts<'a>(Vec<(&'a str, String)>);

impl<'a> Texts<'a> {
    fn index(&mut self, task: &'a Task, text: &str) -> usize {
        self.0.iter().position(|(_, t)| t == text).unwrap_or_else(|| {
            self.0.push((&task.name, text.to_owned()));
            self.0.len() - 1
        })
    }
}

/// Splits an ordered list into batches of at most `rows`, of at most `tokens` once padded to their last (longest)
/// item; a batch has at least one.
pub(crate) fn batches<T>(items: &[T], rows: usize, tokens: usize, length: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let fits = |n: &usize| *n == 1 || rest.get(n - 1).is_some_and(|last| n * length(last) <= tokens);
        let count = (1..=rows.max(1).min(rest.len())).take_while(fits).count();
        let (batch, further) = rest.split_at(count);
        batches.push(batch);
        rest = further;
    }
    batches
}

fn collect(group: &Group<'_>, items: &[Item<'_>], scores: &mut Vec<Scores>) {
    let mut cells: BTreeMap<(&str, PromptMode, Condition, &str), Scores> = BTreeMap::new();
    for item in items {
        for &(metric, value) in &item.scores {
            let cell = cells.entry((&item.task.name, item.mode, item.condition, metric)).or_insert_with(|| Scores {
                group: group.name.clone(),
                task: item.task.name.clone(),
                part: group.part.name().to_owned(),
                mode: item.mode.name().to_owned(),
                condition: item.condition.name().to_owned(),
                description: item.description.clone(),
                metric: metric.to_owned(),
                own: Some(metric) == crate::generated::own_metric(item),
                values: vec![],
            });
            cell.values.push(value);
        }
    }
    scores.extend(cells.into_values());
}

#[cfg(test)]
mod tests {
    use super::batches;

    #[test]
    fn batches_keep_order_and_bounds() {
        let lengths = [1usize, 2, 2, 3, 10, 40, 50];
        let found: Vec<Vec<usize>> = batches(&lengths, 3, 20, |&l| l).into_iter().map(<[_]>::to_vec).collect();
        assert_eq!(found, [vec![1, 2, 2], vec![3, 10], vec![40], vec![50]]);
        assert!(batches(&[] as &[usize], 3, 20, |&l| l).is_empty());
    }
}
