//! `x · Wᵀ` for a weight held in bf16 or f16, activations in f32: a block of weight rows is widened at a time and
//! multiplied in f32, so that no whole weight ever exists twice. Widening is exact, so the result is that of the f32 weight.

use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::linear::{FEW, few_rows, product};
use super::math::vectorised;
use super::matrix::{Matrix, multiply_into};
use super::{finish, half_operand, operand, tensor, values};

/// Weight rows that are widened at a time for few rows of `x`: they stay in the nearest cache.
const BLOCK: usize = 16;

/// Weight values that are widened at a time for many rows of `x` (16 MiB in f32).
const PANEL_VALUES: usize = 1 << 22;

/// See [`crate::ops::linear`]. `None` for a weight in f32 or not on flex.
pub fn linear(x: &Tensor<3>, weight: &Tensor<2>) -> Option<Tensor<3>> {
    let [batch, tokens, input] = x.dims();
    let [output, width] = weight.dims();
    let weight = half_operand(weight)?;
    let mut x = operand(x)?;
    if width != input {
        return None;
    }
    x.values = x.values.to_contiguous();
    let rows = batch * tokens;
    let out = if rows == 0 || input == 0 || output == 0 {
        vec![0.0; rows * output]
    } else if rows <= FEW {
        few(values(&x.values), rows, &weight, input, output)
    } else {
        many(values(&x.values), rows, &weight, input, output)
    };
    Some(finish([x], tensor(out, &[batch, tokens, output]), move |grad, [wanted]| {
        [wanted.then(|| tensor(gradient(values(&grad), rows, &weight, input, output), &[batch, tokens, input]))]
    }))
}

fn few(x: &[f32], rows: usize, weight: &FlexTensor, input: usize, output: usize) -> Vec<f32> {
    few_rows(rows, [output, input], BLOCK, |first, out| {
        let count = out.len() / rows;
        let mut wide = vec![0.0f32; count * input];
        widen(weight, first * input, &mut wide);
        product(out, x, &wide, input);
    })
}

fn many(x: &[f32], rows: usize, weight: &FlexTensor, input: usize, output: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; rows * output];
    panels(weight, input, output, |first, count, wide| {
        let (x, wide) = (Matrix::new(x, rows, input), Matrix::new(wide, count, input));
        multiply_into(&mut out[first..], output, 0.0, x, wide.t(), 1.0, true);
    });
    out
}

/// `dx = dy · W`.
fn gradient(dy: &[f32], rows: usize, weight: &FlexTensor, input: usize, output: usize) -> Vec<f32> {
    let mut dx = vec![0.0f32; rows * input];
    if rows == 0 || input == 0 {
        return dx;
    }
    panels(weight, input, output, |first, count, wide| {
        let dy = Matrix::rows(&dy[first..], rows, count, output);
        multiply_into(&mut dx, input, 1.0, dy, Matrix::new(wide, count, input), 1.0, true);
    });
    dx
}

/// Goes through the weight rows, so many at a time: the first, how many, and their values in f32.
fn panels(weight: &FlexTensor, input: usize, output: usize, mut visit: impl FnMut(usize, usize, &[f32])) {
    let most = (PANEL_VALUES / input).clamp(1, output);
    let mut wide = vec![0.0f32; most * input];
    for first in (0..output).step_by(most) {
        let count = most.min(output - first);
        let wide = &mut wide[..count * input];
        let piece = (wide.len().div_ceil(4 * rayon::current_num_threads())).max(1);
        wide.par_chunks_mut(piece).enumerate().for_each(|(i, wide)| widen(weight, first * input + i * piece, wide));
        visit(first, count, wide);
    }
}

/// The values from `first` on, as many as `out` is long.
fn widen(weight: &FlexTensor, first: usize, out: &mut [f32]) {
    match weight.dtype() {
        DType::BF16 => {
            let halves = weight.as_slice::<bf16>().unwrap_or_else(|| unreachable!("of this type"));
            let halves = &halves[first..][..out.len()];
            vectorised(|| {
                for (out, half) in out.iter_mut().zip(halves) {
                    *out = f32::from_bits(u32::from(half.to_bits()) << 16);
                }
            });
        }
        _ => {
            let halves = weight.as_slice::<f16>().unwrap_or_else(|| unreachable!("of this type"));
            halves[first..][..out.len()].convert_to_f32_slice(out);
        }
    }
}
