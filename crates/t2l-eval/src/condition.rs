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
    /// The adapter of the evaluation description of a task of another family and kind.
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
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream(&task.name));
        match self {
            Self::Base => None,
            Self::Prompted | Self::Own => eval(task),
            Self::OwnTrain => task.descriptions.train.first().cloned(),
            Self::Other => {
                let candidates: Vec<&&Task> = pool.iter().filter(|t| unrelated(task, t)).collect();
                candidates.choose(&mut rng).and_then(|t| eval(t))
            }
            Self::Random => Some(NONSENSE[rng.random_range(0..NONSENSE.len())].to_owned()),
        }
    }

    /// Whether rows wear an adapter.
    pub fn wears_adapter(self) -> bool {
        !matches!(self, Self::Base | Self::Prompted)
    }
}

/// A number that follows from a name alone (FNV-1a).
pub(crate) fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Of another family and another kind.
fn unrelated(task: &Task, other: &Task) -> bool {
    family(task) != family(other) && task.kind != other.kind && task.name != other.name
}

/// Tasks over the same material share a family: the data set's name in `task123_NAME_…`, else the part before the
/// first underscore.
fn family(task: &Task) -> &str {
    let mut parts = task.name.split('_');
    let first = parts.next().unwrap_or("");
    let numbered = first.strip_prefix("task").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if numbered { parts.next().unwrap_or(first) } else { first }
}
