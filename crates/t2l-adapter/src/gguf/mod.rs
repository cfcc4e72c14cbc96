//! GGUF adapters: one file, as llama.cpp's own converter writes them and llama.cpp loads them.
//!
//! Metadata: `general.type` adapter, `adapter.type` lora, `general.architecture` of the base model, `adapter.lora.alpha`
//! (f32), and `adapter.lora.task_name`, where the task description goes. Tensors are named after the base model's:
//! `blk.{i}.attn_q.weight.lora_a` (`[rank, in]`) and `.lora_b` (`[out, rank]`). There is one alpha, and the scaling is
//! always alpha / rank (1 where alpha is 0); an adapter that says otherwise is written with what is left over in B.
//!
//! llama.cpp interleaves the two halves of each rotated head of Llama models, so the rows of B of `q_proj` and `k_proj`
//! are in another order there. Putting them right takes the number of heads: [`BaseShape`]. Files written here also
//! carry it, under the keys that models have it under.

mod base;
mod names;
mod read;
mod rows;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod write;

pub use base::BaseShape;
pub use read::{Read, is_lora, load};
pub use write::save;

/// Metadata keys.
mod keys {
    pub(super) const ARCHITECTURE: &str = "general.architecture";
    pub(super) const TYPE: &str = "general.type";
    pub(super) const BASE_COUNT: &str = "general.base_model.count";
    pub(super) const BASE_NAME: &str = "general.base_model.0.name";
    pub(super) const BASE_URL: &str = "general.base_model.0.repo_url";
    pub(super) const ADAPTER_TYPE: &str = "adapter.type";
    pub(super) const ALPHA: &str = "adapter.lora.alpha";
    pub(super) const TASK: &str = "adapter.lora.task_name";
    pub(super) const INVOCATION: &str = "adapter.alora.invocation_tokens";
    /// After the architecture and a dot.
    pub(super) const HEADS: &str = "attention.head_count";
    /// After the architecture and a dot.
    pub(super) const KV_HEADS: &str = "attention.head_count_kv";
    /// Where the Hub's models have their pages.
    pub(super) const HUB: &str = "https://huggingface.co/";
}
