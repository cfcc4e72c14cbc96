//! LoRA adapters as files.
//!
//! [`peft`] reads and writes the directories that PEFT, vLLM and SGLang load, [`gguf`] the files that llama.cpp loads;
//! [`load()`] and [`save()`] choose by the path. [`inspect()`] says what an adapter is and [`diff()`] how two differ;
//! [`fused`] knows models whose checkpoints have q, k, v in one matrix; [`mix()`] makes one of several, and [`merge()`] puts one into the weights of its base model.
//! What is written appears whole or not at all; what is read is checked tensor by tensor.
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use burn::tensor::{Device, Tensor};
//! use t2l_adapter::peft::{self, SaveOptions};
//! use t2l_core::{Adapter, LoraWeights};
//!
//! let device = Device::flex();
//! let mut adapter = Adapter::new("HuggingFaceTB/SmolLM2-135M-Instruct", true);
//! let weights = LoraWeights { a: Tensor::ones([2, 6], &device), b: Tensor::ones([4, 2], &device), alpha: 4.0 };
//! adapter.insert(0, "q_proj", weights);
//!
//! let folder = tempfile::tempdir().unwrap();
//! let target = folder.path().join("adapter");
//! peft::save(&adapter, &target, &SaveOptions::default()).unwrap();
//! assert_eq!(peft::load(&target, &device).unwrap().len(), 1);
//! # }
//! ```

mod diff;
mod error;
mod files;
pub mod fused;
pub mod gguf;
mod heat_map;
mod inspect;
mod load;
mod low_rank;
mod merge;
mod mix;
mod options;
pub mod peft;
mod tensors;

pub use diff::{Diff, ModuleDiff, diff};
pub use error::AdapterError;
pub use inspect::{Inspection, ModuleInspection, inspect};
pub use load::{Format, Loaded, load, save};
pub use merge::{Merged, merge};
pub use mix::{MixMethod, mix};
pub use options::{Dtype, SaveOptions};
