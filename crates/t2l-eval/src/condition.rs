//! Under which adapter, or prompt, examples are scored.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use t2l_data::Task;

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
}

impl Condition {
    /// All of them, by name.
    pub const NAMES: [&str; 6] = ["base", "prompted", "own", "own_train", "other", "random"];
    const ALL: [Self; 6] = [Self::Base, Self::Prompted, Self::Own, Self::OwnTrain, Self::Other, Self::Random];

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
            Self::Base => None,
            Self::Prompted | Self::Own => eval(task),
            Self::OwnTrain => task.descriptions.train.first().cloned(),
            Self::Other => other_task(task, pool, seed).and_then(eval),
            Self::Random => Some(NONSENSE[draws(task, seed).random_range(0..NONSENSE.len())].to_owned()),
        }
    }

    /// Whether rows wear an adapter.
    pub fn wears_adapter(self) -> bool {
        !matches!(self, Self::Base | Self::Prompted)
    }
}

/// The task whose description `task` is scored under for comparison: of another family and another kind where the pool has
/// such a one, drawn once by the seed.
pub fn other_task<'a>(task: &Task, pool: &[&'a Task], seed: u64) -> Option<&'a Task> {
    unrelated(task, pool).choose(&mut draws(task, seed)).copied()
}

/// The random draws of a task.
fn draws(task: &Task, seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream(&task.name));
    rng
}

/// A number that follows from a name alone (FNV-1a).
pub(crate) fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Tasks of another family and another kind. A pool that has none gives way on the kind first, then on the family, so
/// that every task is compared with some other one wherever there is another.
fn unrelated<'a>(task: &Task, pool: &[&'a Task]) -> Vec<&'a Task> {
    let others = || pool.iter().copied().filter(|t| t.name != task.name);
    let afar = |t: &&Task| t.family() != task.family();
    let levels = [
        others().filter(afar).filter(|t| t.kind != task.kind).collect::<Vec<_>>(),
        others().filter(afar).collect(),
        others().collect(),
    ];
    levels.into_iter().find(|level| !level.is_empty()).unwrap_or_default()
}
