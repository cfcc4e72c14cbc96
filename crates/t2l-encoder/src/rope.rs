//! Rotary position embedding, half-split, with the NTK scaling of GTE v1.5.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::Ntk;

/// Cosines and sines of one length.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[1, 1, length, head_dim]`.
    cos: Tensor<4>,
    /// `[1, 1, length, head_dim]`.
    sin: Tensor<4>,
}

impl Rope {
    /// Tables for positions `0..length`. `head_dim` is even.
    pub fn new(head_dim: usize, theta: f64, ntk: Option<Ntk>, length: usize, device: &Device) -> Self {
        let half = head_dim / 2;
        let frequencies = frequencies(head_dim, theta, ntk);
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for position in 0..length {
            for i in 0..head_dim {
                let frequency = frequencies.get(i % half.max(1)).copied().unwrap_or(0.0);
                // The product in f32, as the tables of the published models are made.
                let angle = position as f32 * frequency;
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        let table = |values| Tensor::from_data(TensorData::new(values, [1, 1, length, head_dim]), device);
        Self { cos: table(cos), sin: table(sin) }
    }

    /// Cosines and sines, each `[length, head_dim]`.
    pub fn tables(&self) -> (Tensor<2>, Tensor<2>) {
        let flat = |t: &Tensor<4>| {
            let [_, _, length, width] = t.dims();
            t.clone().reshape([length, width])
        };
        (flat(&self.cos), flat(&self.sin))
    }

    /// Rotates queries or keys, `[rows, heads, length, head_dim]`.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let turned = Tensor::cat(vec![second.neg(), first], 3);
        x * self.cos.clone() + turned * self.sin.clone()
    }
}

fn frequencies(head_dim: usize, theta: f64, ntk: Option<Ntk>) -> Vec<f32> {
    let dim = head_dim as f64;
    let factor = ntk.map_or(1.0, |n| n.factor);
    let mixed_b = ntk.and_then(|n| n.mixed_b);
    let base = if mixed_b.is_some() { theta } else { theta * factor };
    (0..head_dim / 2)
        .map(|i| {
            let frequency = 1.0 / base.powf(2.0 * i as f64 / dim);
            let divisor = match mixed_b {
                None => factor.powf(2.0 / dim),
                Some(b) => (factor.ln() / (dim / 2.0).powf(b) * ((i + 1) as f64).powf(b)).exp(),
            };
            (frequency / divisor) as f32
        })
        .collect()
}
