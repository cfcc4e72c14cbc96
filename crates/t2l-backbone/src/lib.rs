//! Frozen decoder language models in Burn that wear a different adapter in every row of a batch

pub mod chat;
pub mod gguf;
mod mapped;
pub mod tokenizer;
