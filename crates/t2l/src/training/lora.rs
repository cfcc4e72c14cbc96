//! `t2l train lora`: one adapter for each task, a group of tasks at a time.

use std::path::Path;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use t2l_adapter::peft;
use t2l_data::{Corpus, Part, PromptMode, Task};
use t2l_train::{
    Adapters, Ended, Event, FinishedTask, Group, HeldOutRow, Library, PlainLora, Shard, Stop, TrainConfig,
};

use super::ModelPaths;
use super::ground::{Ground, scaling};
use crate::Error;

/// How the training of a library ended.
#[derive(Debug, Clone)]
pub struct LibraryRun {
    /// Complete when every task of the shard is finished.
    pub ended: Ended,
    /// All finished tasks of the library, of whichever shard.
    pub finished: Vec<FinishedTask>,
}

/// Trains the adapters of a shard's tasks that `folder` does not hold yet. Resumes a group that was stopped.
///
/// # Errors
/// Models or data that cannot be loaded, tasks whose names no folder can have, and whatever stops a run.
#[allow(clippy::too_many_arguments)]
pub fn train_library(
    config: &TrainConfig,
    models: &ModelPaths,
    folder: &Path,
    shard: Shard,
    device: &Device,
    stop: &Stop,
    say: &mut dyn FnMut(&str),
    tell: &mut dyn FnMut(Event),
) -> Result<LibraryRun, Error> {
    Library::check(folder)?;
    let ground = Ground::open(config, models, device, say)?;
    let library = Library::open(folder, config.clone(), shard)?;
    let mut lengths = Vec::with_capacity(ground.tasks.len());
    for task in &ground.tasks {
        lengths.push((task.name.clone(), mean_length(&ground, task)?));
    }
    let groups = library.groups(lengths)?;
    let mut ended = Ended::Complete;
    for (i, group) in groups.iter().enumerate() {
        say(&format!("group {} of {}: {}", i + 1, groups.len(), group.tasks.join(", ")));
        let mut adapters = prepare(config, &ground, group)?;
        if config.run.validate_every > 0 && adapters.held_out.is_empty() {
            say("no held-out examples (`split` \"valid\"): nothing is validated, the last values are kept");
        }
        ended = library.train(group, &mut adapters, stop, tell)?;
        if ended != Ended::Complete {
            break;
        }
    }
    Ok(LibraryRun { ended, finished: library.write_index()? })
}

/// Characters of a task's mean training example: tasks of similar length share batches.
fn mean_length(ground: &Ground, task: &Task) -> Result<usize, Error> {
    let examples = ground.set.examples(task, Part::Train)?;
    let characters: usize = examples.iter().map(|e| e.input.len() + e.target.len()).sum();
    Ok(characters / examples.len().max(1))
}

fn prepare(config: &TrainConfig, ground: &Ground, group: &Group) -> Result<Adapters, Error> {
    let tasks: Vec<&Task> = group.tasks.iter().map(|name| ground.set.find(name)).collect::<Result<_, _>>()?;
    let mut held_out = Vec::new();
    let mut adapters = Vec::new();
    for (i, task) in tasks.iter().enumerate() {
        adapters.push(initial(config, &task.name, ground)?);
        if config.run.validate_every > 0 {
            held_out.extend(validation(config, ground, task, i)?);
        }
    }
    let max_tokens = config.sampling.max_tokens;
    Ok(Adapters {
        names: group.tasks.clone(),
        adapters,
        adapter_of_task: (0..tasks.len()).collect(),
        layout: ground.layout.clone(),
        scaling: scaling(config),
        decoder: ground.decoder(config),
        plain_decoder: ground.backbone.decoder.clone(),
        corpus: Corpus::build(&ground.set, &tasks, &ground.renderer()?, max_tokens)?,
        sampler: config.sampler(),
        loss: config.loss.clone(),
        held_out,
        judged_by: group.tasks.iter().map(|name| vec![format!("{name}/nll")]).collect(),
    })
}

/// A few held-out examples of a task, in the prompt modes that it is trained in.
fn validation(config: &TrainConfig, ground: &Ground, task: &Task, adapter: usize) -> Result<Vec<HeldOutRow>, Error> {
    let renderer = ground.renderer()?;
    let mut examples = ground.set.examples(task, Part::Valid)?;
    examples.shuffle(&mut ChaCha8Rng::seed_from_u64(0x5eed));
    examples.truncate(config.lora.validation_examples);
    let input_share = config.sampling.input_share;
    let rows = examples.iter().enumerate().map(|(i, example)| {
        let input = input_share == 1.0 || (input_share > 0.0 && i % 2 == 0);
        let mode = if input { PromptMode::Input } else { PromptMode::Definition };
        let example = renderer.example(task, example, mode, config.sampling.max_tokens)?;
        Ok(HeldOutRow { example, adapter, group: task.name.clone() })
    });
    rows.collect()
}

/// An adapter's initial values: PEFT's, or those of the adapter that the configuration starts from.
pub(super) fn initial(config: &TrainConfig, name: &str, ground: &Ground) -> Result<PlainLora, Error> {
    let layout = &ground.layout;
    let Some(path) = &config.run.start_from else {
        return Ok(PlainLora::new(layout, config.hypernet.rank, config.run.seed, name, &ground.device));
    };
    let adapter = ground.trained_form(peft::load(path, &ground.device)?)?;
    Ok(PlainLora::from_adapter(&adapter, layout, scaling(config), &path.display().to_string())?)
}
