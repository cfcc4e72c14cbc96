//! Rotation angles of every position, computed once a forward pass.

use std::f64::consts::PI;

use burn::tensor::{Device, Tensor, TensorData};

use super::{DecoderConfig, RopeScaling};

/// Cosines and sines for layers that see everything, and for those that slide where they differ.
pub(super) struct Rotations {
    global: (Tensor<3>, Tensor<3>),
    local: Option<(Tensor<3>, Tensor<3>)>,
}

impl Rotations {
    /// Tables for tokens `past..past + tokens`; positions count real tokens from 0.
    pub(super) fn new(config: &DecoderConfig, starts: &[usize], past: usize, tokens: usize, device: &Device) -> Self {
        let half = config.head_dim / 2;
        let table = |frequencies: Vec<f64>| {
            let mut cos = Vec::with_capacity(starts.len() * tokens * half);
            let mut sin = Vec::with_capacity(cos.capacity());
            for &start in starts {
                for token in past..past + tokens {
                    let position = token.saturating_sub(start) as f64;
                    for f in &frequencies {
                        // torch forms the angle in f32.
                        let angle = (position as f32) * (*f as f32);
                        cos.push(angle.cos());
                        sin.push(angle.sin());
                    }
                }
            }
            let shape = [starts.len(), tokens, half];
            let inner = device.clone().inner();
            let tensor = |values| Tensor::from_data(TensorData::new(values, shape), &inner);
            let (cos, sin): (Tensor<3>, Tensor<3>) = (tensor(cos), tensor(sin));
            if *device == inner { (cos, sin) } else { (Tensor::from_inner(cos), Tensor::from_inner(sin)) }
        };
        let global = table(frequencies(config.rope_theta, config.head_dim, &config.rope_scaling));
        let local = config.rope_local_theta.map(|theta| table(frequencies(theta, config.head_dim, &RopeScaling::None)));
        Self { global, local }
    }

    /// Cosines and sines of a layer: `[batch, tokens, head_dim / 2]`.
    pub(super) fn of(&self, slides: bool) -> &(Tensor<3>, Tensor<3>) {
        self.local.as_ref().filter(|_| slides).unwrap_or(&self.global)
    }
}

fn frequencies(theta: f64, head_dim: usize, scaling: &RopeScaling) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64));
    match scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, &d)| f / f64::from(d)).collect(),
        RopeScaling::Llama3 { factor, low, high, original } => plain
            .map(|f| {
                let wavelength = 2.0 * PI / f;
                if wavelength < original / high {
                    f
                } else if wavelength > original / low {
                    f / factor
                } else {
                    let share = (original / wavelength - low) / (high - low);
                    (1.0 - share) * f / factor + share * f
                }
            })
            .collect(),
    }
}
