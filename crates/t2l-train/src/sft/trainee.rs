//! The hypernetwork as what a run trains: rows from the sampler, each under its task's description.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;
use t2l_backbone::Decoder;
use t2l_core::{Parameters, counted};
use t2l_data::{Corpus, Sampler, TrainBatch};
use t2l_hypernet::{Checkpoint, Dtype, Hypernet, Manifest};

use super::conditions::with_noise;
use super::step::sft_step_share;
use super::{Conditions, Contrast};
use crate::validate::validate_all;
use crate::{LossConfig, Outcome, Part, Share, StepSeed, TrainError, Trainee, Validator};
use crate::{buffers, files};

/// Everything that SFT works on.
pub struct Sft {
    /// The frozen base model, [`Decoder::for_training`].
    pub decoder: Decoder,
    /// The hypernetwork with its initial values.
    pub hypernet: Hypernet,
    /// What goes into the manifest of exported checkpoints.
    pub manifest: Manifest,
    /// Tokenised examples.
    pub corpus: Corpus,
    /// What the adapter of each row is generated from.
    pub conditions: Conditions,
    /// The loss.
    pub loss: LossConfig,
    /// Draws rows.
    pub sampler: Sampler,
    /// Names of the validation numbers that may choose the best checkpoint.
    pub judged_by: Vec<String>,
    /// Judges.
    pub validators: Vec<Box<dyn Validator>>,
    /// Which rows of every batch this process computes.
    pub share: Share,
}

impl Trainee for Sft {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part { name: "", parameters: &self.hypernet.parameters }]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameters> {
        vec![&mut self.hypernet.parameters]
    }

    fn device(&self) -> Device {
        self.decoder.device().inner()
    }

    fn data(&self) -> String {
        // Embeddings of descriptions are left out: another machine rounds them differently.
        files::corpus_digest(&self.corpus)
    }

    fn position(&self) -> Value {
        buffers::position(self.sampler.state(), &self.hypernet)
    }

    fn restore(&mut self, position: &Value) -> Result<(), String> {
        self.sampler.restore(buffers::restore(position, &mut self.hypernet)?, &self.corpus)
    }

    fn share(&mut self, share: Share) -> Result<(), TrainError> {
        if share.of > 1 && self.loss.margin_weight > 0.0 {
            let reason = "loss.margin_weight must be 0: the margin compares rows of different processes";
            return Err(TrainError::Ranks { reason: reason.into() });
        }
        self.share = share;
        Ok(())
    }

    fn step(&mut self, seed: StepSeed, _active: &[bool]) -> Result<Outcome, TrainError> {
        let (draws, share) = (self.sampler.next_batch(&self.corpus), self.share);
        if draws.len() < share.of {
            let reason = format!("a batch of {} cannot be shared by {}", counted(draws.len(), "row"), share.of);
            return Err(TrainError::Ranks { reason });
        }
        let tasks: Vec<usize> = draws.iter().map(|d| d.task).collect();
        let contrasts = Contrast::draw(&tasks, &self.loss, seed);
        let again = contrasts.iter().map(|c| &draws[c.own]);
        let rows: Vec<_> = draws.iter().chain(again).map(|d| self.corpus.example(d)).collect();
        let batch = TrainBatch::new(&rows, 8, 0);
        // What is copied is copied as it stands, and effects of instructions are put in as they are.
        let config = &self.hypernet.config;
        let exact = config.copying.map_or(0, |copying| copying.words) + config.effects_width();
        let embeddings = with_noise(self.conditions.of(&draws)?, exact, self.loss.description_noise, seed);
        let output = sft_step_share(
            &self.decoder,
            &self.hypernet,
            &batch,
            embeddings,
            &contrasts,
            &self.loss,
            Some(seed),
            share,
        )?;
        if let Some(used) = &output.code_use {
            self.hypernet.learn_codes(used);
        }
        let examples: Vec<&str> = draws.iter().map(|d| self.corpus.task_name(d.task)).collect();
        Ok(Outcome {
            loss: output.sft_loss + output.l2_loss + output.margin_loss,
            numbers: vec![
                ("sft_loss", output.sft_loss),
                ("l2_loss", output.l2_loss),
                ("margin_loss", output.margin_loss),
                ("padding_share", batch.padding_share() / share.of as f64),
            ],
            tokens: share.rows(batch.tokens).len(),
            examples: examples.join(", "),
            gradients: vec![Some(output.gradients)],
        })
    }

    fn validate(&mut self, _active: &[bool]) -> Result<BTreeMap<String, f64>, TrainError> {
        validate_all(&mut self.validators, &self.hypernet)
    }

    fn judged_by(&self, _part: usize) -> Vec<String> {
        self.judged_by.clone()
    }

    fn export(&self, _part: usize, folder: &Path, recipe: Value) -> Result<(), TrainError> {
        export_hypernet(&self.manifest, &self.hypernet, folder, recipe)
    }
}

/// Writes a hypernetwork in bf16, with its recipe in the manifest.
pub(crate) fn export_hypernet(
    manifest: &Manifest,
    hypernet: &Hypernet,
    folder: &Path,
    recipe: Value,
) -> Result<(), TrainError> {
    let manifest = Manifest { recipe, ..manifest.clone() };
    Checkpoint { manifest, hypernet: hypernet.clone() }.save(folder, Dtype::Bf16)?;
    Ok(())
}
