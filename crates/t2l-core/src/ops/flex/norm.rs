//! RMS norm and layer norm in one pass over the rows, forward and backward.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::math::{sum2, vectorised};
use super::{constant, finish, operand, tensor, values};

/// See [`crate::ops::rms_norm`].
pub fn rms_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, eps: f64) -> Option<Tensor<D>> {
    let mut x_operand = operand(x)?;
    let weight = constant(weight)?;
    let input = x_operand.values.to_contiguous();
    x_operand.values = input.clone();
    let (shape, width) = (x.dims(), x.dims()[D - 1]);
    let mut out = vec![0.0f32; values(&input).len()];
    out.par_chunks_mut(width).zip(values(&input).par_chunks(width)).with_min_len(32).for_each(|(out, x)| {
        vectorised(|| {
            let inverse = inverse_rms(x, eps);
            for ((o, &x), &w) in out.iter_mut().zip(x).zip(values(&weight)) {
                *o = x * inverse * w;
            }
        });
    });
    let output = tensor(out, &shape);
    Some(finish([x_operand], output, move |grad, [wanted]| {
        let dx = wanted.then(|| {
            let mut dx = vec![0.0f32; values(&input).len()];
            let rows =
                dx.par_chunks_mut(width).zip(values(&input).par_chunks(width)).zip(values(&grad).par_chunks(width));
            rows.with_min_len(32).for_each(|((dx, x), g)| {
                vectorised(|| {
                    let inverse = inverse_rms(x, eps);
                    for ((d, &g), &w) in dx.iter_mut().zip(g).zip(values(&weight)) {
                        *d = g * w;
                    }
                    let along = sum2(dx, x, |d, x| d * x) * inverse * inverse / width as f32;
                    for (d, &x) in dx.iter_mut().zip(x) {
                        *d = inverse * (*d - x * along);
                    }
                });
            });
            tensor(dx, &shape)
        });
        [dx]
    }))
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    1.0 / (sum2(x, x, |a, b| a * b) / x.len() as f32 + eps as f32).sqrt()
}

/// See [`crate::ops::layer_norm`].
pub fn layer_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Option<Tensor<D>> {
    let mut operands = [operand(x)?, operand(weight)?, operand(bias)?];
    for o in &mut operands {
        o.values = o.values.to_contiguous();
    }
    let [input, weight, bias] = operands.each_ref().map(|o| o.values.clone());
    let (shape, width) = (x.dims(), x.dims()[D - 1]);
    let mut out = vec![0.0f32; values(&input).len()];
    out.par_chunks_mut(width).zip(values(&input).par_chunks(width)).with_min_len(32).for_each(|(out, x)| {
        vectorised(|| {
            let (mean, inverse) = moments(x, eps);
            for (((o, &x), &w), &b) in out.iter_mut().zip(x).zip(values(&weight)).zip(values(&bias)) {
                *o = (x - mean) * inverse * w + b;
            }
        });
    });
    let output = tensor(out, &shape);
    Some(finish(operands, output, move |grad, [want_x, want_weight, want_bias]| {
        let rows = || values(&input).chunks_exact(width).zip(values(&grad).chunks_exact(width));
        let dx = want_x.then(|| {
            let mut dx = vec![0.0f32; values(&input).len()];
            let rows =
                dx.par_chunks_mut(width).zip(values(&input).par_chunks(width)).zip(values(&grad).par_chunks(width));
            rows.with_min_len(32).for_each(|((dx, x), g)| {
                vectorised(|| {
                    let (mean, inverse) = moments(x, eps);
                    for ((d, &g), &w) in dx.iter_mut().zip(g).zip(values(&weight)) {
                        *d = g * w;
                    }
                    let level = sum2(dx, x, |d, _| d) / width as f32;
                    let along = sum2(dx, x, |d, x| d * (x - mean)) * inverse * inverse / width as f32;
                    for (d, &x) in dx.iter_mut().zip(x) {
                        *d = inverse * (*d - level - (x - mean) * along);
                    }
                });
            });
            tensor(dx, &shape)
        });
        let d_weight = want_weight.then(|| {
            let mut sum = vec![0.0f32; width];
            for (x, g) in rows() {
                let (mean, inverse) = moments(x, eps);
                sum.iter_mut().zip(x).zip(g).for_each(|((s, &x), &g)| *s += g * (x - mean) * inverse);
            }
            tensor(sum, &[width])
        });
        let d_bias = want_bias.then(|| {
            let mut sum = vec![0.0f32; width];
            for (_, g) in rows() {
                sum.iter_mut().zip(g).for_each(|(s, &g)| *s += g);
            }
            tensor(sum, &[width])
        });
        [dx, d_weight, d_bias]
    }))
}

/// Mean, and one over the standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f64) -> (f32, f32) {
    let mean = sum2(x, x, |a, _| a) / x.len() as f32;
    let variance = sum2(x, x, |a, _| (a - mean) * (a - mean)) / x.len() as f32;
    (mean, 1.0 / (variance + eps as f32).sqrt())
}
