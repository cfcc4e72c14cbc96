//! The tokenised training examples of many tasks, in memory.

use std::ops::Range;

use rayon::prelude::*;

use crate::{DataError, Draw, Part, PromptMode, PromptRenderer, Task, TaskSet, TokenizedExample};

struct CorpusTask {
    name: String,
    descriptions: usize,
    /// Per mode (input, definition), every example.
    examples: [Vec<TokenizedExample>; 2],
}

/// Tokenised training examples.
pub struct Corpus {
    tasks: Vec<CorpusTask>,
    /// How many of the tasks, at the end, are mixed in at a share of their own.
    extra: usize,
}

fn slot(mode: PromptMode) -> usize {
    match mode {
        PromptMode::Input => 0,
        PromptMode::Definition => 1,
    }
}

impl Corpus {
    /// Tokenises the training examples of the given tasks in both prompt modes.
    ///
    /// # Errors
    /// No task at all, a benchmark among the tasks, a task without examples or training descriptions, files that cannot be read.
    pub fn build(
        set: &TaskSet,
        tasks: &[&Task],
        renderer: &PromptRenderer<'_>,
        max_tokens: usize,
    ) -> Result<Self, DataError> {
        if tasks.is_empty() {
            let reason = "there is no task to train on".to_owned();
            return Err(DataError::Format { path: set.folder().to_owned(), reason });
        }
        let build = |task: &&Task| -> Result<CorpusTask, DataError> {
            if task.benchmark {
                return Err(DataError::Benchmark { name: task.name.clone() });
            }
            let wrong = |reason: &str| DataError::Render { task: task.name.clone(), reason: reason.to_owned() };
            let examples = set.examples(task, Part::Train)?;
            let in_mode = |mode| -> Result<Vec<TokenizedExample>, DataError> {
                let tokenised = examples.iter().map(|e| renderer.example(task, e, mode, max_tokens));
                // An empty target still has its end of turn, so every example has a label.
                tokenised.collect()
            };
            if examples.is_empty() {
                return Err(wrong("has no training example"));
            }
            if task.descriptions.train.is_empty() {
                return Err(wrong("has no description for training"));
            }
            Ok(CorpusTask {
                name: task.name.clone(),
                descriptions: task.descriptions.train.len(),
                examples: [in_mode(PromptMode::Input)?, in_mode(PromptMode::Definition)?],
            })
        };
        Ok(Self { tasks: tasks.par_iter().map(build).collect::<Result<_, _>>()?, extra: 0 })
    }

    /// The same with further tasks, which a [`Sampler`](crate::Sampler) mixes in at a share of their own. Their indices
    /// follow.
    pub fn with_extra(mut self, extra: Self) -> Self {
        self.extra += extra.tasks.len();
        self.tasks.extend(extra.tasks);
        self
    }

    /// Number of tasks, extra ones included.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The tasks that are not extra ones.
    pub fn plain(&self) -> Range<usize> {
        0..self.tasks.len() - self.extra
    }

    /// The extra tasks: the last ones.
    pub fn extra(&self) -> Range<usize> {
        self.tasks.len() - self.extra..self.tasks.len()
    }

    /// Name of a task.
    pub fn task_name(&self, task: usize) -> &str {
        &self.tasks[task].name
    }

    /// Number of a task's examples.
    pub fn examples_of(&self, task: usize) -> usize {
        self.tasks[task].examples[0].len()
    }

    /// Number of examples of all tasks.
    pub fn total_examples(&self) -> usize {
        (0..self.tasks()).map(|task| self.examples_of(task)).sum()
    }

    /// Number of a task's training descriptions.
    pub fn descriptions_of(&self, task: usize) -> usize {
        self.tasks[task].descriptions
    }

    /// Every example in both prompt modes, with its task's name.
    pub fn examples(&self) -> impl Iterator<Item = (&str, &TokenizedExample)> {
        self.tasks.iter().flat_map(|task| task.examples.iter().flatten().map(|example| (task.name.as_str(), example)))
    }

    /// The first example of each of at most `most` tasks, spread evenly over all of them, without the task's instruction.
    pub fn first_examples(&self, most: usize) -> Vec<&TokenizedExample> {
        let every = self.tasks.len().div_ceil(most.max(1)).max(1);
        self.tasks.iter().step_by(every).filter_map(|task| task.examples[slot(PromptMode::Input)].first()).collect()
    }

    /// A drawn example.
    pub fn example(&self, draw: &Draw) -> &TokenizedExample {
        &self.tasks[draw.task].examples[slot(draw.mode)][draw.example]
    }
}
