//! What a training loop asks of whatever it trains.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;
use t2l_core::Parameters;

use super::ranks::Share;
use crate::TrainError;
use crate::optimizer::NamedGradients;

/// Which random streams a micro-batch draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSeed {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
    /// Micro-batch inside the step.
    pub micro: u64,
}

/// Parameters that are clipped, stepped and judged on their own: a hypernetwork, or the adapter of one task.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its name, unique in the run; empty where it is the only one.
    pub name: &'a str,
    /// Its trained values.
    pub parameters: &'a Parameters,
}

/// What one micro-batch computed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The whole loss.
    pub loss: f64,
    /// Named parts of it, and other numbers for the metrics file.
    pub numbers: Vec<(&'static str, f64)>,
    /// Real tokens (in reconstruction: generated adapters).
    pub tokens: usize,
    /// What was in it, for an error message.
    pub examples: String,
    /// Gradients of each part; `None` for a part that had no row, and then neither it nor its moments move.
    pub gradients: Vec<Option<NamedGradients>>,
}

/// Something that [`run`](crate::run) trains.
///
/// A trainee knows its data, its loss and its files; the loop knows steps, moments, checkpoints and when to stop.
pub trait Trainee {
    /// Its parts, in an order that never changes.
    fn parts(&self) -> Vec<Part<'_>>;

    /// The parameters of each part, in the same order.
    fn parameters_mut(&mut self) -> Vec<&mut Parameters>;

    /// Where plain tensors live.
    fn device(&self) -> Device;

    /// Digest of what it learns from; a state is not gone on with on other data. Empty where nothing is noted.
    fn data(&self) -> String {
        String::new()
    }

    /// What decides the steps to come besides the parameters: the state of a sampler.
    fn position(&self) -> Value;

    /// Goes on from a saved position.
    ///
    /// # Errors
    /// Why it is not one of this trainee's.
    fn restore(&mut self, position: &Value) -> Result<(), String>;

    /// Computes only this share of every micro-batch from now on: losses, numbers, tokens and gradients that add up over
    /// all shares to those of the whole.
    ///
    /// # Errors
    /// A trainee that cannot be shared.
    fn share(&mut self, share: Share) -> Result<(), TrainError> {
        match share {
            Share::WHOLE => Ok(()),
            _ => Err(TrainError::Ranks {
                reason: "only `sft` and `hyperdecoder` can be trained by several processes together".into(),
            }),
        }
    }

    /// Loss and gradients of the next micro-batch. Parts that are not `active` have ended and get no rows.
    ///
    /// # Errors
    /// Adapters or embeddings that do not fit.
    fn step(&mut self, seed: StepSeed, active: &[bool]) -> Result<Outcome, TrainError>;

    /// Named validation numbers of the active parts; none where there is nothing to validate on.
    ///
    /// # Errors
    /// Whatever keeps it from judging.
    fn validate(&mut self, active: &[bool]) -> Result<BTreeMap<String, f64>, TrainError>;

    /// Names of the numbers that may judge a part; the first one there is does. The lowest value is the best.
    fn judged_by(&self, part: usize) -> Vec<String>;

    /// Writes a part as what users load, in place of what an earlier call wrote there.
    ///
    /// # Errors
    /// Values that cannot be stored, or files that cannot be written.
    fn export(&self, part: usize, folder: &Path, recipe: Value) -> Result<(), TrainError>;
}
