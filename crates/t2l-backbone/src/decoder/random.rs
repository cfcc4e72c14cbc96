//! Decoders of random weights, for tests and benches that need no file.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Decoder, DecoderConfig};
use crate::BackboneError;
use crate::weights::{WeightType, Weights};

impl Decoder {
    /// A decoder of the given shape whose weights are drawn from a seed: uniform with variance `1 / fan-in`, norms near 1.
    ///
    /// # Errors
    /// A shape that no decoder can have.
    pub fn random(config: DecoderConfig, seed: u64, device: &Device) -> Result<Self, BackboneError> {
        let weights = Weights::Random(seed);
        Self::from_weights(config.checked(weights.path())?, &weights, WeightType::F32, device)
    }
}

/// Values of a named tensor: the same name, shape and seed give the same values.
pub(crate) fn random_values(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let stream = name.bytes().fold(seed, |hash, b| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    let mut rng = ChaCha8Rng::seed_from_u64(stream);
    let fan_in = shape.last().copied().unwrap_or(1) as f32;
    let bound = (3.0 / fan_in).sqrt();
    let count = shape.iter().product();
    match shape.len() {
        1 if name.contains("norm") => (0..count).map(|_| rng.random_range(0.8..1.2)).collect(),
        1 => (0..count).map(|_| rng.random_range(-0.1..0.1)).collect(),
        _ => (0..count).map(|_| rng.random_range(-bound..bound)).collect(),
    }
}
