//! One SFT step: adapters for every row, the frozen decoder wearing them, gradients of the hypernetwork.

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_data::TrainBatch;
use t2l_hypernet::{DropoutSeed, Hypernet};

use crate::loss::{LossConfig, generated_l2, noisy_label_losses, weighted};
use crate::noise::{Noise, Purpose};
use crate::optimizer::{NamedGradients, named_gradients};
use crate::{StepSeed, TrainError};

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
    let tracked = hypernet.parameters.tracked();
    let dropout = seed.map(|s| DropoutSeed(Noise::of(s, Purpose::Hypernet).seed()));
    let generated = hypernet.forward(&tracked, Tensor::from_inner(task_embeddings), dropout)?;
    let losses = noisy_label_losses(decoder, batch, &generated.factors, loss, seed)?;
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
