//! `t2l train sft`: a hypernetwork through the frozen base model.

use std::path::Path;

use burn::tensor::Device;
use t2l_adapter::peft;
use t2l_data::{Corpus, Task};
use t2l_hypernet::{Checkpoint, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target};
use t2l_train::{Conditions, PlainLora, Sft, Share, TrainConfig, Validator, set_offsets};

use super::ModelPaths;
use super::ground::{Ground, manifest, scaling};
use super::told;
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Sft, Error> {
    let corpus = corpus(config, ground, tell)?;
    let (table, width) = ground.embeddings(models, cache, tell)?;
    let told = |(index, task)| told::of_task(config, ground, &table, index, task);
    let descriptions = ground.trained().enumerate().map(told).collect::<Result<Vec<_>, _>>()?;
    let validators = told::validators(config, ground, &table, tell)?;
    assemble(config, models, ground, corpus, width, Conditions::Descriptions(descriptions), validators)
}

/// The tokenised examples of the tasks to train on.
pub(super) fn corpus(config: &TrainConfig, ground: &Ground, tell: &mut dyn FnMut(&str)) -> Result<Corpus, Error> {
    tell("tokenising");
    let tasks: Vec<&Task> = ground.tasks.iter().collect();
    let (renderer, max_tokens) = (ground.renderer()?, config.sampling.max_tokens);
    let corpus = Corpus::build(&ground.set, &tasks, &renderer, max_tokens)?;
    let Some((set, extra)) = &ground.extra else { return Ok(corpus) };
    let extra: Vec<&Task> = extra.iter().collect();
    Ok(corpus.with_extra(Corpus::build(set, &extra, &renderer, max_tokens)?))
}

/// What is trained, of what it needs: on embeddings of this width.
pub(super) fn assemble(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    corpus: Corpus,
    width: usize,
    conditions: Conditions,
    validators: Vec<Box<dyn Validator>>,
) -> Result<Sft, Error> {
    let mut hypernet = hypernet(config, shape(config, models, ground, width)?, &ground.device)?;
    if let Some(path) = config.hypernet.multitask.as_ref().filter(|_| config.run.start_from.is_none()) {
        let name = path.display().to_string();
        let adapter = ground.trained_form(peft::load(path, &ground.device)?, &hypernet.config.layout)?;
        let adapter = PlainLora::from_adapter(&adapter, &hypernet.config.layout, scaling(config), &name)?;
        set_offsets(&mut hypernet, &adapter)?;
    }
    Ok(Sft {
        decoder: ground.decoder(config),
        manifest: manifest(config, &hypernet.config, models),
        hypernet,
        corpus,
        conditions,
        loss: config.loss.clone(),
        sampler: config.sampler(),
        judged_by: config.judged_by(&["unseen/own_nll", "seen/own_nll"]),
        validators,
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
        Init::Zero => (settings.offset, false),
        Init::Published | Init::Reconstruction => (Offset::None, true),
    };
    Ok(HypernetConfig {
        arch: settings.arch,
        layout: ground.layout(config, models)?,
        scaling: scaling(config),
        conditioning: settings.conditioning,
        embedding: match settings.conditioning {
            Conditioning::Text | Conditioning::Input | Conditioning::Learned => width,
            Conditioning::OneHot => tasks,
            Conditioning::None => 0,
        },
        tasks: if settings.conditioning == Conditioning::Learned { tasks } else { 0 },
        task_encoder: settings.task_encoder,
        latent: settings.latent,
        head_in: settings.head_in,
        head_bias,
        offset,
        learnable_positions: false,
        target: Target::Sft,
        dropout: settings.dropout,
    })
}
