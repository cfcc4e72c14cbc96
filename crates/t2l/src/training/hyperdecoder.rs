//! `t2l train hyperdecoder`: a hypernetwork that reads the user turn of each example instead of its task's description.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use burn::tensor::Tensor;
use t2l_data::{Corpus, Example, Part, PromptMode, Task, example_turn};
use t2l_encoder::EmbeddingTable;
use t2l_train::{Conditions, Sft, TrainConfig, Turns};

use super::ModelPaths;
use super::ground::{Ground, HeldOutTasks, Validation};
use super::sft::{assemble, start};
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Sft, Error> {
    let corpus = ground.corpus(config, tell)?;
    let drawn = drawn(config, &corpus);
    let mut turns: Vec<String> = Vec::with_capacity(drawn.len());
    let mut rows = HashMap::new();
    for (index, task) in ground.tasks.iter().enumerate() {
        let mut of_task = drawn.range((index, 0)..(index + 1, 0)).peekable();
        if of_task.peek().is_none() {
            continue;
        }
        let examples = ground.set.examples(task, Part::Train)?;
        for &(_, example) in of_task {
            rows.insert((index, example), turns.len());
            turns.push(turn_of(task, examples.get(example)));
        }
    }
    let held_out = ground.held_out(config)?;
    let held_out_turns = held_out.iter().flat_map(|(_, examples)| examples).flat_map(|v| [&v.turn, &v.other_turn]);
    let all: Vec<&str> = turns.iter().chain(held_out_turns).map(String::as_str).collect();
    let (table, width) = ground.embedded("turns", &all, config, models, cache, tell)?;
    let texts: Vec<&str> = turns.iter().map(String::as_str).collect();
    let turns = Turns { embeddings: table.embeddings(&texts, &ground.device)?, rows };
    let conditions = Conditions::Turns(Box::new(turns));
    let mut told = |_: HeldOutTasks<'_>, examples: &[Validation]| told(ground, &table, examples);
    let validators = ground.validators(held_out, &mut told, tell)?;
    let hypernet = start(config, models, ground, &corpus, width)?;
    Ok(assemble(config, models, ground, corpus, hypernet, conditions, validators))
}

/// Every (task, example) that a whole run draws: the sampler's draws follow from the seed alone.
fn drawn(config: &TrainConfig, corpus: &Corpus) -> BTreeSet<(usize, usize)> {
    let mut sampler = config.sampler();
    let examples = corpus.total_examples();
    let mut drawn = BTreeSet::new();
    for _ in 0..config.run.steps.saturating_mul(config.sampling.accumulation as u64) {
        drawn.extend(sampler.next_batch(corpus).iter().map(|d| (d.task, d.example)));
        if drawn.len() == examples {
            break;
        }
    }
    drawn
}

/// The user turn in `definition` mode; nothing where the file has lost the example since it was tokenised.
fn turn_of(task: &Task, example: Option<&Example>) -> String {
    example.map(|e| example_turn(task, e, PromptMode::Definition)).unwrap_or_default()
}

/// Each example's own turn, and one of the task it is compared with.
fn told(ground: &Ground, table: &EmbeddingTable, examples: &[Validation]) -> Result<Vec<[Tensor<2>; 2]>, Error> {
    let embedding = |turn: &str| table.embeddings(&[turn], &ground.device);
    examples.iter().map(|v| Ok([embedding(&v.turn)?, embedding(&v.other_turn)?])).collect()
}
