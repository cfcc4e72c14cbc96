//! The hypernetwork as what a run trains: adapters of the library, each under descriptions of its task.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::Value;
use t2l_core::Parameters;
use t2l_hypernet::{Hypernet, Manifest};

use super::sampler::LibrarySampler;
use super::{Targets, recon_step};
use crate::buffers;
use crate::sft::{drawn_descriptions, export_hypernet};
use crate::validate::validate_all;
use crate::{Outcome, Part, StepSeed, TrainConfig, TrainError, Trainee, Validator};

/// Everything that reconstruction works on.
pub struct Recon {
    device: Device,
    hypernet: Hypernet,
    manifest: Manifest,
    targets: Targets,
    descriptions: Vec<Tensor<2>>,
    sampler: LibrarySampler,
    judged_by: Vec<String>,
    validators: Vec<Box<dyn Validator>>,
}

impl Recon {
    /// A hypernetwork with its initial values, and the library it is to write.
    ///
    /// `descriptions`: task embeddings of each adapter's training descriptions, `[descriptions, e]`, in the order of the
    /// targets.
    ///
    /// # Errors
    /// An adapter without descriptions, or a library without deviations where z-scores are wanted.
    pub fn new(
        config: &TrainConfig,
        mut hypernet: Hypernet,
        manifest: Manifest,
        targets: Targets,
        descriptions: Vec<Tensor<2>>,
        validators: Vec<Box<dyn Validator>>,
    ) -> Result<Self, TrainError> {
        let counts: Vec<usize> = descriptions.iter().map(|d| d.dims()[0]).collect();
        for (i, name) in targets.names.iter().enumerate() {
            if counts.get(i).is_none_or(|&n| n == 0) {
                return Err(TrainError::NoData { reason: format!("adapter {name:?} has no description") });
            }
        }
        let Some(device) = descriptions.first().map(Tensor::device) else {
            return Err(TrainError::NoData { reason: "the library holds no adapter".into() });
        };
        targets.describe_to(&mut hypernet)?;
        let sampling = &config.sampling;
        let sampler = LibrarySampler::new(sampling.tasks_per_step, sampling.points_per_task, counts, config.run.seed);
        let judged_by = config.judged_by(&["unseen/own_nll", "seen/own_nll"]);
        Ok(Self { device, hypernet, manifest, targets, descriptions, sampler, judged_by, validators })
    }
}

impl Trainee for Recon {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part { name: "", parameters: &self.hypernet.parameters }]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameters> {
        vec![&mut self.hypernet.parameters]
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn data(&self) -> String {
        self.targets.digest()
    }

    fn position(&self) -> Value {
        buffers::position(self.sampler.state(), &self.hypernet)
    }

    fn restore(&mut self, position: &Value) -> Result<(), String> {
        self.sampler.restore(buffers::restore(position, &mut self.hypernet)?)
    }

    fn step(&mut self, seed: StepSeed, _active: &[bool]) -> Result<Outcome, TrainError> {
        let picks = self.sampler.next_batch();
        let tasks: Vec<usize> = picks.iter().map(|p| p.task).collect();
        let embeddings = drawn_descriptions(&self.descriptions, picks.iter().map(|p| (p.task, p.description)));
        let output = recon_step(&self.hypernet, embeddings, &self.targets.of_rows(&tasks), Some(seed))?;
        if let Some(used) = &output.code_use {
            self.hypernet.learn_codes(used);
        }
        let examples: Vec<&str> = tasks.iter().map(|&t| self.targets.names[t].as_str()).collect();
        Ok(Outcome {
            loss: output.loss,
            numbers: vec![("raw_error", output.raw_error)],
            tokens: picks.len(),
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
