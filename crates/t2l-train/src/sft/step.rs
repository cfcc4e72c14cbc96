//! One SFT step: adapters for every row, the frozen decoder wearing them, gradients of the hypernetwork.

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, InputDropout};
use t2l_data::TrainBatch;
use t2l_hypernet::{DropoutSeed, Hypernet};

use crate::TrainError;
use crate::loss::{LossConfig, generated_l2, label_losses, weighted};
use crate::noise::{Noise, Purpose};
use crate::optimizer::{NamedGradients, named_gradients};

/// Which random streams a step draws from; `None` switches dropout and noise off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSeed {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
    /// Micro-batch inside the step.
    pub micro: u64,
}

/// What a step computed.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// Cross-entropy, smoothed and weighted as configured.
    pub sft_loss: f64,
    /// The L2 term, already multiplied by its weight.
    pub l2_loss: f64,
    /// Gradients of `sft_loss + l2_loss` for every trainable tensor of the hypernetwork, in name order.
    pub gradients: NamedGradients,
}

/// Computes the loss of a batch and its gradients.
///
/// `decoder` must be [`Decoder::for_training`]; `task_embeddings`: `[rows, e]`, one per row.
///
/// # Errors
/// Embeddings or adapters that do not fit.
pub fn sft_step(
    decoder: &Decoder,
    hypernet: &Hypernet,
    batch: &TrainBatch,
    task_embeddings: Tensor<2>,
    loss: &LossConfig,
    seed: Option<StepSeed>,
) -> Result<StepOutput, TrainError> {
    let stream = |purpose| seed.map(|s| Noise::new(s.seed, s.step, s.micro, purpose));
    let tracked = hypernet.parameters.tracked();
    let dropout = stream(Purpose::Hypernet).map(|mut n| DropoutSeed(n.seed()));
    let generated = hypernet.forward(&tracked, Tensor::from_inner(task_embeddings), dropout)?;
    let mut adapters = AdapterBatch::from_factors(&generated.factors);
    if loss.lora_dropout > 0.0 {
        adapters.input_dropout =
            stream(Purpose::AdapterInput).map(|mut n| InputDropout { p: loss.lora_dropout, seed: n.seed() });
    }
    let neftune = stream(Purpose::Neftune).filter(|_| loss.neftune_alpha > 0.0).map(|n| (loss.neftune_alpha, n));
    let losses = label_losses(decoder, batch, &adapters, loss.label_smoothing, neftune)?;
    let sft_loss = weighted(losses, batch, loss.weighting);
    let l2 = generated_l2(&generated.factors).filter(|_| loss.l2_generated > 0.0).map(|l2| l2 * loss.l2_generated);
    let l2_loss = l2.as_ref().map_or(0.0, |l2| f64::from(l2.clone().inner().into_scalar::<f32>()));
    let total = match l2 {
        Some(l2) => sft_loss.clone() + l2,
        None => sft_loss.clone(),
    };
    let mut gradients = total.backward();
    Ok(StepOutput {
        sft_loss: f64::from(sft_loss.inner().into_scalar::<f32>()),
        l2_loss,
        gradients: named_gradients(&tracked, &mut gradients),
    })
}
