//! Choosing the next token from logits.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that make up this share of the probability are drawn from.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };
}

/// Draws tokens for the rows of one batch; each row has its own stream.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rows: Vec<ChaCha8Rng>,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, rows: usize) -> Self {
        let stream = |row| {
            let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
            rng.set_stream(row as u64);
            rng
        };
        Self { sampling, rows: (0..rows).map(stream).collect() }
    }

    /// Picks a row's next token.
    pub(crate) fn pick(&mut self, row: usize, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_p, .. } = self.sampling;
        if temperature <= 0.0 || !temperature.is_finite() {
            return argmax(logits);
        }
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |&x: &f32| (f64::from(x - peak) / temperature).exp();
        let mut order: Vec<(usize, f64)> = logits.iter().map(weight).enumerate().collect();
        let total: f64 = order.iter().map(|o| o.1).sum();
        if top_p < 1.0 {
            // All tokens below this together fall short of what top_p leaves out: they need not be sorted.
            let least = (1.0 - top_p) * total / order.len() as f64;
            order.retain(|o| o.1 >= least);
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            // Keep tokens until their share reaches top_p: the one that crosses it stays.
            let mut kept = 0.0;
            let count = order.iter().position(|o| {
                kept += o.1;
                kept >= top_p * total
            });
            order.truncate(count.map_or(order.len(), |i| i + 1));
        }
        let mut left = self.rows[row].random::<f64>() * order.iter().map(|o| o.1).sum::<f64>();
        for (token, weight) in &order {
            left -= weight;
            if left < 0.0 {
                return *token as u32;
            }
        }
        order.last().map_or(0, |o| o.0 as u32)
    }
}

/// The likeliest token; the first of equals.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &x) in logits.iter().enumerate() {
        if x > best.1 {
            best = (i, x);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_temperature_takes_the_first_of_the_likeliest() {
        assert_eq!(Sampler::new(Sampling::GREEDY, 1).pick(0, &[0.0, 2.0, 2.0, 1.0]), 1);
    }

    #[test]
    fn top_p_leaves_unlikely_tokens_out() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.6, seed: 1 };
        let mut sampler = Sampler::new(sampling, 1);
        // Probabilities 0.5, 0.3, 0.2: the second crosses 0.6 and stays, the third never comes.
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let draws: Vec<u32> = (0..400).map(|_| sampler.pick(0, &logits)).collect();
        assert!(draws.contains(&0) && draws.contains(&1) && !draws.contains(&2));
        let first = draws.iter().filter(|&&t| t == 0).count() as f64 / 400.0;
        assert!((first - 0.625).abs() < 0.1, "{first}");
    }

    #[test]
    fn draws_follow_the_softmax_at_a_temperature() {
        let logits = [1.0f32, -2.0, 0.5, f32::NEG_INFINITY, 3.0];
        let (temperature, count) = (1.7, 20_000);
        let mut sampler = Sampler::new(Sampling { temperature, top_p: 1.0, seed: 3 }, 1);
        let mut seen = [0.0; 5];
        (0..count).for_each(|_| seen[sampler.pick(0, &logits) as usize] += 1.0 / f64::from(count));
        let weights = logits.map(|x| (f64::from(x) / temperature).exp());
        let total: f64 = weights.iter().sum();
        for (seen, weight) in seen.iter().zip(weights) {
            assert!((seen - weight / total).abs() < 0.015, "{seen} is not {}", weight / total);
        }
        assert_eq!(seen[3], 0.0);
    }

    #[test]
    fn a_top_p_of_nothing_leaves_the_likeliest() {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_p: 0.0, seed: 3 }, 1);
        assert!((0..50).all(|_| sampler.pick(0, &[0.0, 0.1, 0.3, 0.2]) == 2));
    }

    #[test]
    fn values_that_are_no_numbers_still_give_a_token() {
        for temperature in [0.0, 1.0, f64::NAN, f64::INFINITY, 1e-300] {
            for top_p in [0.0, 0.5, 1.0, f64::NAN] {
                let mut sampler = Sampler::new(Sampling { temperature, top_p, seed: 0 }, 1);
                for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [f32::INFINITY, 0.0, f32::NAN]] {
                    assert!(sampler.pick(0, &logits) < 3);
                }
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_draws_whatever_the_other_rows_do() {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 5 };
        let logits = [0.1, 0.2, 0.3, 0.4];
        let (mut a, mut b) = (Sampler::new(sampling, 2), Sampler::new(sampling, 1));
        for _ in 0..20 {
            a.pick(1, &logits);
            assert_eq!(a.pick(0, &logits), b.pick(0, &logits));
        }
    }
}
