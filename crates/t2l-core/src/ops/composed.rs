//! The operations spelled out in Burn's own: what every backend can run, and what the kernels are tested against.

use burn::tensor::{Bool, Int, Tensor, TensorData, activation};

use super::{AdamW, AttentionMask};
use crate::{InputDropout, RowFactors};

pub(super) fn linear(x: Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    let [batch, tokens, width] = x.dims();
    let out = weight.dims()[0];
    let weight = weight.clone().cast(x.dtype());
    x.reshape([batch * tokens, width]).matmul(weight.transpose()).reshape([batch, tokens, out])
}

pub(super) fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    let scale = x.clone().square().mean_dim(D - 1).add_scalar(eps).sqrt();
    x.div(scale).mul(weight.clone().unsqueeze())
}

pub(super) fn layer_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let deviation = centred.clone().square().mean_dim(D - 1).add_scalar(eps).sqrt();
    centred / deviation * weight.clone().unsqueeze() + bias.clone().unsqueeze()
}

pub(super) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

pub(super) fn rope(x: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (cos, sin) = (cos.clone().unsqueeze_dim::<4>(2), sin.clone().unsqueeze_dim::<4>(2));
    let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    Tensor::cat(
        vec![first.clone().mul(cos.clone()).sub(second.clone().mul(sin.clone())), second.mul(cos).add(first.mul(sin))],
        3,
    )
}

pub(super) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
    scale: f64,
    softcap: Option<f64>,
) -> Tensor<4> {
    let [batch, queries, heads, head_dim] = q.dims();
    let [_, keys, kv_heads, _] = k.dims();
    let group = heads / kv_heads;
    let device = q.device().inner();
    let spread = |x: Tensor<4>| -> Tensor<4> {
        x.swap_dims(1, 2).unsqueeze_dim::<5>(2).repeat_dim(2, group).reshape([batch, heads, keys, head_dim])
    };
    let (k, v) = (spread(k), spread(v));
    let mut scores = q.swap_dims(1, 2).mul_scalar(scale).matmul(k.transpose());
    if let Some(cap) = softcap {
        scores = scores.div_scalar(cap).tanh().mul_scalar(cap);
    }
    let (hidden, blind) = hidden_keys(mask, batch, queries, keys);
    let shape = [batch, 1, queries, keys];
    let hidden: Tensor<4, Bool> = Tensor::from_data(TensorData::new(hidden, shape), &device);
    let mut weights = activation::softmax(scores.mask_fill(hidden.expand([batch, heads, queries, keys]), -1e30), 3);
    if blind.contains(&true) {
        let blind: Tensor<4, Bool> = Tensor::from_data(TensorData::new(blind, [batch, 1, queries, 1]), &device);
        weights = weights.mask_fill(blind.expand([batch, heads, queries, keys]), 0.0);
    }
    weights.matmul(v).swap_dims(1, 2)
}

pub(super) fn rope_attention(
    qkv: Tensor<3>,
    cos: &Tensor<3>,
    sin: &Tensor<3>,
    [heads, kv_heads]: [usize; 2],
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    let head_dim = width / (heads + 2 * kv_heads);
    let part = |first: usize, heads: usize| {
        qkv.clone().narrow(2, first * head_dim, heads * head_dim).reshape([batch, tokens, heads, head_dim])
    };
    let q = super::rope(part(0, heads), cos, sin);
    let k = super::rope(part(heads, kv_heads), cos, sin);
    super::attention(q, k, part(heads + kv_heads, kv_heads), mask, scale, None).reshape([
        batch,
        tokens,
        heads * head_dim,
    ])
}

/// For each (row, query, key) whether the key is hidden, and for each (row, query) whether it sees nothing at all.
fn hidden_keys(mask: &AttentionMask, batch: usize, queries: usize, keys: usize) -> (Vec<bool>, Vec<bool>) {
    let mut hidden = Vec::with_capacity(batch * queries * keys);
    let mut blind = Vec::with_capacity(batch * queries);
    for row in 0..batch {
        for query in 0..queries {
            let seen = mask.seen(row, query + keys - queries);
            blind.push(seen.is_empty());
            hidden.extend((0..keys).map(|key| !seen.contains(&key)));
        }
    }
    (hidden, blind)
}

pub(super) fn silu_gate(gate_up: Tensor<3>) -> Tensor<3> {
    let width = gate_up.dims()[2] / 2;
    activation::silu(gate_up.clone().narrow(2, 0, width)).mul(gate_up.narrow(2, width, width))
}

pub(super) fn low_rank(
    y: Tensor<3>,
    first: usize,
    x: Tensor<3>,
    factors: &RowFactors,
    dropout: Option<InputDropout>,
    place: u64,
) -> Tensor<3> {
    let x = match dropout {
        Some(dropout) => x.clone().mul(dropout_mask(&x, dropout, place)),
        None => x,
    };
    let low = x.matmul(factors.a.clone().transpose()).mul(factors.scaling.clone());
    let update = low.matmul(factors.b.clone().transpose());
    let ([rows, tokens, width], out) = (y.dims(), update.dims()[2]);
    if out == width {
        return y.add(update);
    }
    let columns = [0..rows, 0..tokens, first..first + out];
    let updated = y.clone().slice(columns.clone()).add(update);
    y.slice_assign(columns, updated)
}

/// 0 where an input is dropped, `1 / (1 - p)` elsewhere. Shape of `x`: `[rows, tokens, in]`.
fn dropout_mask(x: &Tensor<3>, dropout: InputDropout, place: u64) -> Tensor<3> {
    let shape = x.dims();
    let keep = (1.0 / (1.0 - dropout.p)) as f32;
    let first = (dropout.first_row * shape[1] * shape[2]) as u64;
    let values: Vec<f32> = (first..first + shape.iter().product::<usize>() as u64)
        .map(|i| if dropout.drops(place, i) { 0.0 } else { keep })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &x.device().inner())
}

pub(super) fn label_nll(
    hidden: Tensor<2>,
    lm_head: &Tensor<2>,
    labels: Tensor<1, Int>,
    smoothing: f64,
    softcap: Option<f64>,
) -> Tensor<1> {
    let lm_head = lm_head.clone().cast(hidden.dtype());
    let logits = hidden.matmul(lm_head.transpose());
    let logits = match softcap {
        Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
        None => logits,
    };
    logits_nll(logits, labels, smoothing)
}

pub(super) fn logits_nll(logits: Tensor<2>, labels: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let log_probs = activation::log_softmax(logits, 1);
    let picked: Tensor<1> = log_probs.clone().gather(1, labels.unsqueeze_dim(1)).squeeze_dim(1);
    let nll = picked.neg().mul_scalar(1.0 - smoothing);
    if smoothing == 0.0 {
        return nll;
    }
    let mean: Tensor<1> = log_probs.mean_dim(1).squeeze_dim(1);
    nll.sub(mean.mul_scalar(smoothing))
}

pub(super) fn adamw([p, m, v]: [&Tensor<1>; 3], grad: &Tensor<1>, step: &AdamW) -> [Tensor<1>; 3] {
    let rates = step.rates();
    let grad = grad.clone().mul_scalar(rates.clip);
    let m = m.clone().mul_scalar(rates.beta1).add(grad.clone().mul_scalar(1.0 - rates.beta1));
    let v = v.clone().mul_scalar(rates.beta2).add(grad.square().mul_scalar(1.0 - rates.beta2));
    let divisor = v.clone().sqrt().mul_scalar(rates.inverse_correction2).add_scalar(rates.epsilon);
    let p = p.clone().mul_scalar(rates.decay).sub(m.clone().mul_scalar(rates.step).div(divisor));
    [p, m, v]
}
