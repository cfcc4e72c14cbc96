//! The vocabulary that every crate of Text-to-LoRA shares.
//!
//! A task description becomes a *task embedding* ([`TextEncoder`]), the embedding becomes
//! [`LoraFactors`] ([`AdapterGenerator`]), and a frozen language model wears them as an
//! [`AdapterBatch`]. This crate defines those words, picks a [device](device::parse) from a string,
//! holds the [tensor operations](ops) worth fusing, and [writes files whole](files). It knows nothing of formats or models.
//!
//! ```
//! use t2l_core::{AdapterLayout, TargetModule, LoraScaling};
//!
//! let layout = AdapterLayout {
//!     base_model: "HuggingFaceTB/SmolLM2-135M-Instruct".into(),
//!     layers: 30,
//!     modules: vec![TargetModule::new("q_proj", 576, 576), TargetModule::new("v_proj", 576, 192)],
//! };
//! assert_eq!(layout.parameters(8), 30 * 8 * (576 + 576 + 576 + 192));
//! assert_eq!(LoraScaling { alpha: 16.0, rank: 4, use_rslora: true }.value(), 8.0);
//! ```

mod adapter;
mod batch;
mod counted;
pub mod device;
mod factors;
pub mod files;
mod layout;
pub mod ops;
mod parameters;
mod traits;

pub use adapter::{Adapter, LoraWeights};
pub use batch::{AdapterBatch, FitError, InputDropout, RowFactors};
pub use counted::counted;
pub use factors::{LoraFactors, ModuleFactors};
pub use layout::{AdapterLayout, LoraScaling, TargetModule};
pub use parameters::{Parameter, Parameters};
pub use traits::{AdapterGenerator, EncodeError, EncodedTexts, GenerateError, TextEncoder};
