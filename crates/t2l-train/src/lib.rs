//! Trainers for Text-to-LoRA hypernetworks, and for plain adapters.
//!
//! [`run`] is the loop that all share: a run is a folder, can be stopped at any moment, and goes on from its state file
//! to the same parameters, bit for bit on one backend. What it trains is a [`Trainee`]:
//! - [`Sft`], a hypernetwork end to end: adapters for every row of a batch, the frozen decoder wearing them, the loss on
//!   the answers, gradients of the hypernetwork only (Text-to-LoRA, section 3.2),
//!   conditioned on descriptions, or on each input ([`Conditions`]);
//! - [`Recon`], a hypernetwork on a library of adapters (section 3.3);
//! - [`Adapters`], plain LoRA: one adapter for each task, many in one forward pass, or one for all tasks.
//!
//! [`distil()`] is no run: a few steps that teach one generated adapter to follow its description.
//!
//! ```
//! use t2l_train::{TrainConfig, Trainer};
//!
//! let config = TrainConfig::defaults(Trainer::Sft);
//! assert_eq!(config.sampling.tasks_per_step, 8);
//! assert!(config.check().is_ok());
//! ```

mod backward;
mod buffers;
mod config;
mod distil;
mod error;
mod files;
mod lora;
mod loss;
mod noise;
mod optimizer;
mod plot;
mod recon;
mod run;
mod sft;
mod tensorboard;
mod validate;

// What to do.
pub use config::{
    DataConfig, HypernetSettings, LoraConfig, ModelConfig, ReconConfig, ReconTarget, RunConfig, SamplingConfig,
    TrainConfig, Trainer,
};
pub use error::TrainError;
// The loop.
pub use plot::plot;
pub use run::{
    Alone, Ended, Event, LinearSchedule, Outcome, Part, Ranks, Share, StepSeed, Stop, Trainee, check_folder, ranks,
    run, run_shared,
};
pub use tensorboard::tensorboard;
// What it trains.
pub use lora::{
    Adapters, FinishedTask, Group, HeldOutRow, INDEX, Library, PlainLora, REPORT, Shard, adapter_of_task, fused_base,
};
pub use recon::{Recon, Targets};
// What teaches a generated adapter further.
pub use distil::{Distillation, Distilled, Ending, Lesson, NEUTRAL_INPUTS, distil};
pub use sft::{Conditions, Sft, Turns, set_from_base, set_offsets};
// What a step is made of.
pub use lora::{AdapterStepOutput, adapter_step};
pub use loss::{LossConfig, Weighting, generated_l2, label_losses};
pub use optimizer::{NamedGradients, Optimizer, OptimizerConfig, global_norm};
pub use recon::{ReconStepOutput, recon_step};
pub use sft::{Contrast, StepOutput, sft_step};
// How it is judged.
pub use validate::{HeldOut, HeldOutExample, Validator};
