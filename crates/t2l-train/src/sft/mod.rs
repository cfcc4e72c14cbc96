//! Supervised fine-tuning of the hypernetwork, end to end through the frozen language model.

mod run;
mod step;

pub use run::{Ended, Event, SftRun};
pub use step::{StepOutput, StepSeed, sft_step};
