//! Under which adapter, or prompt, examples are scored.

use rand::Rng;
use serde::{Deserialize, Serialize};
use t2l_data::{Task, draws, other_task};

use crate::EvalError;

/// Texts that describe nothing, for the `random` condition (the published ablation's).
pub const NONSENSE: [&str; 3] = ["dogs;cats;bananas;", "7@9.qwepra#/.sd,s'2OC^039u#rdagjbL", "ggggggggggggggggggggg"];

/// Under which adapter, or prompt, examples are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The base model.
    Base,
    /// The base model with the first evaluation description as its instruction.
    Prompted,
    /// The adapter of the first evaluation description.
    Own,
    /// The adapter of the first training description.
    OwnTrain,
    /// The adapter of the evaluation description of a task of another family and kind, drawn once by the seed.
    Other,
    /// The adapter of a text that describes nothing.
    Random,
    /// One adapter trained on all tasks.
    Multitask,
    /// The task's own trained adapter, for tasks that have one.
    TaskLora,
    /// The mean of the factors of all such adapters.
    MeanLora,
    /// A hyperdecoder's adapter of each example's user turn.
    Hyperdecoder,
    /// The base model after a few of the task's other examples, with their answers.
    FewShot,
}

impl Condition {
    /// All of them, by name.
    pub const NAMES: [&str; 11] = [
        "base",
        "prompted",
        "own",
        "own_train",
        "other",
        "random",
        "multitask",
        "task_lora",
        "mean_lora",
        "hyperdecoder",
        "few_shot",
    ];
    const ALL: [Self; 11] = [
        Self::Base,
        Self::Prompted,
        Self::Own,
        Self::OwnTrain,
        Self::Other,
        Self::Random,
        Self::Multitask,
        Self::TaskLora,
        Self::MeanLora,
        Self::Hyperdecoder,
        Self::FewShot,
    ];

    /// Name in reports and on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Reads a name.
    ///
    /// # Errors
    /// A name nobody knows.
    pub fn parse(name: &str) -> Result<Self, EvalError> {
        let found = Self::ALL.into_iter().find(|c| c.name() == name.trim());
        found.ok_or_else(|| EvalError::Condition { name: name.to_owned() })
    }

    /// The text whose adapter is worn, or which stands in the prompt; `None` where there is none.
    pub fn description(self, task: &Task, pool: &[&Task], seed: u64) -> Option<String> {
        let eval = |t: &Task| t.descriptions.eval.first().or(t.descriptions.train.first()).cloned();
        match self {
            Self::Base | Self::FewShot | Self::Multitask | Self::TaskLora | Self::MeanLora | Self::Hyperdecoder => None,
            Self::Prompted | Self::Own => eval(task),
            Self::OwnTrain => task.descriptions.train.first().cloned(),
            Self::Other => other_task(task, pool, seed).and_then(eval),
            Self::Random => Some(NONSENSE[draws(&task.name, seed).random_range(0..NONSENSE.len())].to_owned()),
        }
    }

    /// Whether rows wear the adapter that the hypernetwork writes for [`Condition::description`].
    pub fn wears_generated(self) -> bool {
        matches!(self, Self::Own | Self::OwnTrain | Self::Other | Self::Random)
    }
}
