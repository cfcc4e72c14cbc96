//! Trainers for Text-to-LoRA hypernetworks.
//!
//! [`SftRun`] trains a hypernetwork end to end: adapters for every row of a batch, the frozen decoder wearing them,
//! the loss on the answers, gradients of the hypernetwork only (Text-to-LoRA, section 3.2). A run is a folder: it
//! can be stopped at any moment and goes on from its state file to the same parameters, bit for bit on one backend.
//!
//! ```
//! use t2l_train::SftConfig;
//!
//! let config = SftConfig::default();
//! assert_eq!(config.sampling.tasks_per_step, 8);
//! assert!(config.check().is_ok());
//! ```

mod config;
mod error;
mod files;
mod loss;
mod metrics;
mod noise;
mod optimizer;
mod plot;
mod schedule;
mod sft;
mod signal;
mod state;
mod validate;

pub use config::{DataConfig, HypernetSettings, ModelConfig, RunConfig, SamplingConfig, SftConfig};
pub use error::TrainError;
pub use loss::{LossConfig, Weighting, generated_l2, label_losses, weighted};
pub use optimizer::{NamedGradients, Optimizer, OptimizerConfig, global_norm};
pub use plot::plot;
pub use schedule::LinearSchedule;
pub use sft::{Ended, Event, SftRun, StepOutput, StepSeed, sft_step};
pub use signal::Stop;
pub use validate::{HeldOut, HeldOutExample, Validator};
