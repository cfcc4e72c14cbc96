//! Text-to-LoRA: a sentence describing a task in, a LoRA adapter out.

mod error;
pub mod training;

pub use error::Error;
