//! Causal attention, one (row, key/value head) per task; the weights are kept for the backward pass.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::math::{exp, sum2, vectorised};
use super::matrix::{Matrix, multiply_into};
use super::rope::turn_token;
use super::{Operand, constant, finish, operand, tensor, values};
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
    let operands = [token_major(operand(q)?), token_major(operand(k)?), token_major(operand(v)?)];
    let [q, k, v] = operands.each_ref().map(|o| o.values.clone());
    let core = Core::new(q, k, v, mask, scale);
    let Shape { batch, queries, keys, heads, kv_heads, head_dim } = core.shape;
    let output = core.output.clone();
    Some(finish(operands, output, move |grad, _| {
        let [dq, dk, dv] = core.gradients(&grad);
        [
            Some(heads_last(&dq, batch, heads, queries, head_dim)),
            Some(heads_last(&dk, batch, kv_heads, keys, head_dim)),
            Some(heads_last(&dv, batch, kv_heads, keys, head_dim)),
        ]
    }))
}

/// See [`crate::ops::rope_attention`].
pub fn rope_attention(
    qkv: &Tensor<3>,
    cos: &Tensor<3>,
    sin: &Tensor<3>,
    [heads, kv_heads]: [usize; 2],
    mask: &AttentionMask,
    scale: f64,
) -> Option<Tensor<3>> {
    let mut qkv_operand = operand(qkv)?;
    let (cos, sin) = (constant(cos)?, constant(sin)?);
    let [batch, tokens, width] = qkv.dims();
    let head_dim = width / (heads + 2 * kv_heads);
    let input = qkv_operand.values.to_contiguous();
    let part = |first_head: usize, heads: usize, turn: bool| {
        let mut out = vec![0.0f32; batch * tokens * heads * head_dim];
        let rows = out.par_chunks_mut(heads * head_dim).zip(values(&input).par_chunks(width));
        rows.enumerate().with_min_len(32).for_each(|(i, (out, x))| {
            out.copy_from_slice(&x[first_head * head_dim..][..heads * head_dim]);
            if turn {
                let half = head_dim / 2;
                vectorised(|| {
                    turn_token(out, &values(&cos)[i * half..][..half], &values(&sin)[i * half..][..half], 1.0);
                });
            }
        });
        tensor(out, &[batch, tokens, heads, head_dim])
    };
    let (q, k, v) = (part(0, heads, true), part(heads, kv_heads, true), part(heads + kv_heads, kv_heads, false));
    qkv_operand.values = input.clone();
    let core = Core::new(q, k, v, mask, scale);
    let output = core.output.reshape(burn::tensor::Shape::from(vec![batch, tokens, heads * head_dim]));
    Some(finish([qkv_operand], output, move |grad, [wanted]| {
        let gradient = || {
            let grad = grad.reshape(burn::tensor::Shape::from(vec![batch, tokens, heads, head_dim]));
            let [dq, dk, dv] = core.gradients(&grad);
            let mut out = vec![0.0f32; batch * tokens * width];
            out.par_chunks_mut(width).with_min_len(32).enumerate().for_each(|(i, out)| {
                let half = head_dim / 2;
                let (row, token) = (i / tokens, i % tokens);
                let (turned, plain) = out.split_at_mut((heads + kv_heads) * head_dim);
                let (q_part, k_part) = turned.split_at_mut(heads * head_dim);
                for (part, heads, from) in [(q_part, heads, &dq), (k_part, kv_heads, &dk), (plain, kv_heads, &dv)] {
                    for (head, out) in part.chunks_exact_mut(head_dim).enumerate() {
                        out.copy_from_slice(&from[((row * heads + head) * tokens + token) * head_dim..][..head_dim]);
                    }
                }
                vectorised(|| {
                    turn_token(turned, &values(&cos)[i * half..][..half], &values(&sin)[i * half..][..half], -1.0);
                });
            });
            tensor(out, &[batch, tokens, width])
        };
        [wanted.then(gradient)]
    }))
}

/// The forward pass and what its gradient needs.
struct Core {
    shape: Shape,
    scale: f32,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    /// Softmaxed scores: `[batch, heads, queries, keys]`.
    weights: Vec<f32>,
    /// `[batch, queries, heads, head_dim]`.
    output: FlexTensor,
}

impl Core {
    fn new(q: FlexTensor, k: FlexTensor, v: FlexTensor, mask: &AttentionMask, scale: f64) -> Self {
        let [batch, queries, heads, head_dim] = [0, 1, 2, 3].map(|i| q.layout().shape()[i]);
        let [keys, kv_heads] = [1, 2].map(|i| k.layout().shape()[i]);
        let shape = Shape { batch, queries, keys, heads, kv_heads, head_dim };
        let (scale, group) = (scale as f32, heads / kv_heads);
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
        Self { shape, scale, q, k, v, weights, output }
    }

    /// Gradients of q, k and v, heads first: `[batch, heads, tokens, head_dim]`.
    fn gradients(&self, grad: &FlexTensor) -> [Vec<f32>; 3] {
        let Shape { batch, queries, keys, heads, kv_heads, head_dim } = self.shape;
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
            let (k, v) = (head_of(&self.k, row, kv_head), head_of(&self.v, row, kv_head));
            let mut d_scores = vec![0.0f32; queries * keys];
            for (member, dq) in dq.chunks_exact_mut(queries * head_dim).enumerate() {
                let head = kv_head * group + member;
                let weights = &self.weights[(row * heads + head) * queries * keys..][..queries * keys];
                let (q, g) = (head_of(&self.q, row, head), head_of(grad, row, head));
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
                multiply_into(dq, head_dim, 0.0, d_scores, k, self.scale, false);
                multiply_into(dk, head_dim, 1.0, d_scores.t(), q, self.scale, false);
            }
        });
        [dq, dk, dv]
    }
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
