//! Frozen decoder language models in Burn that wear a different adapter in every row of a batch.
//!
//! A [`Backbone`] is a [`Decoder`] with its tokenizer ([`tokenizer`]) and chat template ([`chat`]), from a folder in Hugging
//! Face's layout or from one GGUF file ([`gguf`]). One decoder covers every family; what differs is in [`DecoderConfig`].
//! Every forward pass takes an [`AdapterBatch`](t2l_core::AdapterBatch): which adapter, or none, each row wears.
//!
//! ```no_run
//! use std::path::Path;
//! use t2l_backbone::{Backbone, Sampling, chat::Message};
//! use t2l_core::{AdapterBatch, device};
//!
//! let model = Backbone::load(Path::new("SmolLM2-135M-Instruct.Q4_1.gguf"), &device::parse("cpu")?)?;
//! let prompt = model.chat.render_bare(&[Message::user("What is the capital of France?")], true)?;
//! let prompt = model.tokenizer.encode(&prompt)?;
//! let options = model.until_end_of_turn(vec![32], Sampling::GREEDY);
//! let answers = model.decoder.generate(&[prompt], &AdapterBatch::none(1), &options, |_, _| ())?;
//! println!("{}", model.text(&answers[0])?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backbone;
mod cache;
pub mod chat;
pub mod decoder;
mod error;
mod generate;
mod sampling;
mod token_embeddings;
pub mod tokenizer;
mod weights;

pub use backbone::Backbone;
pub use cache::KvCache;
pub use decoder::{Decoder, DecoderConfig, LayerPass, OneLayer, Products};
pub use error::BackboneError;
pub use generate::{GenerateOptions, Generated};
pub use sampling::Sampling;
pub use t2l_gguf as gguf;
pub use token_embeddings::TokenEmbeddings;
pub use weights::WeightType;
