//! One AdamW step in one pass over a parameter.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::math::vectorised;
use super::{constant, tensor, values};
use crate::ops::AdamW;
use burn::backend::Flex;

/// See [`crate::ops::adamw`].
pub fn adamw(state: [&Tensor<1>; 3], grad: &Tensor<1>, step: &AdamW) -> Option<[Tensor<1>; 3]> {
    let [Some(mut p), Some(mut m), Some(mut v)] = state.map(|t| constant(t).map(|t| values(&t).to_vec())) else {
        return None;
    };
    let grad = constant(grad)?;
    let rates = step.rates();
    const CHUNK: usize = 1 << 14;
    let chunks = p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
    chunks.zip(values(&grad).par_chunks(CHUNK)).for_each(|(((p, m), v), g)| {
        vectorised(|| {
            for i in 0..p.len() {
                let g = g[i] * rates.clip;
                m[i] = rates.beta1 * m[i] + (1.0 - rates.beta1) * g;
                v[i] = rates.beta2 * v[i] + (1.0 - rates.beta2) * g * g;
                p[i] =
                    p[i] * rates.decay - rates.step * m[i] / (v[i].sqrt() * rates.inverse_correction2 + rates.epsilon);
            }
        });
    });
    Some([p, m, v].map(|x| {
        let count = x.len();
        Tensor::from_primitive::<Flex>(tensor(x, &[count]))
    }))
}
