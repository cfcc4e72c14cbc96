//! A request to stop, shared between whoever hears it and the loop that heeds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks a run to finish its step, write a checkpoint and return.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    deadline: Option<Instant>,
    last_step: Option<u64>,
}

impl Stop {
    /// Nobody asks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stop also when this much time has passed from now.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.deadline = Instant::now().checked_add(time);
        self
    }

    /// Stop also after this step.
    #[must_use]
    pub fn at_step(mut self, step: u64) -> Self {
        self.last_step = Some(step);
        self
    }

    /// Asks. Returns whether somebody had asked before.
    pub fn request(&self) -> bool {
        self.requested.swap(true, Ordering::SeqCst)
    }

    /// Whether a run that has taken `steps` steps should return now.
    pub fn wanted(&self, steps: u64) -> bool {
        self.requested.load(Ordering::SeqCst)
            || self.deadline.is_some_and(|d| Instant::now() >= d)
            || self.last_step.is_some_and(|last| steps >= last)
    }
}
