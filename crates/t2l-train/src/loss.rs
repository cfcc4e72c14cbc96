//! Cross-entropy at labelled positions of a frozen decoder that wears adapters.

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, LoraFactors};
use t2l_data::TrainBatch;

use crate::TrainError;
use crate::noise::Noise;

/// How label losses become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// Mean over a sample's labels, then over samples (published).
    #[default]
    Sample,
    /// Mean over all labels of the batch.
    Token,
}

/// Settings of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Share of each target spread over the vocabulary. Default 0.1 (published).
    pub label_smoothing: f64,
    /// `"sample"` or `"token"`. Default `"sample"` (published).
    pub weighting: Weighting,
    /// Weight of the L2 term on generated factors. Default 1e-3 (published).
    pub l2_generated: f64,
    /// Dropout on the adapters' inputs. Default 0.05 (published).
    pub lora_dropout: f64,
    /// NEFTune's alpha: uniform noise of `±alpha/√(tokens·hidden)` on input embeddings. Default 5 (published); 0 is off.
    pub neftune_alpha: f64,
    /// Standard deviation of noise on the task embeddings that the hypernetwork reads; their own values deviate by about
    /// 1. Default 0: none.
    pub description_noise: f64,
    /// Weight of the margin term: rows scored a second time under another task's adapter must be worse there by
    /// `margin`, `weight · mean(max(0, margin − (other − own)))`. Default 0: off.
    pub margin_weight: f64,
    /// By how many nats per label the other adapter should be worse. Default 1.
    pub margin: f64,
    /// Rows of each batch that are scored a second time. Default 4.
    pub margin_rows: usize,
    /// Whether the backward pass computes every layer of the base model a second time instead of keeping what the forward
    /// pass computed: less memory, more time. Default false.
    pub gradient_checkpointing: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            label_smoothing: 0.1,
            weighting: Weighting::Sample,
            l2_generated: 1e-3,
            lora_dropout: 0.05,
            neftune_alpha: 5.0,
            description_noise: 0.0,
            margin_weight: 0.0,
            margin: 1.0,
            margin_rows: 4,
            gradient_checkpointing: false,
        }
    }
}

impl LossConfig {
    /// The loss of validation: no smoothing, no regularisation, no noise.
    pub fn plain(weighting: Weighting) -> Self {
        Self {
            label_smoothing: 0.0,
            weighting,
            l2_generated: 0.0,
            lora_dropout: 0.0,
            neftune_alpha: 0.0,
            ..Self::default()
        }
    }
}

/// Negative log-likelihood of every label of a batch: `[labels]`, in the batch's label order.
///
/// `decoder` and `adapters` are both plain or both on the autodiff device. `noise` is NEFTune's, if any.
///
/// # Errors
/// Adapters that do not fit the decoder or the batch.
pub fn label_losses(
    decoder: &Decoder,
    batch: &TrainBatch,
    adapters: &AdapterBatch,
    smoothing: f64,
    neftune: Option<(f64, Noise)>,
) -> Result<Tensor<1>, TrainError> {
    let embeddings = noisy_embeddings(decoder, batch, neftune);
    let hidden = decoder.hidden(embeddings, &vec![0; batch.rows], None, adapters)?;
    Ok(losses_after(decoder, hidden, batch, smoothing))
}

/// What goes into the first layer, with NEFTune's noise if any: `[rows, width, hidden]`.
pub(crate) fn noisy_embeddings(decoder: &Decoder, batch: &TrainBatch, neftune: Option<(f64, Noise)>) -> Tensor<3> {
    let device = decoder.device();
    let (rows, width) = (batch.rows, batch.width);
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(batch.ids.clone(), [rows, width]), &device);
    let embeddings = decoder.embed(ids);
    let Some((alpha, mut noise)) = neftune else { return embeddings };
    let hidden = embeddings.dims()[2];
    let bound = alpha / ((width * hidden) as f64).sqrt();
    embeddings + Tensor::from_data(noise.uniform(bound, [rows, width, hidden]), &device)
}

/// Label losses of the stream after the final norm: `[rows, width, hidden]` in, `[labels]` out.
pub(crate) fn losses_after(decoder: &Decoder, hidden: Tensor<3>, batch: &TrainBatch, smoothing: f64) -> Tensor<1> {
    let labels = TensorData::new(batch.labels.clone(), [batch.labels.len()]);
    decoder.label_nll(before_labels(hidden, batch), Tensor::from_data(labels, &decoder.device()), smoothing)
}

/// The stream where it predicts labels: `[rows, width, hidden]` in, `[labels, hidden]` out.
pub(crate) fn before_labels(hidden: Tensor<3>, batch: &TrainBatch) -> Tensor<2> {
    let ([rows, width, size], device) = (hidden.dims(), hidden.device());
    let positions = TensorData::new(batch.label_positions.clone(), [batch.labels.len()]);
    hidden.reshape([rows * width, size]).select(0, Tensor::from_data(positions, &device))
}

/// What each label of a batch counts when only the first `rows` rows do.
pub(crate) fn label_weights(batch: &TrainBatch, rows: usize, weighting: Weighting) -> Vec<f32> {
    let labels: usize = batch.label_counts.iter().take(rows).sum();
    let weight = |&row: &usize| match weighting {
        _ if row >= rows => 0.0,
        Weighting::Token => 1.0 / labels as f32,
        Weighting::Sample => 1.0 / (rows * batch.label_counts[row]).max(1) as f32,
    };
    batch.label_rows.iter().map(weight).collect()
}

/// `Σ losses · weights`: `[1]`.
pub(crate) fn weighted_by(losses: Tensor<1>, weights: Vec<f32>) -> Tensor<1> {
    let (device, count) = (losses.device(), weights.len());
    losses.mul(Tensor::from_data(TensorData::new(weights, [count]), &device)).sum()
}

/// Mean label loss of every row: `[rows]`.
pub(crate) fn row_means(losses: Tensor<1>, batch: &TrainBatch) -> Tensor<1> {
    let (rows, labels) = (batch.rows, batch.labels.len());
    let mut weights = vec![0.0f32; rows * labels];
    for (label, &row) in batch.label_rows.iter().enumerate() {
        weights[row * labels + label] = 1.0 / batch.label_counts[row] as f32;
    }
    let device = losses.device();
    let weights: Tensor<2> = Tensor::from_data(TensorData::new(weights, [rows, labels]), &device);
    weights.matmul(losses.reshape([labels, 1])).reshape([rows])
}

/// `Σ_m mean(A²) + mean(B²)` over all layers and samples: `[1]`.
pub fn generated_l2(factors: &LoraFactors) -> Option<Tensor<1>> {
    let terms = factors.modules.iter().map(|m| m.a.clone().square().mean() + m.b.clone().square().mean());
    terms.reduce(|sum, term| sum + term)
}
