//! RMS norm in one pass over the rows, forward and backward.

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
