//! LoRA adapters as files.
//!
//! [`peft`] reads and writes the directories that PEFT, vLLM and SGLang load; [`inspect()`] says what an adapter is.
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

mod error;
mod inspect;
pub mod peft;

pub use error::AdapterError;
pub use inspect::{Inspection, ModuleInspection, inspect};
