//! Learning rate over a run: linear warm-up, then linear decay to zero.

use crate::OptimizerConfig;

/// Linear warm-up over the first steps, then linear decay (transformers' `linear` schedule, as published).
///
/// ```
/// use t2l_train::LinearSchedule;
///
/// let schedule = LinearSchedule { peak: 1e-3, warmup: 2, total: 8 };
/// assert_eq!(schedule.at(0), 0.0);
/// assert_eq!(schedule.at(1), 5e-4);
/// assert_eq!(schedule.at(2), 1e-3);
/// assert_eq!(schedule.at(5), 5e-4);
/// assert_eq!(schedule.at(8), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSchedule {
    /// Highest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Steps of warm-up. The first of them runs at 0, as in the published code.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
}

impl LinearSchedule {
    /// The schedule of a run of `steps` steps.
    pub fn new(config: &OptimizerConfig, steps: u64) -> Self {
        Self { peak: config.learning_rate, warmup: (steps as f64 * config.warmup_share).round() as u64, total: steps }
    }

    /// Learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(step) as f64;
        let decay = self.total.saturating_sub(self.warmup).max(1) as f64;
        self.peak * (left / decay).min(1.0)
    }
}
