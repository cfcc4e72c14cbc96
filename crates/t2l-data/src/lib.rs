//! Tasks, descriptions, prompt rendering, tokenised batches and samplers.

mod batch;
mod corpus;
mod error;
mod render;
mod sampler;
mod task;

pub use batch::TrainBatch;
pub use corpus::Corpus;
pub use error::DataError;
pub use render::{PromptMode, PromptRenderer, TokenizedExample, cut, example_turn, user_turn};
pub use sampler::{Draw, Sampler, SamplerConfig};
pub use task::{Descriptions, Example, Kind, Metric, Part, Task, TaskSet};
