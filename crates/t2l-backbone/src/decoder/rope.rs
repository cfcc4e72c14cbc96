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
    /// Tables for tokens `past..past + tokens`; positions count real tokens from 0. `length`: real tokens of the longest
    /// row, seen ones and rows that have left included.
    pub(super) fn new(
        config: &DecoderConfig,
        starts: &[usize],
        past: usize,
        tokens: usize,
        length: usize,
        device: &Device,
    ) -> Self {
        let half = config.rotary_dim / 2;
        let table = |Frequencies { values, amplitude }: Frequencies| {
            let mut cos = Vec::with_capacity(starts.len() * tokens * half);
            let mut sin = Vec::with_capacity(cos.capacity());
            for &start in starts {
                for token in past..past + tokens {
                    let position = token.saturating_sub(start) as f64;
                    for f in &values {
                        // torch forms the angle in f32.
                        let angle = (position as f32) * (*f as f32);
                        cos.push(angle.cos() * amplitude);
                        sin.push(angle.sin() * amplitude);
                    }
                }
            }
            let shape = [starts.len(), tokens, half];
            let inner = device.clone().inner();
            let tensor = |values| Tensor::from_data(TensorData::new(values, shape), &inner);
            let (cos, sin): (Tensor<3>, Tensor<3>) = (tensor(cos), tensor(sin));
            if *device == inner { (cos, sin) } else { (Tensor::from_inner(cos), Tensor::from_inner(sin)) }
        };
        let frequencies = |theta, scaling| Frequencies::new(theta, config.rotary_dim, scaling, length);
        let global = table(frequencies(config.rope_theta, &config.rope_scaling));
        let local = config.rope_local_theta.map(|theta| table(frequencies(theta, &RopeScaling::None)));
        Self { global, local }
    }

    /// Cosines and sines of a layer: `[batch, tokens, rotary_dim / 2]`.
    pub(super) fn of(&self, slides: bool) -> &(Tensor<3>, Tensor<3>) {
        self.local.as_ref().filter(|_| slides).unwrap_or(&self.global)
    }
}

/// What positions are multiplied by, and then their cosines and sines.
struct Frequencies {
    /// `[dim / 2]`.
    values: Vec<f64>,
    amplitude: f32,
}

impl Frequencies {
    /// `length`: as [`Rotations::new`] has it.
    fn new(theta: f64, dim: usize, scaling: &RopeScaling, length: usize) -> Self {
        let of_base = |theta: f64| (0..dim / 2).map(move |i| theta.powf(-2.0 * i as f64 / dim as f64));
        let plain = || of_base(theta);
        let values = match scaling {
            RopeScaling::None => plain().collect(),
            RopeScaling::Linear { factor } => plain().map(|f| f / factor).collect(),
            RopeScaling::Divisors(divisors) => plain().zip(divisors).map(|(f, &d)| f / f64::from(d)).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain()
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
            RopeScaling::Dynamic { factor, original } => {
                let growth = factor * (length as f64).max(*original) / original - (factor - 1.0);
                of_base(theta * growth.powf(dim as f64 / (dim as f64 - 2.0))).collect()
            }
            RopeScaling::Yarn { factor, ramp: (start, end), .. } => {
                // A ramp without length would divide by zero.
                let width = if start == end { 0.001 } else { end - start };
                let share = |i: usize| ((i as f64 - start) / width).clamp(0.0, 1.0);
                plain().enumerate().map(|(i, f)| f / factor * share(i) + f * (1.0 - share(i))).collect()
            }
            RopeScaling::LongRope { short, long, original, .. } => {
                let divisors = if length as f64 > *original { long } else { short };
                plain().zip(divisors).map(|(f, d)| f / d).collect()
            }
        };
        let amplitude = match scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                *attention_factor as f32
            }
            _ => 1.0,
        };
        Self { values, amplitude }
    }
}
