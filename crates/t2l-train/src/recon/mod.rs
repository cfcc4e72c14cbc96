//! Reconstruction: a hypernetwork learns to write the adapters of a library from their tasks' descriptions.

mod sampler;
mod step;
mod targets;
mod trainee;

pub use step::{ReconStepOutput, recon_step};
pub use targets::Targets;
pub use trainee::Recon;
