//! Supervised fine-tuning of the hypernetwork, end to end through the frozen language model.

mod base;
mod conditions;
mod constant;
mod contrast;
mod copying;
mod instructed;
mod offsets;
mod step;
mod trainee;

pub use base::set_from_base;
pub(crate) use conditions::drawn_descriptions;
pub use conditions::{Conditions, Turns};
pub use contrast::Contrast;
pub use offsets::set_offsets;
pub use step::{StepOutput, sft_step};
pub use trainee::Sft;
pub(crate) use trainee::export_hypernet;
