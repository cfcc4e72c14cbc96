//! Tasks, descriptions, prompt rendering, tokenised batches and samplers.
//!
//! A [`TaskSet`] is a folder of tasks in the format of docs/formats.md: anybody's, with a name, a file and a description
//! a task. [`PromptRenderer`] turns an example into tokens, in the one way that training, evaluation and chat share. A
//! [`Corpus`] holds the tokenised examples, a [`Sampler`] draws from it, resumable to the bit, and a [`TrainBatch`] pads.
//!
//! ```
//! use t2l_data::{Part, PromptMode, TaskSet, example_turn};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-tasks");
//! let set = TaskSet::open(folder)?;
//! let task = set.find("warm_or_cold")?;
//! let example = &set.examples(task, Part::Valid)?[0];
//! assert_eq!(example_turn(task, example, PromptMode::Input), "the sun\nOptions:\n- warm\n- cold");
//! # Ok::<(), t2l_data::DataError>(())
//! ```

mod batch;
mod corpus;
mod derive;
mod draws;
mod error;
mod render;
mod sampler;
mod task;

// What files hold.
pub use error::DataError;
pub use task::{Descriptions, Example, Kind, Metric, Part, Task, TaskSet};
// Other tasks over the same inputs.
pub use derive::{DeriveConfig, DerivedTask, derive, write_derived};
// Which task another is compared with.
pub use draws::{draws, other_task};
// How it becomes text and tokens.
pub use render::{PromptMode, PromptRenderer, TokenizedExample, cut, example_turn, user_turn};
// What a training step sees.
pub use batch::TrainBatch;
pub use corpus::Corpus;
pub use sampler::{Draw, Sampler, SamplerConfig};
