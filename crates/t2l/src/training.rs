//! Everything an SFT run needs, made from its configuration: models loaded, examples tokenised, descriptions embedded.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use t2l_backbone::Backbone;
use t2l_core::{LoraScaling, TextEncoder};
use t2l_data::{Corpus, Part, PromptMode, PromptRenderer, Task, TaskSet};
use t2l_encoder::{BertEncoder, EmbeddingTable};
use t2l_eval::Condition;
use t2l_hypernet::{
    Checkpoint, Conditioning, Hypernet, HypernetConfig, Init, Manifest, ModelRef, Offset, Rendering, Target,
    TaskEncoder,
};
use t2l_train::{HeldOut, HeldOutExample, SftConfig, SftRun};

use crate::Error;

/// A run ready to start, with its validators.
pub struct PreparedRun {
    /// The run.
    pub run: SftRun,
    /// Loss on held-out examples: of training tasks (`seen`), and of tasks never trained on (`unseen`).
    pub validators: Vec<HeldOut>,
    /// Number of tasks, and of training examples.
    pub tasks: usize,
}

/// Where a run's frozen models lie.
#[derive(Debug, Clone)]
pub struct ModelPaths {
    /// The base model: a folder or a GGUF file.
    pub base: PathBuf,
    /// Names and hash of the base model for the manifest.
    pub base_ref: ModelRef,
    /// The encoder's folder.
    pub encoder: PathBuf,
    /// Names of the encoder for the manifest.
    pub encoder_ref: ModelRef,
}

/// Prepares an SFT run in `folder`. `cache` keeps description embeddings between runs.
///
/// # Errors
/// Models or data that cannot be loaded, a configuration that does not fit them.
pub fn prepare_sft(
    config: SftConfig,
    models: &ModelPaths,
    folder: &Path,
    cache: &Path,
    device: &Device,
    mut tell: impl FnMut(&str),
) -> Result<PreparedRun, Error> {
    let set = TaskSet::open(&config.data.dir)?;
    let tasks: Vec<&Task> = match &config.data.split {
        Some(split) => set.split(split)?,
        None => set.tasks.iter().collect(),
    };
    let unseen: Vec<&Task> = match &config.data.unseen_split {
        Some(split) => set.split(split)?,
        None => vec![],
    };
    if let Some(both) = unseen.iter().find(|t| tasks.iter().any(|other| other.name == t.name)) {
        return Err(Error::Invalid(format!("task {:?} is in the training split and in the unseen split", both.name)));
    }
    tell("loading the base model");
    let backbone = Backbone::load(&models.base, device)?;
    let renderer = PromptRenderer::new(&backbone.tokenizer, &backbone.chat)?;
    tell("tokenising");
    let corpus = Corpus::build(&set, &tasks, &renderer, config.sampling.max_tokens)?;

    let encoder = BertEncoder::load(&models.encoder, device)?.with_id(&models.encoder_ref.id);
    tell("embedding descriptions");
    let all = tasks.iter().chain(&unseen).flat_map(|t| t.descriptions.train.iter().chain(&t.descriptions.eval));
    let all: Vec<&str> = all.map(String::as_str).collect();
    let table = EmbeddingTable::fill(cache, &encoder, &all, |done, of| {
        tell(&format!("embedding descriptions: {done} of {of}"))
    })?;
    let embed = |texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        table.embeddings(&texts, device)
    };
    let count = tasks.len();
    let mut descriptions = Vec::with_capacity(count);
    for (i, task) in tasks.iter().enumerate() {
        descriptions.push(match config.hypernet.conditioning {
            Conditioning::Text => embed(&task.descriptions.train)?,
            Conditioning::OneHot | Conditioning::Learned => one_hot(i, count, task.descriptions.train.len(), device),
            Conditioning::None => Tensor::zeros([task.descriptions.train.len(), 1], device),
        });
    }

    let shape = shape(&config, &backbone, &models.base_ref.id, encoder.width(), count)?;
    let hypernet = match &config.run.start_from {
        Some(path) => {
            let start = Checkpoint::load(path, device)?;
            let pairs = [
                ("encoder", &start.manifest.encoder.id, &models.encoder_ref.id),
                ("base model", &start.manifest.base_model.id, &models.base_ref.id),
            ];
            if let Some((what, then, now)) = pairs.into_iter().find(|(_, then, now)| then != now) {
                return Err(Error::Invalid(format!("{}: was trained with {what} {then}, not {now}", path.display())));
            }
            if start.hypernet.config != shape {
                return Err(Error::Invalid(format!("{}: is a hypernetwork of another shape", path.display())));
            }
            start.hypernet
        }
        None => Hypernet::new(shape, config.hypernet.init, config.run.seed, device)?,
    };
    let manifest = Manifest {
        version: t2l_hypernet::VERSION,
        created_by: format!("t2l {}", env!("CARGO_PKG_VERSION")),
        config: hypernet.config.clone(),
        base_model: models.base_ref.clone(),
        encoder: models.encoder_ref.clone(),
        rendering: Rendering {
            max_tokens: config.sampling.max_tokens,
            input_share: config.sampling.input_share,
            system_turn: false,
        },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    };

    let mut validators = Vec::new();
    if config.run.validate_every > 0 && config.hypernet.conditioning == Conditioning::Text {
        for (group, tasks) in [("seen", &tasks), ("unseen", &unseen)] {
            let examples = held_out(&set, tasks, &config, &renderer, &table, device)?;
            if !examples.is_empty() {
                validators.push(HeldOut::new(group, backbone.decoder.clone(), examples));
            }
        }
    }
    let run = SftRun {
        decoder: backbone.decoder.for_training(),
        config,
        folder: folder.to_owned(),
        hypernet,
        manifest,
        corpus,
        descriptions,
    };
    Ok(PreparedRun { run, validators, tasks: count })
}

fn shape(
    config: &SftConfig,
    backbone: &Backbone,
    base_model: &str,
    width: usize,
    tasks: usize,
) -> Result<HypernetConfig, Error> {
    let settings = &config.hypernet;
    let (offset, head_bias) = match settings.init {
        Init::Ours => (Offset::Trainable, true),
        Init::Zero => (Offset::Frozen, false),
        Init::Published | Init::Reconstruction => (Offset::None, true),
    };
    Ok(HypernetConfig {
        arch: settings.arch,
        layout: backbone.decoder.layout(base_model, &settings.target_modules)?,
        scaling: LoraScaling { alpha: settings.alpha, rank: settings.rank, use_rslora: settings.use_rslora },
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

/// Two examples of each of a few tasks, one in each prompt mode, with their own and another task's description.
fn held_out(
    set: &TaskSet,
    tasks: &[&Task],
    config: &SftConfig,
    renderer: &PromptRenderer<'_>,
    table: &EmbeddingTable,
    device: &Device,
) -> Result<Vec<HeldOutExample>, Error> {
    let mut rng = ChaCha8Rng::seed_from_u64(0x5eed);
    let mut order: Vec<&Task> = tasks.iter().copied().filter(|t| !t.descriptions.eval.is_empty()).collect();
    order.shuffle(&mut rng);
    order.truncate(config.data.validation_tasks);
    let mut held_out = Vec::new();
    for task in &order {
        let examples = set.examples(task, Part::Valid)?;
        let texts = [Condition::Own, Condition::Other].map(|c| c.description(task, &order, config.run.seed));
        let ([Some(own), Some(other)], false) = (&texts, examples.is_empty()) else { continue };
        for mode in [PromptMode::Input, PromptMode::Definition] {
            let example = &examples[rng.random_range(0..examples.len())];
            held_out.push(HeldOutExample {
                example: renderer.example(task, example, mode, config.sampling.max_tokens)?,
                own: table.embeddings(&[own], device)?,
                other: table.embeddings(&[other], device)?,
            });
        }
    }
    Ok(held_out)
}
