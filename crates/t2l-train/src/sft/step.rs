//! One SFT step: adapters for every row, the frozen decoder wearing them, gradients of the hypernetwork.

use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_core::AdapterBatch;
use t2l_data::TrainBatch;
use t2l_hypernet::{CodeUse, DropoutSeed, Hypernet};

use super::contrast::{Contrast, margin_loss};
use crate::backward::TrainingPass;
use crate::loss::{LossConfig, generated_l2, label_weights, weighted_by};
use crate::noise::{Noise, Purpose};
use crate::optimizer::{NamedGradients, named_gradients};
use crate::{Share, StepSeed, TrainError};

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
    sft_step_share(decoder, hypernet, batch, task_embeddings, contrasts, loss, seed, Share::WHOLE)
}

/// As [`sft_step`], for one process's share of the rows: losses and gradients are shares too, and add up to those of the
/// whole batch. Adapters are generated for all rows in every process, so that dropout in the hypernetwork is the same.
#[allow(clippy::too_many_arguments, reason = "sft_step's, and the share")]
pub(super) fn sft_step_share(
    decoder: &Decoder,
    hypernet: &Hypernet,
    batch: &TrainBatch,
    task_embeddings: Tensor<2>,
    contrasts: &[Contrast],
    loss: &LossConfig,
    seed: Option<StepSeed>,
    share: Share,
) -> Result<StepOutput, TrainError> {
    let tracked = hypernet.parameters.tracked();
    let dropout = seed.map(|s| DropoutSeed(Noise::of(s, Purpose::Hypernet).seed()));
    let rows = task_embeddings.dims()[0];
    let generated = hypernet.forward(&tracked, Tensor::from_inner(task_embeddings), dropout)?;
    let ours = share.rows(batch.rows);
    let adapters = if ours.len() == rows && contrasts.is_empty() {
        AdapterBatch::from_factors(&generated.factors)
    } else {
        let wearers = (0..rows).chain(contrasts.iter().map(|c| c.other)).map(Some);
        let ours = wearers.skip(ours.start).take(ours.len());
        AdapterBatch::select_factors(&generated.factors, &ours.collect::<Vec<_>>())?
    };
    let l2_weight = loss.l2_generated * ours.len() as f64 / batch.rows as f64;
    let l2 = generated_l2(&generated.factors).filter(|_| l2_weight > 0.0).map(|l2| l2 * l2_weight);
    let value = |x: &Tensor<1>| f64::from(x.clone().inner().into_scalar::<f32>());
    let l2_loss = l2.as_ref().map_or(0.0, value);
    let (mut sft_loss, mut margin_loss_value) = (0.0, 0.0);
    let first_row = ours.start;
    let (batch, weights) = share_of(batch, ours, label_weights(batch, rows, loss.weighting));
    let pass = TrainingPass { decoder, batch: &batch, loss, seed, first_row };
    let mut gradients = pass.gradients(adapters, l2, |losses| {
        let sft = weighted_by(losses.clone(), weights);
        sft_loss = value(&sft);
        if contrasts.is_empty() {
            return sft;
        }
        let margin = margin_loss(losses, &batch, rows, contrasts, loss.margin) * loss.margin_weight;
        margin_loss_value = value(&margin);
        sft + margin
    })?;
    let gradients = named_gradients(&tracked, &mut gradients);
    let code_use = generated.code_use;
    Ok(StepOutput { sft_loss, l2_loss, margin_loss: margin_loss_value, code_use, gradients })
}

/// A share of a batch, as wide as the whole, and what its labels count in the whole.
fn share_of<'a>(batch: &'a TrainBatch, rows: Range<usize>, weights: Vec<f32>) -> (Cow<'a, TrainBatch>, Vec<f32>) {
    if rows.len() == batch.rows {
        return (Cow::Borrowed(batch), weights);
    }
    let weights = weights.into_iter().zip(&batch.label_rows).filter(|(_, row)| rows.contains(row)).map(|(w, _)| w);
    (Cow::Owned(batch.select(rows.clone())), weights.collect())
}
