//! Supervised fine-tuning of the hypernetwork, end to end through the frozen language model.

mod contrast;
mod step;
mod trainee;

pub use contrast::Contrast;
pub use step::{StepOutput, sft_step};
pub use trainee::Sft;
pub(crate) use trainee::{drawn_descriptions, export_hypernet};
