//! The hypernetwork: task embeddings in, LoRA factors for every module and layer out.

mod checkpoint;
mod config;
mod error;
mod forward;
mod hypernet;
mod init;
mod tensors;

pub use checkpoint::{Checkpoint, Dtype, MANIFEST, Manifest, ModelRef, Rendering, VERSION, WEIGHTS};
pub use config::{Arch, Conditioning, HypernetConfig, Offset, Target, TaskEncoder};
pub use error::HypernetError;
pub use forward::{DropoutSeed, HypernetOutput};
pub use hypernet::Hypernet;
pub use init::Init;
