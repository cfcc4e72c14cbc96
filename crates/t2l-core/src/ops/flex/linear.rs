//! `x · Wᵀ` for few rows of `x`, as decoding has them. Its time is that of reading the weights: they are read once,
//! straight through, and nothing of them is packed or copied.

use burn::backend::Flex;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{operand, tensor, values};

/// Most rows that this is faster for than a general product.
pub(super) const FEW: usize = 32;

/// Weight rows that one thread takes at a time.
const BLOCK: usize = 64;

/// See [`crate::ops::linear`]. `None` for many rows, and where gradients may be wanted.
pub fn linear(x: &Tensor<3>, weight: &Tensor<2>) -> Option<Tensor<3>> {
    let [batch, tokens, input] = x.dims();
    let (rows, output) = (batch * tokens, weight.dims()[0]);
    if rows == 0 || rows > FEW || input == 0 || output == 0 || weight.dims()[1] != input {
        return None;
    }
    let (x, weight) = (operand(x)?, operand(weight)?);
    if x.tracked.is_some() || weight.tracked.is_some() || !weight.values.layout().is_contiguous() {
        return None;
    }
    let (x, weight) = (x.values.to_contiguous(), weight.values.to_contiguous());
    let out = few_rows(rows, [output, input], BLOCK, |first, out| {
        let weight = &values(&weight)[first * input..][..out.len() / rows * input];
        product(out, values(&x), weight, input);
    });
    Some(Tensor::from_primitive::<Flex>(tensor(out, &[batch, tokens, output])))
}

/// `[rows, output]` from what `block` makes of `block_rows` weight rows at a time: it gets the first one's number and
/// `[weight rows, rows]` to fill.
pub(super) fn few_rows(
    rows: usize,
    [output, input]: [usize; 2],
    block_rows: usize,
    block: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    // By weight row and then by row of `x`, so that every thread writes a piece of its own.
    let mut by_output = vec![0.0f32; output * rows];
    // Fewer weights are not worth a thread.
    let least = (1 << 16) / (block_rows * input) + 1;
    let blocks = by_output.par_chunks_mut(block_rows * rows).enumerate().with_min_len(least);
    blocks.for_each(|(i, out)| block(i * block_rows, out));
    match rows {
        1 => by_output,
        _ => (0..rows).flat_map(|row| by_output[row..].iter().step_by(rows).copied()).collect(),
    }
}

/// Some weight rows `[weight rows, in]` against all rows of `x` `[rows, in]`, into `[weight rows, rows]`.
pub(super) fn product(out: &mut [f32], x: &[f32], weight: &[f32], input: usize) {
    pulp::Arch::new().dispatch(Product { out, x, weight, input });
}

/// Some weight rows against all rows of `x`.
struct Product<'a> {
    /// `[weight rows, rows]`.
    out: &'a mut [f32],
    /// `[rows, input]`.
    x: &'a [f32],
    /// `[weight rows, input]`.
    weight: &'a [f32],
    input: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, x, weight, input } = self;
        let rows = x.len() / input;
        // Tiles of two by four keep enough sums apart to hide the latency of a fused multiply-add; a single row needs four
        // weight rows for that.
        match rows {
            1 => tiles::<S, 4>(simd, out, x, weight, input),
            _ => tiles::<S, 2>(simd, out, x, weight, input),
        }
    }
}

#[inline(always)]
fn tiles<S: Simd, const W: usize>(simd: S, out: &mut [f32], x: &[f32], weight: &[f32], input: usize) {
    let rows = x.len() / input;
    let whole = weight.chunks_exact(W * input);
    let rest = whole.remainder();
    let (outs, rest_out) = out.split_at_mut((weight.len() - rest.len()) / input * rows);
    for (out, weight) in outs.chunks_exact_mut(W * rows).zip(whole) {
        strip::<S, W>(simd, out, x, weight, input);
    }
    for (out, weight) in rest_out.chunks_exact_mut(rows).zip(rest.chunks_exact(input)) {
        strip::<S, 1>(simd, out, x, weight, input);
    }
}

/// `W` weight rows against all rows of `x`, four at a time.
#[inline(always)]
fn strip<S: Simd, const W: usize>(simd: S, out: &mut [f32], x: &[f32], weight: &[f32], input: usize) {
    let rows = x.len() / input;
    let mut row = 0;
    while row < rows {
        let x = &x[row * input..];
        let count = (rows - row).min(4);
        match count {
            1 => tile::<S, W, 1>(simd, &mut out[row..], rows, x, weight, input),
            2 => tile::<S, W, 2>(simd, &mut out[row..], rows, x, weight, input),
            3 => tile::<S, W, 3>(simd, &mut out[row..], rows, x, weight, input),
            _ => tile::<S, W, 4>(simd, &mut out[row..], rows, x, weight, input),
        }
        row += count;
    }
}

/// `out[w·rows + r] = weight[w] · x[r]`.
#[inline(always)]
fn tile<S: Simd, const W: usize, const X: usize>(
    simd: S,
    out: &mut [f32],
    rows: usize,
    x: &[f32],
    weight: &[f32],
    input: usize,
) {
    let lanes = std::mem::size_of::<S::f32s>() / std::mem::size_of::<f32>();
    let weight: [&[f32]; W] = std::array::from_fn(|w| &weight[w * input..][..input]);
    let x: [&[f32]; X] = std::array::from_fn(|r| &x[r * input..][..input]);
    let length = input / lanes;
    let whole_weight = weight.map(|w| &S::as_simd_f32s(w).0[..length]);
    let whole_x = x.map(|x| &S::as_simd_f32s(x).0[..length]);
    let mut sums = [[simd.splat_f32s(0.0); X]; W];
    for i in 0..length {
        for w in 0..W {
            for r in 0..X {
                sums[w][r] = simd.mul_add_f32s(whole_weight[w][i], whole_x[r][i], sums[w][r]);
            }
        }
    }
    for w in 0..W {
        for r in 0..X {
            let rest = length * lanes..input;
            let rest: f32 = weight[w][rest.clone()].iter().zip(&x[r][rest]).map(|(w, x)| w * x).sum();
            out[w * rows + r] = simd.reduce_sum_f32s(sums[w][r]) + rest;
        }
    }
}
