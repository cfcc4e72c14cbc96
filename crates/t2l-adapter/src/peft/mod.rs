//! PEFT directories: adapter_config.json says how, adapter_model.safetensors holds A and B.
//!
//! Tensors are named `base_model.model.model.layers.{i}.{block}.{module}.lora_A.weight` (`[rank, in]`) and `lora_B`
//! (`[out, rank]`). Where an adapter has factors is read from those names; the configuration gives rank, alpha and
//! scaling, with patterns that may differ by place.

mod config;
mod file;
mod folder;
mod place;
mod read;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod weights;
mod write;

pub use read::load;
pub use write::{Dtype, SaveOptions, save};

/// Name of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
