//! What a hypernetwork is told of tasks: their descriptions, their index among those it trains on, or nothing.

use burn::tensor::{Device, Tensor};
use t2l_data::Task;
use t2l_encoder::EmbeddingTable;
use t2l_hypernet::Conditioning;
use t2l_train::{TrainConfig, Validator};

use super::ground::{Ground, HeldOutTasks, SEEN, Validation};
use crate::Error;

/// What it may be told of one of the tasks to train on, by its place among them, a row for each of its training
/// descriptions: `[descriptions, e]`.
pub(super) fn of_task(
    config: &TrainConfig,
    ground: &Ground,
    table: &EmbeddingTable,
    index: usize,
    task: &Task,
) -> Result<Tensor<2>, Error> {
    let (device, count) = (&ground.device, ground.tasks.len());
    let texts: Vec<&str> = task.descriptions.train.iter().map(String::as_str).collect();
    Ok(match config.hypernet.conditioning {
        Conditioning::Text | Conditioning::Input => table.embeddings(&texts, device)?,
        Conditioning::OneHot | Conditioning::Learned => one_hot(index, count, texts.len(), device),
        Conditioning::None => Tensor::zeros([texts.len(), 1], device),
    })
}

/// Judges of a hypernetwork that is told so.
pub(super) fn validators(
    config: &TrainConfig,
    ground: &Ground,
    table: &EmbeddingTable,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Box<dyn Validator>>, Error> {
    match config.hypernet.conditioning {
        Conditioning::Text | Conditioning::Input => ground.description_validators(config, table, tell),
        _ => {
            let mut told = |held: HeldOutTasks<'_>, examples: &[Validation]| Ok(by_index(ground, held, examples));
            ground.validators(ground.held_out(config)?, &mut told, tell)
        }
    }
}

/// What a hypernetwork that knows tasks by their index is told: only of those that it trains on.
fn by_index(ground: &Ground, held: HeldOutTasks<'_>, examples: &[Validation]) -> Vec<[Tensor<2>; 2]> {
    if held.group != SEEN {
        return vec![];
    }
    let index = |task: &Task| ground.tasks.iter().position(|t| t.name == task.name);
    let told = |v: &Validation| {
        let one = |task| Some(one_hot(index(task)?, ground.tasks.len(), 1, &ground.device));
        Some([one(&v.own)?, one(&v.other)?])
    };
    // All or none: they stand beside the examples.
    examples.iter().map(told).collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn one_hot(task: usize, tasks: usize, rows: usize, device: &Device) -> Tensor<2> {
    let row: Tensor<2> = Tensor::eye(tasks, device).narrow(0, task, 1);
    row.repeat_dim(0, rows)
}
