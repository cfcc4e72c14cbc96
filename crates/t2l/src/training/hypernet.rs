//! The hypernetwork that a run begins with, and its shape.

use burn::tensor::Device;
use t2l_core::counted;
use t2l_hypernet::{Checkpoint, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target};
use t2l_train::TrainConfig;

use super::ModelPaths;
use super::ground::{Ground, scaling};
use crate::Error;

/// A fresh hypernetwork, or the one that the configuration starts from: one that was told of no quoted words goes on as
/// though nothing were quoted, until it learns of them.
pub(super) fn hypernet(
    config: &TrainConfig,
    shape: HypernetConfig,
    models: &ModelPaths,
    device: &Device,
) -> Result<Hypernet, Error> {
    let Some(path) = &config.run.start_from else {
        return Ok(Hypernet::new(shape, config.hypernet.init, config.run.seed, device)?);
    };
    let mut start = Checkpoint::load(path, device)?;
    let (trained, given) = (&start.manifest.encoder.sha256, &models.encoder_ref.sha256);
    if trained.is_some() && given.is_some() && trained != given {
        let id = &start.manifest.encoder.id;
        return Err(Error::Invalid(format!("{}: was trained with another encoder, {id}", path.display())));
    }
    if config.model.quoted_words {
        start.read_quoted_words(shape.embedding);
    }
    let HypernetConfig { copying, instructed, .. } = start.hypernet.config;
    let settings = &config.hypernet;
    for (does, layers, key, wanted) in [
        ("has instruction effects", instructed.map(|i| i.layers), "instructed_layers", settings.instructed_layers),
        ("copies", copying.map(|c| c.layers), "copying_layers", settings.copying_layers),
    ] {
        if let Some(has) = layers.filter(|has| *has != wanted) {
            let has = counted(has, "layer");
            let reason = format!("{does} in {has}, and hypernet.{key} is {wanted}");
            return Err(Error::Invalid(format!("{}: {reason}", path.display())));
        }
    }
    let embedding = shape.embedding + start.hypernet.config.effects_width();
    if start.hypernet.config != (HypernetConfig { copying, instructed, embedding, ..shape }) {
        return Err(Error::Invalid(format!("{}: is a hypernetwork of another shape", path.display())));
    }
    Ok(start.hypernet)
}

/// The shape of a hypernetwork for text embeddings of this width.
pub(super) fn shape(config: &TrainConfig, ground: &Ground, width: usize) -> Result<HypernetConfig, Error> {
    let (settings, tasks) = (&config.hypernet, ground.tasks.len());
    let (offset, head_bias) = match settings.init {
        Init::Ours => (Offset::Trainable, true),
        Init::Zero => (settings.offset, false),
        Init::Published | Init::Reconstruction => (Offset::None, true),
    };
    Ok(HypernetConfig {
        arch: settings.arch,
        layout: ground.layout.clone(),
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
        copying: None,
        instructed: None,
        dropout: settings.dropout,
    })
}
