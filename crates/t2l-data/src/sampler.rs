//! Which examples a step sees: tasks shuffled, a few points of each, rows of similar length together.

use std::collections::VecDeque;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Corpus, PromptMode};

/// Settings of the sampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplerConfig {
    /// Tasks in a batch.
    pub tasks_per_step: usize,
    /// Examples of each, drawn with replacement.
    pub points_per_task: usize,
    /// Share of examples shown without the task's instruction.
    pub input_share: f64,
    /// Batches whose rows are regrouped by length.
    pub bucket_window: usize,
    /// Share of tasks drawn from the corpus's extra ones, if it has any.
    pub extra_share: f64,
}

/// One drawn row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// Index of the task in the corpus.
    pub task: usize,
    /// Index of the example in the task.
    pub example: usize,
    /// Index of the description among the task's training descriptions.
    pub description: usize,
    /// Prompt mode.
    pub mode: PromptMode,
}

/// The hierarchical sampler of the published code, with batches bucketed by length.
///
/// An epoch is one pass over shuffled tasks, `tasks_per_step` at a time; a short rest is dropped. The batches of a
/// window (`bucket_window` of them, somewhat more where the epoch does not divide) are drawn as the plain sampler would, then the tasks of the whole window are sorted by length and dealt
/// again, so that padding is small; their order is shuffled.
///
/// Each task of a batch is one of the corpus's extra tasks with the probability `extra_share`. These have epochs of their
/// own, which may end within a batch; and as the window is dealt again, a batch may hold more or fewer of them than it drew.
/// A batch has no more tasks than there are plain ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    config: SamplerConfig,
    state: SamplerState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SamplerState {
    rng: ChaCha8Rng,
    /// Tasks left in this epoch.
    tasks: VecDeque<usize>,
    /// Extra tasks left in their epoch.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    extra: VecDeque<usize>,
    /// Batches already drawn.
    ready: VecDeque<Vec<Draw>>,
}

impl Sampler {
    /// A sampler at the start of its first epoch.
    pub fn new(config: SamplerConfig, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let state = SamplerState { rng, tasks: VecDeque::new(), extra: VecDeque::new(), ready: VecDeque::new() };
        Self { config, state }
    }

    /// Everything that decides the batches to come.
    pub fn state(&self) -> serde_json::Value {
        serde_json::to_value(&self.state).unwrap_or_default()
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state is not one, or refers to what the corpus does not have.
    pub fn restore(&mut self, state: &serde_json::Value, corpus: &Corpus) -> Result<(), String> {
        let state: SamplerState = serde_json::from_value(state.clone()).map_err(|e| format!("sampler state: {e}"))?;
        let fits = |d: &Draw| {
            d.task < corpus.tasks()
                && d.example < corpus.examples_of(d.task)
                && d.description < corpus.descriptions_of(d.task)
        };
        let (plain, extra) = (corpus.plain(), corpus.extra());
        let misplaced =
            state.tasks.iter().any(|t| !plain.contains(t)) || state.extra.iter().any(|t| !extra.contains(t));
        if misplaced || !state.ready.iter().flatten().all(fits) {
            return Err("sampler state belongs to other tasks".into());
        }
        let most = self.per_step(corpus).saturating_mul(self.config.points_per_task.max(1));
        if let Some(batch) = state.ready.iter().find(|batch| batch.is_empty() || batch.len() > most) {
            return Err(format!("sampler state holds a batch of {} rows; a batch has 1 to {most}", batch.len()));
        }
        self.state = state;
        Ok(())
    }

    /// Tasks in a batch of this corpus.
    fn per_step(&self, corpus: &Corpus) -> usize {
        self.config.tasks_per_step.min(corpus.plain().len()).max(1)
    }

    /// The next batch. A corpus always has a task, so it is never empty.
    pub fn next_batch(&mut self, corpus: &Corpus) -> Vec<Draw> {
        if self.state.ready.is_empty() {
            self.fill_window(corpus);
        }
        self.state.ready.pop_front().unwrap_or_default()
    }

    fn fill_window(&mut self, corpus: &Corpus) {
        let mut groups: Vec<Vec<Draw>> = Vec::new();
        let per_step = self.per_step(corpus);
        if self.state.tasks.len() < per_step {
            let mut all: Vec<usize> = corpus.plain().collect();
            all.shuffle(&mut self.state.rng);
            self.state.tasks = all.into();
        }
        // An epoch is cut into windows of about the same size, so that no plain task stands twice in one and, without
        // extra tasks, none is short.
        let batches_left = self.state.tasks.len() / per_step;
        let windows_left = (batches_left / self.config.bucket_window.max(1)).max(1);
        for _ in 0..batches_left.div_ceil(windows_left) {
            let extra = self.extra_tasks(corpus, per_step);
            let plain = self.state.tasks.drain(..per_step - extra.len());
            let tasks: Vec<usize> = plain.chain(extra).collect();
            groups.extend(tasks.into_iter().map(|task| self.points(corpus, task)));
        }
        let length = |draws: &Vec<Draw>| -> usize {
            let tokens = |d| corpus.example(d).prompt.len() + corpus.example(d).response.len();
            draws.iter().map(tokens).max().unwrap_or(0)
        };
        groups.sort_by_key(length);
        let mut batches: Vec<Vec<Draw>> = groups.chunks(per_step).map(<[_]>::concat).collect();
        batches.shuffle(&mut self.state.rng);
        self.state.ready = batches.into();
    }

    /// The extra tasks of a batch.
    fn extra_tasks(&mut self, corpus: &Corpus, per_step: usize) -> Vec<usize> {
        let SamplerState { rng, extra, .. } = &mut self.state;
        let share = self.config.extra_share.clamp(0.0, 1.0);
        // Without any, no number is drawn: what was drawn before there were such tasks is drawn still.
        if corpus.extra().is_empty() || share == 0.0 {
            return vec![];
        }
        let count = (0..per_step).filter(|_| rng.random_bool(share)).count().min(corpus.extra().len());
        if extra.len() < count {
            let mut all: Vec<usize> = corpus.extra().collect();
            all.shuffle(rng);
            *extra = all.into();
        }
        extra.drain(..count).collect()
    }

    fn points(&mut self, corpus: &Corpus, task: usize) -> Vec<Draw> {
        let rng = &mut self.state.rng;
        let draw = |_| Draw {
            task,
            example: rng.random_range(0..corpus.examples_of(task)),
            description: rng.random_range(0..corpus.descriptions_of(task)),
            mode: if rng.random_bool(self.config.input_share.clamp(0.0, 1.0)) {
                PromptMode::Input
            } else {
                PromptMode::Definition
            },
        };
        (0..self.config.points_per_task.max(1)).map(draw).collect()
    }
}
