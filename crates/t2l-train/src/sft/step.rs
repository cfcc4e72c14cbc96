//! One SFT step: adapters for every row, the frozen decoder wearing them, gradients of the hypernetwork.

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_core::AdapterBatch;
use t2l_data::TrainBatch;
use t2l_hypernet::{CodeUse, DropoutSeed, Hypernet};

use super::contrast::{Contrast, margin_loss};
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
    /// The margin term, already multiplied by its weight.
    pub margin_loss: f64,
    /// The codes that were taken, where the task encoder has codes: [`Hypernet::learn_codes`] moves them.
    pub code_use: Option<CodeUse>,
    /// Gradients of the three together for every trainable tensor of the hypernetwork, in name order.
    pub gradients: NamedGradients,
}

/// Computes the loss of a batch and its gradients.
///
/// `decoder` must be [`Decoder::for_training`]; `task_embeddings`: `[n, e]`, one for each of the batch's first n rows. The
/// rows after them are those of `contrasts`: the example of row `own` again, under the adapter of row `other`.
///
/// # Errors
/// Embeddings or adapters that do not fit.
pub fn sft_step(
    decoder: &Decoder,
    hypernet: &Hypernet,
    batch: &TrainBatch,
    task_embeddings: Tensor<2>,
    contrasts: &[Contrast],
    loss: &LossConfig,
    seed: Option<StepSeed>,
) -> Result<StepOutput, TrainError> {
    let tracked = hypernet.parameters.tracked();
    let dropout = seed.map(|s| DropoutSeed(Noise::of(s, Purpose::Hypernet).seed()));
    let rows = task_embeddings.dims()[0];
    let generated = hypernet.forward(&tracked, Tensor::from_inner(task_embeddings), dropout)?;
    let adapters = if contrasts.is_empty() {
        AdapterBatch::from_factors(&generated.factors)
    } else {
        let wearers = (0..rows).chain(contrasts.iter().map(|c| c.other)).map(Some);
        AdapterBatch::select_factors(&generated.factors, &wearers.collect::<Vec<_>>())?
    };
    let losses = noisy_label_losses(decoder, batch, adapters, loss, seed)?;
    let sft_loss = weighted(losses.clone(), batch, rows, loss.weighting);
    let l2 = generated_l2(&generated.factors).filter(|_| loss.l2_generated > 0.0).map(|l2| l2 * loss.l2_generated);
    let margin =
        (!contrasts.is_empty()).then(|| margin_loss(losses, batch, rows, contrasts, loss.margin) * loss.margin_weight);
    let value = |x: &Tensor<1>| f64::from(x.clone().inner().into_scalar::<f32>());
    let (l2_loss, margin_loss) = (l2.as_ref().map_or(0.0, value), margin.as_ref().map_or(0.0, value));
    let total = [l2, margin].into_iter().flatten().fold(sft_loss.clone(), |sum, term| sum + term);
    let mut gradients = total.backward();
    Ok(StepOutput {
        sft_loss: value(&sft_loss),
        l2_loss,
        margin_loss,
        code_use: generated.code_use,
        gradients: named_gradients(&tracked, &mut gradients),
    })
}
