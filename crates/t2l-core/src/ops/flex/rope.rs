//! Rotary position embedding without the concatenation.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::math::vectorised;
use super::{constant, finish, operand, tensor, values};

/// See [`crate::ops::rope`].
pub fn rope(x: &Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Option<Tensor<4>> {
    let mut x_operand = operand(x)?;
    let (cos, sin) = (constant(cos)?, constant(sin)?);
    let dims = x.dims();
    x_operand.values = x_operand.values.to_contiguous();
    let output = rotate(&x_operand.values, &cos, &sin, dims, 1.0);
    Some(finish([x_operand], output, move |grad, [wanted]| [wanted.then(|| rotate(&grad, &cos, &sin, dims, -1.0))]))
}

/// Rotates by the angle, or back by it with `direction` -1 (the gradient of a rotation).
fn rotate(x: &FlexTensor, cos: &FlexTensor, sin: &FlexTensor, dims: [usize; 4], direction: f32) -> FlexTensor {
    let [_, _, heads, head_dim] = dims;
    let half = head_dim / 2;
    let mut out = vec![0.0f32; values(x).len()];
    let tables = values(cos).par_chunks(half).zip(values(sin).par_chunks(half));
    let tokens = out.par_chunks_mut(heads * head_dim).zip(values(x).par_chunks(heads * head_dim)).zip(tables);
    tokens.with_min_len(32).for_each(|((out, x), (cos, sin))| {
        out.copy_from_slice(x);
        vectorised(|| turn_token(out, cos, sin, direction));
    });
    tensor(out, &dims)
}

/// Rotates all heads of one token in place. `cos` and `sin`: `[head_dim / 2]`.
#[inline(always)]
pub fn turn_token(heads: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (low, high) = head.split_at_mut(half);
        for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y, sin) = (*a, *b, sin * direction);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
    }
}
