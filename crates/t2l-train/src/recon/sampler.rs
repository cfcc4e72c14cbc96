//! Which adapters a step reconstructs, and from which descriptions.

use std::collections::VecDeque;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// One row: a task and one of its descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub task: usize,
    pub description: usize,
}

/// An epoch is one pass over shuffled tasks, a few at a time; the last batch of an epoch may be short. Each task comes
/// with a few of its descriptions, without repetition where it has enough.
#[derive(Debug, Clone, PartialEq)]
pub struct LibrarySampler {
    tasks_per_step: usize,
    descriptions_per_task: usize,
    /// Descriptions of each task.
    descriptions: Vec<usize>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    rng: ChaCha8Rng,
    /// Tasks left in this epoch.
    tasks: VecDeque<usize>,
}

impl LibrarySampler {
    /// A sampler at the start of its first epoch. `descriptions`: how many each task has, at least one.
    pub fn new(tasks_per_step: usize, descriptions_per_task: usize, descriptions: Vec<usize>, seed: u64) -> Self {
        let state = State { rng: ChaCha8Rng::seed_from_u64(seed), tasks: VecDeque::new() };
        Self { tasks_per_step, descriptions_per_task, descriptions, state }
    }

    pub fn state(&self) -> serde_json::Value {
        serde_json::to_value(&self.state).unwrap_or_default()
    }

    pub fn restore(&mut self, state: &serde_json::Value) -> Result<(), String> {
        let state: State = serde_json::from_value(state.clone()).map_err(|e| format!("sampler state: {e}"))?;
        if state.tasks.iter().any(|&t| t >= self.descriptions.len()) {
            return Err("sampler state belongs to another library".into());
        }
        self.state = state;
        Ok(())
    }

    pub fn next_batch(&mut self) -> Vec<Pick> {
        let State { rng, tasks } = &mut self.state;
        if tasks.is_empty() {
            let mut all: Vec<usize> = (0..self.descriptions.len()).collect();
            all.shuffle(rng);
            *tasks = all.into();
        }
        let mut batch = Vec::new();
        for _ in 0..self.tasks_per_step.min(tasks.len()) {
            let Some(task) = tasks.pop_front() else { break };
            let (count, wanted) = (self.descriptions[task].max(1), self.descriptions_per_task);
            let mut picked = rand::seq::index::sample(rng, count, wanted.min(count)).into_vec();
            picked.extend((picked.len()..wanted).map(|_| rng.random_range(0..count)));
            batch.extend(picked.into_iter().map(|description| Pick { task, description }));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every epoch visits every task once, with distinct descriptions where there are enough, and a restored
        /// sampler goes on with the same batches.
        #[test]
        fn epochs_visit_every_task_once(
            descriptions in prop::collection::vec(1usize..4, 1..12), at_once in 1usize..6, wanted in 1usize..5, seed: u64,
        ) {
            let mut sampler = LibrarySampler::new(at_once, wanted, descriptions.clone(), seed);
            for _ in 0..2 {
                let saved = sampler.state();
                let mut resumed = LibrarySampler::new(at_once, wanted, descriptions.clone(), seed ^ 1);
                resumed.restore(&saved).expect("restores");
                let mut seen = vec![0; descriptions.len()];
                for _ in 0..descriptions.len().div_ceil(at_once) {
                    let batch = sampler.next_batch();
                    prop_assert_eq!(&batch, &resumed.next_batch());
                    for rows in batch.chunks(wanted) {
                        let task = rows[0].task;
                        seen[task] += 1;
                        let mut picked: Vec<usize> = rows.iter().map(|r| r.description).collect();
                        picked.sort_unstable();
                        picked.dedup();
                        prop_assert!(rows.iter().all(|r| r.task == task && r.description < descriptions[task]));
                        prop_assert_eq!(picked.len(), wanted.min(descriptions[task]));
                    }
                }
                prop_assert!(seen.iter().all(|&n| n == 1));
            }
        }
    }
}
