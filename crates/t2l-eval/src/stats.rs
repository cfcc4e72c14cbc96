//! Intervals: Wilson for proportions of one task, bootstrap for everything else; the draws are always the same.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Bootstrap draws behind every interval.
pub const DRAWS: usize = 10_000;
const SEED: u64 = 20_250_606;

/// Mean of some values; NaN for none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Wilson's 95 % interval of a proportion `hits / n`.
///
/// ```
/// let [low, high] = t2l_eval::wilson(8.0, 10);
/// assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4);
/// ```
pub fn wilson(hits: f64, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, z) = (n as f64, 1.959_963_984_540_054_f64);
    let p = hits / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    [((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0)]
}

/// Percentile bootstrap of the mean, 95 %.
///
/// ```
/// let [low, high] = t2l_eval::bootstrap(&[0.0, 1.0, 2.0, 3.0]);
/// assert!(low < 1.5 && 1.5 < high);
/// assert_eq!(t2l_eval::bootstrap(&[2.0, 2.0]), [2.0, 2.0]);
/// ```
pub fn bootstrap(values: &[f64]) -> [f64; 2] {
    let n = values.len();
    if n == 0 {
        return [f64::NAN, f64::NAN];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut means: Vec<f64> =
        (0..DRAWS).map(|_| (0..n).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((DRAWS - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}
