//! Causal attention, one (row, key/value head) per task; the weights are kept for the backward pass.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::math::{exp, sum2, vectorised};
use super::matrix::{Matrix, multiply_into};
use super::{Operand, finish, operand, tensor};
use crate::ops::AttentionMask;

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// See [`crate::ops::attention`].
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, mask: &AttentionMask, scale: f64) -> Option<Tensor<4>> {
    let [batch, queries, heads, head_dim] = q.dims();
    let [_, keys, kv_heads, _] = k.dims();
    let shape = Shape { batch, queries, keys, heads, kv_heads, head_dim };
    let operands = [token_major(operand(q)?), token_major(operand(k)?), token_major(operand(v)?)];
    let [q, k, v] = operands.each_ref().map(|o| o.values.clone());
    let scale = scale as f32;
    let group = heads / kv_heads;

    let mut weights = vec![0.0f32; batch * heads * queries * keys];
    let mut by_head = vec![0.0f32; batch * heads * queries * head_dim];
    let tasks = weights.par_chunks_mut(queries * keys).zip(by_head.par_chunks_mut(queries * head_dim));
    tasks.enumerate().for_each(|(task, (weights, out))| {
        let (row, head) = (task / heads, task % heads);
        let (q, k, v) = (head_of(&q, row, head), head_of(&k, row, head / group), head_of(&v, row, head / group));
        multiply_into(weights, keys, 0.0, q, k.t(), scale, false);
        for (query, weights) in weights.chunks_exact_mut(keys).enumerate() {
            vectorised(|| softmax_over(weights, mask.seen(row, query + keys - queries)));
        }
        multiply_into(out, head_dim, 0.0, Matrix::new(weights, queries, keys), v, 1.0, false);
    });
    let output = heads_last(&by_head, batch, heads, queries, head_dim);
    Some(finish(operands, output, move |grad, _| gradients(shape, scale, &weights, [&q, &k, &v], &grad).map(Some)))
}

fn gradients(
    shape: Shape,
    scale: f32,
    weights: &[f32],
    [q, k, v]: [&FlexTensor; 3],
    grad: &FlexTensor,
) -> [FlexTensor; 3] {
    let Shape { batch, queries, keys, heads, kv_heads, head_dim } = shape;
    let group = heads / kv_heads;
    let mut dq = vec![0.0f32; batch * heads * queries * head_dim];
    let mut dk = vec![0.0f32; batch * kv_heads * keys * head_dim];
    let mut dv = dk.clone();
    let tasks = dq
        .par_chunks_mut(group * queries * head_dim)
        .zip(dk.par_chunks_mut(keys * head_dim))
        .zip(dv.par_chunks_mut(keys * head_dim));
    tasks.enumerate().for_each(|(task, ((dq, dk), dv))| {
        let (row, kv_head) = (task / kv_heads, task % kv_heads);
        let (k, v) = (head_of(k, row, kv_head), head_of(v, row, kv_head));
        let mut d_scores = vec![0.0f32; queries * keys];
        for (member, dq) in dq.chunks_exact_mut(queries * head_dim).enumerate() {
            let head = kv_head * group + member;
            let weights = &weights[(row * heads + head) * queries * keys..][..queries * keys];
            let (q, g) = (head_of(q, row, head), head_of(grad, row, head));
            multiply_into(dv, head_dim, 1.0, Matrix::new(weights, queries, keys).t(), g, 1.0, false);
            multiply_into(&mut d_scores, keys, 0.0, g, v.t(), 1.0, false);
            for (d, w) in d_scores.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
                vectorised(|| {
                    let along = sum2(d, w, |d, w| d * w);
                    for (d, &w) in d.iter_mut().zip(w) {
                        *d = w * (*d - along);
                    }
                });
            }
            let d_scores = Matrix::new(&d_scores, queries, keys);
            multiply_into(dq, head_dim, 0.0, d_scores, k, scale, false);
            multiply_into(dk, head_dim, 1.0, d_scores.t(), q, scale, false);
        }
    });
    [
        heads_last(&dq, batch, heads, queries, head_dim),
        heads_last(&dk, batch, kv_heads, keys, head_dim),
        heads_last(&dv, batch, kv_heads, keys, head_dim),
    ]
}

/// Makes sure that each row's `[tokens, heads, head_dim]` is contiguous; rows themselves may be apart (a cache).
fn token_major(mut operand: Operand) -> Operand {
    let shape: Vec<usize> = operand.values.layout().shape().to_vec();
    let strides = operand.values.layout().strides();
    let inner = [(shape[2] * shape[3]) as isize, shape[3] as isize, 1];
    if strides[1..] != inner || strides[0] < 0 {
        operand.values = operand.values.to_contiguous();
    }
    operand
}

/// One head of one row: `[tokens, head_dim]`.
fn head_of(x: &FlexTensor, row: usize, head: usize) -> Matrix<'_> {
    let layout = x.layout();
    let [_, tokens, heads, head_dim] = [0, 1, 2, 3].map(|i| layout.shape()[i]);
    let start = layout.start_offset() + row * layout.strides()[0].unsigned_abs() + head * head_dim;
    Matrix::rows(&x.storage::<f32>()[start..], tokens, head_dim, heads * head_dim)
}

/// `[batch, heads, tokens, head_dim]` to `[batch, tokens, heads, head_dim]`.
fn heads_last(by_head: &[f32], batch: usize, heads: usize, tokens: usize, head_dim: usize) -> FlexTensor {
    let mut out = vec![0.0f32; by_head.len()];
    out.par_chunks_mut((heads * head_dim).max(1)).with_min_len(32).enumerate().for_each(|(i, out)| {
        let (row, token) = (i / tokens, i % tokens);
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&by_head[((row * heads + head) * tokens + token) * head_dim..][..head_dim]);
        }
    });
    tensor(out, &[batch, tokens, heads, head_dim])
}

/// Softmax over the seen part of a row of scores; zero elsewhere.
#[inline(always)]
fn softmax_over(row: &mut [f32], seen: std::ops::Range<usize>) {
    let (before, rest) = row.split_at_mut(seen.start.min(row.len()));
    let (scores, after) = rest.split_at_mut(seen.len());
    before.fill(0.0);
    after.fill(0.0);
    let mut peak = f32::NEG_INFINITY;
    for &x in scores.iter() {
        peak = if x > peak { x } else { peak };
    }
    for x in scores.iter_mut() {
        *x = exp(*x - peak);
    }
    let scale = 1.0 / sum2(scores, scores, |x, _| x);
    for x in scores.iter_mut() {
        *x *= scale;
    }
}
