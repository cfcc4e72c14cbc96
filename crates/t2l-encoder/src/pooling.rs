//! From one vector per token to one vector per text.

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use crate::TokenBatch;

/// How a text's vector is made from those of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The largest of each coordinate.
    Max,
    /// The mean.
    Mean,
    /// The sum over the square root of the number of tokens.
    #[serde(rename = "mean_sqrt_len_tokens", alias = "meansqrtlen")]
    MeanSqrtLen,
    /// The mean, the i-th token weighing i (from 1).
    WeightedMean,
    /// The last real token's.
    LastToken,
}

impl Pooling {
    /// Pools `states` (`[rows, length, width]`) to `[rows, width]`. Padding counts for nothing.
    pub fn pool(self, states: Tensor<3>, tokens: &TokenBatch) -> Tensor<2> {
        let device = states.device();
        let [rows, length, _] = states.dims();
        if self == Self::Max {
            let real = floats(tokens, |row| row.iter().map(|&r| f32::from(u8::from(r))).collect(), &device);
            let real = real.reshape([rows, length, 1]);
            let outside = real.clone().sub_scalar(1.0).mul_scalar(1e9);
            return (states * real + outside).max_dim(1).squeeze_dim(1);
        }
        // Everything else is a weighted sum over the tokens.
        let weights = floats(tokens, |row| self.weights(row), &device).reshape([rows, 1, length]);
        weights.matmul(states).squeeze_dim(1)
    }

    fn weights(self, real: &[bool]) -> Vec<f32> {
        let count = real.iter().filter(|&&r| r).count().max(1) as f32;
        let spread = |f: &dyn Fn(usize) -> f32| {
            real.iter().enumerate().map(|(i, &r)| if r { f(i) } else { 0.0 }).collect::<Vec<f32>>()
        };
        match self {
            Self::Cls => real.iter().enumerate().map(|(i, _)| if i == 0 { 1.0 } else { 0.0 }).collect(),
            Self::Max | Self::Mean => spread(&|_| 1.0 / count),
            Self::MeanSqrtLen => spread(&|_| 1.0 / count.sqrt()),
            Self::WeightedMean => {
                let total: f32 = spread(&|i| (i + 1) as f32).iter().sum();
                spread(&|i| (i + 1) as f32 / total)
            }
            Self::LastToken => {
                let last = real.iter().rposition(|&r| r).unwrap_or(0);
                spread(&|i| if i == last { 1.0 } else { 0.0 })
            }
        }
    }
}

fn floats(tokens: &TokenBatch, f: impl Fn(&[bool]) -> Vec<f32>, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = tokens.real().flat_map(f).collect();
    Tensor::from_data(TensorData::new(values, [tokens.rows(), tokens.length()]), device)
}

/// Divides every row of `x` (`[rows, width]`) by its Euclidean length.
pub fn normalise(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn each_kind_on_a_small_case() {
        let device = Device::flex();
        let tokens = TokenBatch::padded(&[&[1, 2, 3], &[4]], 0).unwrap();
        let states = Tensor::<3>::from_data(
            [[[1.0, -8.0], [2.0, 4.0], [6.0, 1.0]], [[-3.0, 5.0], [99.0, 99.0], [99.0, 99.0]]],
            &device,
        );
        for (pooling, expected) in [
            (Pooling::Cls, [1.0, -8.0]),
            (Pooling::Max, [6.0, 4.0]),
            (Pooling::Mean, [3.0, -1.0]),
            (Pooling::MeanSqrtLen, [9.0 / 3f32.sqrt(), -3.0 / 3f32.sqrt()]),
            (Pooling::WeightedMean, [23.0 / 6.0, 3.0 / 6.0]),
            (Pooling::LastToken, [6.0, 1.0]),
        ] {
            let pooled = pooling.pool(states.clone(), &tokens).into_data().try_into_vec::<f32>().unwrap();
            for (found, expected) in pooled.iter().zip(expected.into_iter().chain([-3.0, 5.0])) {
                assert!((found - expected).abs() < 1e-5, "{pooling:?}: {pooled:?}");
            }
        }
    }
}
