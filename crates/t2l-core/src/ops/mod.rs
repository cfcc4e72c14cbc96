//! Tensor operations that the decoder and the trainers share.
//!
//! Each is a plain function over [`Tensor`]; where a fused kernel exists for the device's backend it is used,
//! elsewhere the same maths is composed of Burn's operations.

mod composed;

use burn::tensor::{Int, Tensor};

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
    /// Every row starts at position 0 and sees all of its past.
    pub fn causal(rows: usize) -> Self {
        Self { starts: vec![0; rows], window: None }
    }

    /// The keys that a query at absolute position `position` of `row` sees.
    pub fn seen(&self, row: usize, position: usize) -> std::ops::Range<usize> {
        let window = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        self.starts.get(row).copied().unwrap_or(0).max(window)..position + 1
    }
}

/// `x · Wᵀ` for a frozen or trained weight as checkpoints hold it.
///
/// `x`: `[batch, tokens, in]`, `weight`: `[out, in]`; gives `[batch, tokens, out]`.
pub fn linear(x: Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    composed::linear(x, weight)
}

/// Root-mean-square norm over the last dimension: `x / sqrt(mean(x²) + eps) · weight`.
///
/// `x`: `[.., width]`, `weight`: `[width]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    composed::rms_norm(x, weight, eps)
}

/// Rotary position embedding, half-split: the first half of a head rotates with the second.
///
/// `x`: `[batch, tokens, heads, head_dim]`, `cos` and `sin`: `[batch, tokens, head_dim / 2]`.
pub fn rope(x: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
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
    composed::attention(q, k, v, mask, scale, softcap)
}

/// Gated activation of a SwiGLU block: `silu(gate) · up`.
///
/// `gate_up`: `[batch, tokens, 2·width]`, the gate first; gives `[batch, tokens, width]`.
pub fn silu_gate(gate_up: Tensor<3>) -> Tensor<3> {
    composed::silu_gate(gate_up)
}

/// Adds every row's own low-rank update: `y + s·(dropout(x)·Aᵀ)·Bᵀ`.
///
/// `y`: `[rows, tokens, out]`, `x`: `[rows, tokens, in]`. `place` numbers the (layer, module) so that each draws its
/// own dropout mask.
pub fn low_rank(
    y: Tensor<3>,
    x: Tensor<3>,
    factors: &RowFactors,
    dropout: Option<InputDropout>,
    place: u64,
) -> Tensor<3> {
    composed::low_rank(y, x, factors, dropout, place)
}

/// Cross-entropy of each position against a label, without ever keeping the logits.
///
/// `hidden`: `[n, width]` (after the final norm), `lm_head`: `[vocabulary, width]`, `labels`: `[n]`; gives `[n]`.
/// `smoothing` spreads that share of the target evenly over the vocabulary, as torch does.
pub fn label_nll(hidden: Tensor<2>, lm_head: &Tensor<2>, labels: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    composed::label_nll(hidden, lm_head, labels, smoothing)
}
