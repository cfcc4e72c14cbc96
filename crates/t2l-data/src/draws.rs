//! Random draws that follow from a seed and a name, whatever else is drawn.

use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::Task;

/// The random draws of a name under a seed.
pub fn draws(name: &str, seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv1a(name));
    rng
}

/// A number that follows from a name alone.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The task whose description `task` is scored under for comparison: of another family and another kind where the pool has
/// such a one, drawn once by the seed.
pub fn other_task<'a>(task: &Task, pool: &[&'a Task], seed: u64) -> Option<&'a Task> {
    unrelated(task, pool).choose(&mut draws(&task.name, seed)).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The published values of FNV-1a: what was drawn under a name once is drawn again.
    #[test]
    fn names_give_the_published_hashes() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
