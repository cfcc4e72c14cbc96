//! Frozen decoder language models in Burn that wear a different adapter in every row of a batch.

mod backbone;
mod cache;
pub mod chat;
pub mod decoder;
mod error;
pub mod gguf;
mod mapped;
pub mod tokenizer;
mod weights;

pub use backbone::Backbone;
pub use cache::KvCache;
pub use decoder::{Decoder, DecoderConfig};
pub use error::BackboneError;
