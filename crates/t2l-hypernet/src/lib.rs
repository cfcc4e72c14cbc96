//! The hypernetwork h_θ: task embeddings in, LoRA factors for every module and layer out.
//!
//! A [`Hypernet`] holds its tensors under the names of the published PyTorch checkpoints and runs all tasks × layers ×
//! modules as one batch, with the heads L, M and S of Text-to-LoRA (section 3.1) or the fourth combination of the
//! published code. [`Checkpoint`] is how it is stored, with everything that using it needs to know; [`import`] makes one of a
//! published training folder.
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use burn::tensor::{Device, Tensor};
//! use t2l_core::{AdapterGenerator, AdapterLayout, LoraScaling, TargetModule};
//! use t2l_hypernet::{Arch, Hypernet, HypernetConfig, Init};
//!
//! let layout = AdapterLayout {
//!     base_model: "HuggingFaceTB/SmolLM2-135M-Instruct".into(),
//!     layers: 30,
//!     modules: vec![TargetModule::new("q_proj", 576, 576), TargetModule::new("v_proj", 576, 192)],
//! };
//! let scaling = LoraScaling { alpha: 16.0, rank: 8, use_rslora: true };
//! let config = HypernetConfig::new(Arch::S, layout, scaling, 384);
//! let hypernet = Hypernet::new(config, Init::Ours, 1, &Device::flex()).unwrap();
//! let adapters = hypernet.generate(Tensor::ones([2, 384], &Device::flex())).unwrap();
//! assert_eq!(adapters.modules[1].b.dims(), [2, 30, 192, 8]);
//! # }
//! ```

mod checkpoint;
mod config;
mod copying;
mod encode;
mod error;
mod forward;
mod heads;
mod hypernet;
pub mod import;
mod init;
mod instructed;
mod tensors;

pub use checkpoint::{Checkpoint, Dtype, MANIFEST, Manifest, ModelRef, Rendering, VERSION, WEIGHTS};
pub use config::{
    Arch, Conditioning, Copying, HypernetConfig, Instructed, Offset, ParameterCounts, Target, TaskEncoder,
};
pub use copying::CopyingStart;
pub use encode::CodeUse;
pub use error::HypernetError;
pub use forward::{DropoutSeed, HypernetOutput};
pub use heads::rotary_tables;
pub use hypernet::Hypernet;
pub use init::Init;
pub use instructed::InstructedStart;
