//! `t2l train sft`: a hypernetwork through the frozen base model.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use t2l_data::{Corpus, Task};
use t2l_hypernet::{Checkpoint, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder};
use t2l_train::{Sft, Share, TrainConfig};

use super::ModelPaths;
use super::ground::{Ground, manifest, scaling};
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Sft, Error> {
    let (tasks, device) = (&ground.tasks, &ground.device);
    tell("tokenising");
    let task_refs: Vec<&Task> = tasks.iter().collect();
    let corpus = Corpus::build(&ground.set, &task_refs, &ground.renderer()?, config.sampling.max_tokens)?;
    let (table, width) = ground.embeddings(models, cache, tell)?;
    let count = tasks.len();
    let mut descriptions = Vec::with_capacity(count);
    for (i, task) in tasks.iter().enumerate() {
        let texts: Vec<&str> = task.descriptions.train.iter().map(String::as_str).collect();
        descriptions.push(match config.hypernet.conditioning {
            Conditioning::Text => table.embeddings(&texts, device)?,
            Conditioning::OneHot | Conditioning::Learned => one_hot(i, count, texts.len(), device),
            Conditioning::None => Tensor::zeros([texts.len(), 1], device),
        });
    }
    let hypernet = hypernet(config, shape(config, models, ground, width)?, device)?;
    let text = config.hypernet.conditioning == Conditioning::Text;
    if !text && config.run.validate_every > 0 {
        tell("without descriptions as conditioning nothing is validated, and there will be no `best`");
    }
    Ok(Sft {
        decoder: ground.decoder(config, tell),
        manifest: manifest(config, &hypernet.config, models),
        hypernet,
        corpus,
        descriptions,
        loss: config.loss.clone(),
        sampler: config.sampler(),
        judged_by: config.judged_by(&["unseen/own_nll", "seen/own_nll"]),
        validators: if text { ground.validators(config, &table, tell)? } else { vec![] },
        share: Share::WHOLE,
    })
}

/// A fresh hypernetwork, or the one that the configuration starts from.
pub(super) fn hypernet(config: &TrainConfig, shape: HypernetConfig, device: &Device) -> Result<Hypernet, Error> {
    let Some(path) = &config.run.start_from else {
        return Ok(Hypernet::new(shape, config.hypernet.init, config.run.seed, device)?);
    };
    let start = Checkpoint::load(path, device)?;
    if start.hypernet.config != shape {
        return Err(Error::Invalid(format!("{}: is a hypernetwork of another shape", path.display())));
    }
    Ok(start.hypernet)
}

/// The shape of a hypernetwork for text embeddings of this width.
pub(super) fn shape(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    width: usize,
) -> Result<HypernetConfig, Error> {
    let (settings, tasks) = (&config.hypernet, ground.tasks.len());
    let (offset, head_bias) = match settings.init {
        Init::Ours => (Offset::Trainable, true),
        Init::Zero => (Offset::Frozen, false),
        Init::Published | Init::Reconstruction => (Offset::None, true),
    };
    Ok(HypernetConfig {
        arch: settings.arch,
        layout: ground.layout(config, models)?,
        scaling: scaling(config),
        conditioning: settings.conditioning,
        embedding: match settings.conditioning {
            Conditioning::Text | Conditioning::Learned => width,
            Conditioning::OneHot => tasks,
            Conditioning::None => 0,
        },
        tasks: if settings.conditioning == Conditioning::Learned { tasks } else { 0 },
        task_encoder: TaskEncoder::Linear,
        latent: settings.latent,
        head_in: settings.head_in,
        head_bias,
        offset,
        learnable_positions: false,
        target: Target::Sft,
        dropout: settings.dropout,
    })
}

fn one_hot(task: usize, tasks: usize, rows: usize, device: &Device) -> Tensor<2> {
    let row: Tensor<2> = Tensor::eye(tasks, device).narrow(0, task, 1);
    row.repeat_dim(0, rows)
}
