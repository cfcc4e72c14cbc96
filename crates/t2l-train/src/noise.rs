//! Random numbers that a run can be resumed with: each step's streams follow from the seed and the step alone.

use burn::tensor::TensorData;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::StepSeed;

/// What a stream of random numbers is for; different purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// NEFTune's noise on input embeddings.
    Neftune = 1,
    /// Dropout inside the hypernetwork.
    Hypernet = 2,
    /// Dropout on the adapters' inputs.
    AdapterInput = 3,
    /// Rows that are scored under another task's adapter.
    Contrast = 4,
    /// Noise on task embeddings.
    Description = 5,
    /// The order of lessons in context distillation.
    Lessons = 6,
}

/// One step's stream for one purpose.
#[derive(Debug, Clone)]
pub struct Noise(ChaCha8Rng);

impl Noise {
    /// The stream of a purpose in a step (and in a micro-batch of it).
    pub fn new(seed: u64, step: u64, micro: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((step << 16) ^ (micro << 4) ^ purpose as u64);
        Self(rng)
    }

    /// The stream of a purpose in a micro-batch.
    pub fn of(seed: StepSeed, purpose: Purpose) -> Self {
        Self::new(seed.seed, seed.step, seed.micro, purpose)
    }

    /// A seed for a counter-based generator.
    pub fn seed(&mut self) -> u64 {
        self.0.random()
    }

    /// The numbers below `count`, shuffled.
    pub fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        all.shuffle(&mut self.0);
        all
    }

    /// Goes on after `count` values of [`Noise::uniform`].
    pub fn skip(&mut self, count: usize) {
        // Each of them takes one word of the stream.
        self.0.set_word_pos(self.0.get_word_pos() + count as u128);
    }

    /// Uniform values in ±`bound`.
    pub fn uniform<const D: usize>(&mut self, bound: f64, shape: [usize; D]) -> TensorData {
        let bound = bound as f32;
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| (self.0.random::<f32>() * 2.0 - 1.0) * bound).collect();
        TensorData::new(values, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_step_and_purpose_only() {
        let draw = |step, purpose| Noise::new(7, step, 0, purpose).seed();
        assert_eq!(draw(3, Purpose::Neftune), draw(3, Purpose::Neftune));
        assert_ne!(draw(3, Purpose::Neftune), draw(4, Purpose::Neftune));
        assert_ne!(draw(3, Purpose::Neftune), draw(3, Purpose::Hypernet));
    }

    #[test]
    fn what_is_skipped_is_what_would_have_been_drawn() {
        let noise = || Noise::new(7, 3, 0, Purpose::Neftune);
        let all: Vec<f32> = noise().uniform(1.0, [41]).iter().collect();
        let (mut first, mut rest) = (noise(), noise());
        rest.skip(13);
        first.skip(0);
        let (first, rest) = (first.uniform(1.0, [13]), rest.uniform(1.0, [28]));
        assert_eq!(first.iter::<f32>().chain(rest.iter()).collect::<Vec<_>>(), all);
    }
}
