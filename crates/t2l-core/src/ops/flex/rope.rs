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
        vectorised(|| {
            for (out, x) in out.chunks_exact_mut(head_dim).zip(x.chunks_exact(head_dim)) {
                let ((low, high), (a, b)) = (out.split_at_mut(half), x.split_at(half));
                for i in 0..half {
                    let s = sin[i] * direction;
                    low[i] = a[i] * cos[i] - b[i] * s;
                    high[i] = b[i] * cos[i] + a[i] * s;
                }
            }
        });
    });
    tensor(out, &dims)
}
