//! What every trainer stands on: the base model, the tasks, and the held-out examples it is judged by.

use std::path::Path;

use burn::tensor::Device;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use t2l_backbone::Backbone;
use t2l_core::{AdapterLayout, LoraScaling, TextEncoder};
use t2l_data::{Part, PromptMode, PromptRenderer, Task, TaskSet, TokenizedExample, other_task};
use t2l_encoder::{BertEncoder, EmbeddingTable};
use t2l_hypernet::{HypernetConfig, Manifest, Rendering};
use t2l_train::{HeldOut, HeldOutExample, TrainConfig, Validator};

use super::ModelPaths;
use crate::Error;

/// The base model and the tasks of a run.
pub(super) struct Ground {
    pub set: TaskSet,
    /// Tasks to train on.
    pub tasks: Vec<Task>,
    /// Tasks that are never trained on.
    pub unseen: Vec<Task>,
    pub backbone: Backbone,
    pub device: Device,
}

/// A held-out example of the `own`-th task, and another task to compare with.
pub(super) struct Validation {
    pub example: TokenizedExample,
    pub own: usize,
    pub other: usize,
}

impl Ground {
    pub fn open(
        config: &TrainConfig,
        models: &ModelPaths,
        device: &Device,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let set = TaskSet::open(&config.data.dir)?;
        let tasks: Vec<Task> = match &config.data.split {
            Some(split) => set.split(split)?.into_iter().cloned().collect(),
            None => set.tasks.clone(),
        };
        let unseen: Vec<Task> = match &config.data.unseen_split {
            Some(split) => set.split(split)?.into_iter().cloned().collect(),
            None => vec![],
        };
        if let Some(both) = unseen.iter().find(|t| tasks.iter().any(|other| other.name == t.name)) {
            let reason = format!("task {:?} is in the training split and in the unseen split", both.name);
            return Err(Error::Invalid(reason));
        }
        tell("loading the base model");
        let backbone = Backbone::load(&models.base, device)?;
        Ok(Self { set, tasks, unseen, backbone, device: device.clone() })
    }

    pub fn renderer(&self) -> Result<PromptRenderer<'_>, Error> {
        Ok(PromptRenderer::new(&self.backbone.tokenizer, &self.backbone.chat)?)
    }

    /// Where adapters go.
    pub fn layout(&self, config: &TrainConfig, models: &ModelPaths) -> Result<AdapterLayout, Error> {
        Ok(self.backbone.decoder.layout(&models.base_ref.id, &config.hypernet.target_modules)?)
    }

    /// Two examples of each of a few tasks, one in each prompt mode, and for each another task to compare with.
    pub fn validation(&self, tasks: &[Task], config: &TrainConfig) -> Result<Vec<Validation>, Error> {
        let renderer = self.renderer()?;
        let mut rng = ChaCha8Rng::seed_from_u64(0x5eed);
        let mut order: Vec<usize> = (0..tasks.len()).filter(|&i| !tasks[i].descriptions.eval.is_empty()).collect();
        order.shuffle(&mut rng);
        order.truncate(config.data.validation_tasks);
        let mut held_out = Vec::new();
        let pool: Vec<&Task> = order.iter().map(|&i| &tasks[i]).collect();
        for &own in &order {
            let examples = self.set.examples(&tasks[own], Part::Valid)?;
            let other = other_task(&tasks[own], &pool, config.run.seed);
            let other = other.and_then(|other| tasks.iter().position(|t| t.name == other.name));
            let (Some(other), false) = (other, examples.is_empty()) else { continue };
            for mode in [PromptMode::Input, PromptMode::Definition] {
                let example = &examples[rng.random_range(0..examples.len())];
                let example = renderer.example(&tasks[own], example, mode, config.sampling.max_tokens)?;
                held_out.push(Validation { example, own, other });
            }
        }
        Ok(held_out)
    }

    /// Judges a hypernetwork on tasks it trains on (`seen`) and on others (`unseen`).
    pub fn validators(&self, config: &TrainConfig, table: &EmbeddingTable) -> Result<Vec<Box<dyn Validator>>, Error> {
        let mut validators: Vec<Box<dyn Validator>> = Vec::new();
        if config.run.validate_every == 0 {
            return Ok(validators);
        }
        for (group, tasks) in [("seen", &self.tasks), ("unseen", &self.unseen)] {
            let embedding = |task: &Task| table.embeddings(&[task.descriptions.eval[0].as_str()], &self.device);
            let mut examples = Vec::new();
            for Validation { example, own, other } in self.validation(tasks, config)? {
                examples.push(HeldOutExample {
                    example,
                    own: embedding(&tasks[own])?,
                    other: embedding(&tasks[other])?,
                });
            }
            if !examples.is_empty() {
                validators.push(Box::new(HeldOut::new(group, self.backbone.decoder.clone(), examples)));
            }
        }
        Ok(validators)
    }

    /// Embeddings of all descriptions of all tasks, kept in `cache`, and the encoder's width.
    pub fn embeddings(
        &self,
        models: &ModelPaths,
        cache: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(EmbeddingTable, usize), Error> {
        let encoder = BertEncoder::load(&models.encoder, &self.device)?.with_id(&models.encoder_ref.id);
        tell("embedding descriptions");
        let tasks = self.tasks.iter().chain(&self.unseen);
        let all: Vec<&str> =
            tasks.flat_map(|t| t.descriptions.train.iter().chain(&t.descriptions.eval)).map(String::as_str).collect();
        let table = EmbeddingTable::fill(cache, &encoder, &all, |done, of| {
            tell(&format!("embedding descriptions: {done} of {of}"));
        })?;
        Ok((table, encoder.width()))
    }
}

/// Rank and scaling of the adapters.
pub(super) fn scaling(config: &TrainConfig) -> LoraScaling {
    let settings = &config.hypernet;
    LoraScaling { alpha: settings.alpha, rank: settings.rank, use_rslora: settings.use_rslora }
}

/// What a checkpoint says of itself.
pub(super) fn manifest(config: &TrainConfig, hypernet: &HypernetConfig, models: &ModelPaths) -> Manifest {
    Manifest {
        version: t2l_hypernet::VERSION,
        created_by: format!("t2l {}", env!("CARGO_PKG_VERSION")),
        config: hypernet.clone(),
        base_model: models.base_ref.clone(),
        encoder: models.encoder_ref.clone(),
        rendering: Rendering {
            max_tokens: config.sampling.max_tokens,
            input_share: config.sampling.input_share,
            system_turn: false,
        },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    }
}
