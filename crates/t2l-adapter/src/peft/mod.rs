//! PEFT directories: adapter_config.json says how, adapter_model.safetensors holds A and B.
//!
//! Tensors are named `base_model.model.model.layers.{i}.{block}.{module}.lora_A.weight` (`[rank, in]`) and `lora_B`
//! (`[out, rank]`). Where an adapter has factors is read from those names; the configuration gives rank, alpha and
//! scaling, with patterns that may differ by place.

mod config;
mod place;
mod read;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod write;

pub use crate::options::{Dtype, SaveOptions};
pub(crate) use place::place;
pub use read::{description, load};
pub use write::save;

/// Name of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
