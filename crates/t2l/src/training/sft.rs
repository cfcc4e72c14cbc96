//! `t2l train sft`: a hypernetwork through the frozen base model.

use std::path::Path;

use t2l_adapter::peft;
use t2l_data::Corpus;
use t2l_hypernet::Hypernet;
use t2l_train::{Conditions, PlainLora, Sft, Share, TrainConfig, Validator, set_from_base, set_offsets};

use super::ModelPaths;
use super::ground::{Ground, manifest, scaling};
use super::hypernet::{hypernet, shape};
use super::told;
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Sft, Error> {
    let corpus = ground.corpus(config, tell)?;
    let (table, width) = ground.embeddings(config, models, cache, tell)?;
    let hypernet = start(config, models, ground, &corpus, width)?;
    let table = ground.instructed(table, &hypernet, config, models, cache, tell)?;
    let told = |(index, task)| told::of_task(config, ground, &table, index, task);
    let descriptions = ground.trained().enumerate().map(told).collect::<Result<Vec<_>, _>>()?;
    let validators = told::validators(config, ground, &table, tell)?;
    Ok(assemble(config, models, ground, corpus, hypernet, Conditions::Descriptions(descriptions), validators))
}

/// The hypernetwork that a run begins with, for embeddings of this width.
pub(super) fn start(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    corpus: &Corpus,
    width: usize,
) -> Result<Hypernet, Error> {
    let mut hypernet = hypernet(config, shape(config, ground, width)?, models, &ground.device)?;
    if let Some(path) = config.hypernet.multitask.as_ref().filter(|_| config.run.start_from.is_none()) {
        let name = path.display().to_string();
        let adapter = ground.trained_form(peft::load(path, &ground.device)?)?;
        let adapter = PlainLora::from_adapter(&adapter, &hypernet.config.layout, scaling(config), &name)?;
        set_offsets(&mut hypernet, &adapter)?;
    }
    let copying = if hypernet.config.copying.is_none() { config.hypernet.copying_layers } else { 0 };
    let instructed = if hypernet.config.instructed.is_none() { config.hypernet.instructed_layers } else { 0 };
    set_from_base(&mut hypernet, &ground.backbone.decoder, &corpus.first_examples(96), copying, instructed)?;
    Ok(hypernet)
}

/// What is trained, of what it needs.
pub(super) fn assemble(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    corpus: Corpus,
    hypernet: Hypernet,
    conditions: Conditions,
    validators: Vec<Box<dyn Validator>>,
) -> Sft {
    Sft {
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
    }
}
