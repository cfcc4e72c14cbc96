//! SiLU, and SwiGLU's gated activation, each in one pass.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::math::{exp, vectorised};
use super::{finish, operand, tensor, values};

/// See [`crate::ops::silu_gate`].
pub fn silu_gate(gate_up: &Tensor<3>) -> Option<Tensor<3>> {
    let mut x_operand = operand(gate_up)?;
    let [batch, tokens, double] = gate_up.dims();
    let width = double / 2;
    let input = x_operand.values.to_contiguous();
    x_operand.values = input.clone();
    let mut out = vec![0.0f32; batch * tokens * width];
    out.par_chunks_mut(width).zip(values(&input).par_chunks(double)).with_min_len(8).for_each(|(out, x)| {
        let (gate, up) = x.split_at(width);
        vectorised(|| {
            for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *o = g / (1.0 + exp(-g)) * u;
            }
        });
    });
    let output = tensor(out, &[batch, tokens, width]);
    Some(finish([x_operand], output, move |grad, [wanted]| {
        let dx = wanted.then(|| {
            let mut dx = vec![0.0f32; batch * tokens * double];
            let rows =
                dx.par_chunks_mut(double).zip(values(&input).par_chunks(double)).zip(values(&grad).par_chunks(width));
            rows.with_min_len(8).for_each(|((dx, x), grad)| {
                let ((d_gate, d_up), (gate, up)) = (dx.split_at_mut(width), x.split_at(width));
                vectorised(|| {
                    for i in 0..width {
                        let sigmoid = 1.0 / (1.0 + exp(-gate[i]));
                        let silu = gate[i] * sigmoid;
                        d_up[i] = grad[i] * silu;
                        d_gate[i] = grad[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
                    }
                });
            });
            tensor(dx, &[batch, tokens, double])
        });
        [dx]
    }))
}

/// Values that one thread takes at a time.
const BLOCK: usize = 1 << 12;

/// See [`crate::ops::silu`].
pub fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let mut x_operand = operand(x)?;
    let shape = x.dims();
    let input = x_operand.values.to_contiguous();
    x_operand.values = input.clone();
    let mut out = vec![0.0f32; values(&input).len()];
    out.par_chunks_mut(BLOCK).zip(values(&input).par_chunks(BLOCK)).for_each(|(out, x)| {
        vectorised(|| out.iter_mut().zip(x).for_each(|(o, &x)| *o = x / (1.0 + exp(-x))));
    });
    let output = tensor(out, &shape);
    Some(finish([x_operand], output, move |grad, [wanted]| {
        let dx = wanted.then(|| {
            let mut dx = vec![0.0f32; values(&input).len()];
            let blocks = values(&input).par_chunks(BLOCK).zip(values(&grad).par_chunks(BLOCK));
            dx.par_chunks_mut(BLOCK).zip(blocks).for_each(|(dx, (x, grad))| {
                vectorised(|| {
                    for ((d, &x), &g) in dx.iter_mut().zip(x).zip(grad) {
                        let sigmoid = 1.0 / (1.0 + exp(-x));
                        *d = g * sigmoid * (1.0 + x * (1.0 - sigmoid));
                    }
                });
            });
            tensor(dx, &shape)
        });
        [dx]
    }))
}
