//! What every trainer stands on: the base model, the tasks, and the held-out examples it is judged by.

use std::path::Path;

use burn::tensor::Device;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use t2l_adapter::fused;
use t2l_adapter::gguf::BaseShape;
use t2l_backbone::{Backbone, Decoder};
use t2l_core::{Adapter, AdapterLayout, LoraScaling, TextEncoder};
use t2l_data::{Part, PromptMode, PromptRenderer, Task, TaskSet, TokenizedExample, other_task};
use t2l_encoder::{EmbeddingTable, Encoder, fingerprint};
use t2l_hypernet::{HypernetConfig, Manifest, Rendering};
use t2l_train::{HeldOut, HeldOutExample, TrainConfig, Validator};

use super::ModelPaths;
use crate::Error;

/// What a run is told that wants to validate and cannot.
pub(super) const NOTHING_TO_VALIDATE_ON: &str = "no held-out examples (`split` \"valid\") of two tasks with evaluation \
     descriptions: nothing is validated, and there will be no `best`";

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
        let backbone = Backbone::load_as(&models.base, config.model.weights, device)?;
        let ground = Self { set, tasks, unseen, backbone, device: device.clone() };
        let end_of_turn = ground.renderer()?.end_of_turn().len();
        check_max_tokens(config.sampling.max_tokens, end_of_turn, ground.backbone.decoder.config().longest_context())?;
        Ok(ground)
    }

    pub fn renderer(&self) -> Result<PromptRenderer<'_>, Error> {
        Ok(PromptRenderer::of(&self.backbone)?)
    }

    /// The base model to train through.
    pub fn decoder(&self, config: &TrainConfig, tell: &mut dyn FnMut(&str)) -> Decoder {
        let decoder = self.backbone.decoder.for_training(config.model.products);
        if decoder.products() != config.model.products {
            tell("this device has no products in bf16 with sums in f32: the base model multiplies in f32");
        }
        decoder
    }

    /// An adapter from a file in the form that training has it in: base models that fuse projections are trained in
    /// parts, unless fused modules are the targets.
    pub fn trained_form(&self, adapter: Adapter, layout: &AdapterLayout) -> Result<Adapter, Error> {
        let c = self.backbone.decoder.config();
        match BaseShape::new(&c.family, c.heads, c.kv_heads).filter(|_| c.fused) {
            Some(base) => Ok(fused::in_layout(&adapter, &base, layout)?),
            None => Ok(adapter),
        }
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
    pub fn validators(
        &self,
        config: &TrainConfig,
        table: &EmbeddingTable,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<Box<dyn Validator>>, Error> {
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
        if validators.is_empty() {
            tell(NOTHING_TO_VALIDATE_ON);
        }
        Ok(validators)
    }

    /// Embeddings of all descriptions of all tasks, and the encoder's width. The folder `cache` keeps them, in a file
    /// for each encoder as its files are now.
    pub fn embeddings(
        &self,
        models: &ModelPaths,
        cache: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(EmbeddingTable, usize), Error> {
        let id = fingerprint(&models.encoder_ref.id, &models.encoder)?;
        let path = cache.join(format!("descriptions-{id}.safetensors"));
        let encoder = Encoder::load(&models.encoder, &self.device)?.with_id(id);
        tell("embedding descriptions");
        let tasks = self.tasks.iter().chain(&self.unseen);
        let all: Vec<&str> =
            tasks.flat_map(|t| t.descriptions.train.iter().chain(&t.descriptions.eval)).map(String::as_str).collect();
        let table = EmbeddingTable::fill(&path, &encoder, &all, |done, of| {
            tell(&format!("embedding descriptions: {done} of {of}"));
        })?;
        Ok((table, encoder.width()))
    }
}

/// Rows must leave an answer's first token beside the end of the turn when both sides are cut to one length, and fit the
/// model.
fn check_max_tokens(max_tokens: usize, end_of_turn: usize, max_positions: usize) -> Result<(), Error> {
    let least = 2 * (end_of_turn + 1);
    if (least..=max_positions).contains(&max_tokens) {
        return Ok(());
    }
    let range = format!("must be from {least} to {max_positions} for this base model");
    Err(Error::Invalid(format!("setting sampling.max_tokens = {max_tokens}: {range}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_the_model_and_keep_an_answer() {
        let refused = |max_tokens| check_max_tokens(max_tokens, 5, 64).err().map(|e| e.to_string());
        assert_eq!((refused(12), refused(64)), (None, None));
        let expected =
            |n| Some(format!("setting sampling.max_tokens = {n}: must be from 12 to 64 for this base model"));
        assert_eq!((refused(11), refused(65)), (expected(11), expected(65)));
    }
}
