//! Tensor operations that the decoder and the trainers share.
//!
//! Each is a plain function over [`Tensor`]; where a fused kernel exists for the device's backend it is used,
//! elsewhere the same maths is composed of Burn's operations.

mod composed;
#[cfg(feature = "flex")]
mod flex;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::tensor::{Device, Int, Tensor};

use crate::{InputDropout, RowFactors};

/// Which keys a query sees in [`attention`].
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMask {
    /// First real position of every row; positions before it are left padding, seen by nobody.
    pub starts: Vec<usize>,
    /// Sliding window: a query at `i` sees keys `j` with `i - window < j <= i`. `None` sees all of the past.
    pub window: Option<usize>,
}

impl AttentionMask {
    /// The keys that a query at absolute position `position` of `row` sees.
    pub fn seen(&self, row: usize, position: usize) -> std::ops::Range<usize> {
        let window = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        self.starts.get(row).copied().unwrap_or(0).max(window)..position + 1
    }
}

/// `x · Wᵀ` for a frozen or trained weight as checkpoints hold it.
///
/// `x`: `[batch, tokens, in]`, `weight`: `[out, in]`; gives `[batch, tokens, out]`. A weight held in bf16 or f16 is widened
/// as it is used: the product is that of the same values in f32.
pub fn linear(x: Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::linear::linear(&x, weight).or_else(|| flex::half_weight::linear(&x, weight)) {
        return out;
    }
    composed::linear(x, weight)
}

/// A frozen weight rounded to bf16 and packed for [`linear_bf16`].
#[derive(Debug, Clone)]
pub struct Bf16Weight {
    #[cfg(feature = "flex")]
    packed: flex::bf16::PackedWeight,
    #[cfg(not(feature = "flex"))]
    none: std::convert::Infallible,
}

impl Bf16Weight {
    /// Whether weights on a device can be packed.
    pub fn available(device: &Device) -> bool {
        Self::new(&Tensor::zeros([1, 1], device)).is_some()
    }

    /// Packs a weight `[out, in]` in f32. `None` where the device has no products of bf16 with sums in f32 that are faster than
    /// f32's: so far only flex has them, on AMD's processors with AVX512-BF16 and, under Linux, on Intel's with AMX.
    pub fn new(weight: &Tensor<2>) -> Option<Self> {
        #[cfg(feature = "flex")]
        return flex::bf16::PackedWeight::new(weight).map(|packed| Self { packed });
        #[cfg(not(feature = "flex"))]
        {
            let _ = weight;
            None
        }
    }
}

/// `x · Wᵀ` with both rounded to bf16 and sums in f32, and the same for the gradient: mixed-precision training through a
/// frozen weight.
///
/// `x`: `[batch, tokens, in]` on the device that the weight was packed on; gives `[batch, tokens, out]`.
///
/// # Panics
/// `x` of another width or device than the packed weight's.
pub fn linear_bf16(x: Tensor<3>, weight: &Bf16Weight) -> Tensor<3> {
    #[cfg(feature = "flex")]
    {
        let [out, input] = weight.packed.dims();
        let width = x.dims()[2];
        weight
            .packed
            .linear(&x)
            .unwrap_or_else(|| panic!("weight [{out}, {input}] packed for flex, x of width {width}"))
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = x;
        match weight.none {}
    }
}

/// Root-mean-square norm over the last dimension: `x / sqrt(mean(x²) + eps) · weight`.
///
/// `x`: `[.., width]`, `weight`: `[width]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::norm::rms_norm(&x, weight, eps) {
        return out;
    }
    composed::rms_norm(x, weight, eps)
}

/// Layer norm over the last dimension: `(x - mean) / sqrt(variance + eps) · weight + bias`.
///
/// `x`: `[.., width]`, `weight` and `bias`: `[width]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::norm::layer_norm(&x, weight, bias, eps) {
        return out;
    }
    composed::layer_norm(x, weight, bias, eps)
}

/// `x · sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::gate::silu(&x) {
        return out;
    }
    composed::silu(x)
}

/// Rotary position embedding, half-split: the first half of a head rotates with the second.
///
/// `x`: `[batch, tokens, heads, head_dim]`, `cos` and `sin`: `[batch, tokens, head_dim / 2]`.
pub fn rope(x: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::rope::rope(&x, cos, sin) {
        return out;
    }
    composed::rope(x, cos, sin)
}

/// Causal attention with grouped key/value heads.
///
/// `q`: `[batch, queries, heads, head_dim]`, `k` and `v`: `[batch, keys, kv_heads, head_dim]`; the last query is at
/// the last key. Gives `[batch, queries, heads, head_dim]`. Queries that see no key give zeros.
/// `softcap` squashes scores to `±softcap` before masking (Gemma 2).
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
    scale: f64,
    softcap: Option<f64>,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if softcap.is_none()
        && let Some(out) = flex::attention::attention(&q, &k, &v, mask, scale)
    {
        return out;
    }
    composed::attention(q, k, v, mask, scale, softcap)
}

/// [`rope`] and [`attention`] over one concatenated projection, for a forward pass without a cache.
///
/// `qkv`: `[batch, tokens, (heads + 2·kv_heads)·head_dim]`, queries first; gives `[batch, tokens, heads·head_dim]`.
/// `heads`: query heads and key/value heads.
pub fn rope_attention(
    qkv: Tensor<3>,
    cos: &Tensor<3>,
    sin: &Tensor<3>,
    heads: [usize; 2],
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::attention::rope_attention(&qkv, cos, sin, heads, mask, scale) {
        return out;
    }
    composed::rope_attention(qkv, cos, sin, heads, mask, scale)
}

/// Gated activation of a SwiGLU block: `silu(gate) · up`.
///
/// `gate_up`: `[batch, tokens, 2·width]`, the gate first; gives `[batch, tokens, width]`.
pub fn silu_gate(gate_up: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::gate::silu_gate(&gate_up) {
        return out;
    }
    composed::silu_gate(gate_up)
}

/// Adds every row's own low-rank update to some columns of `y`: `y[.., first..first + out] += s·(dropout(x)·Aᵀ)·Bᵀ`.
///
/// `y`: `[rows, tokens, at least first + out]` (one projection, or several concatenated), `x`: `[rows, tokens, in]`. `place` numbers the (layer, module) so that each draws its
/// own dropout mask.
pub fn low_rank(
    y: Tensor<3>,
    first: usize,
    x: Tensor<3>,
    factors: &RowFactors,
    dropout: Option<InputDropout>,
    place: u64,
) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::low_rank::low_rank(&y, first, &x, factors, dropout, place) {
        return out;
    }
    composed::low_rank(y, first, x, factors, dropout, place)
}

/// Cross-entropy of each position against a label, without ever keeping the logits.
///
/// `hidden`: `[n, width]` (after the final norm), `lm_head`: `[vocabulary, width]`, `labels`: `[n]`; gives `[n]`.
/// `smoothing` spreads that share of the target evenly over the vocabulary, as torch does. `softcap` bends the logits first,
/// `cap · tanh(x / cap)`.
pub fn label_nll(
    hidden: Tensor<2>,
    lm_head: &Tensor<2>,
    labels: Tensor<1, Int>,
    smoothing: f64,
    softcap: Option<f64>,
) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if let Some(out) = flex::nll::label_nll(&hidden, lm_head, &labels, smoothing, softcap) {
        return out;
    }
    composed::label_nll(hidden, lm_head, labels, smoothing, softcap)
}

/// Cross-entropy of logits against labels, for when the logits are wanted anyway.
///
/// `logits`: `[n, vocabulary]`, `labels`: `[n]`; gives `[n]`.
pub fn logits_nll(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    composed::logits_nll(logits, labels, 0.0)
}

/// Settings of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment (torch's place for it: after the bias correction).
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// What the gradient is multiplied by first: the global-norm clip.
    pub clip: f64,
}

struct AdamWRates {
    clip: f32,
    beta1: f32,
    beta2: f32,
    decay: f32,
    step: f32,
    inverse_correction2: f32,
    epsilon: f32,
}

impl AdamW {
    fn rates(&self) -> AdamWRates {
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        AdamWRates {
            clip: self.clip as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            decay: (1.0 - self.learning_rate * self.weight_decay) as f32,
            step: (self.learning_rate / correction(self.beta1)) as f32,
            inverse_correction2: (1.0 / correction(self.beta2).sqrt()) as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

/// One step of AdamW (Loshchilov & Hutter, as torch computes it) on plain tensors.
///
/// `[parameter, first moment, second moment]` and `grad`: all `[n]`; gives the new three.
pub fn adamw(state: [&Tensor<1>; 3], grad: &Tensor<1>, step: &AdamW) -> [Tensor<1>; 3] {
    #[cfg(feature = "flex")]
    if let Some(new) = flex::adamw::adamw(state, grad, step) {
        return new;
    }
    composed::adamw(state, grad, step)
}
