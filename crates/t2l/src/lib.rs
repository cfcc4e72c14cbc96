//! Text-to-LoRA: a sentence describing a task goes in, a LoRA adapter that specialises a frozen language model comes out.
//!
//! [`TextToLora`] is the short way: it loads a hypernetwork and its text encoder, fetches what is missing, and turns
//! descriptions into adapters; [`TextToLora::base_model`] brings the language model that wears them. Everything it is
//! made of is a crate of its own, re-exported here: [`core`], [`models`], [`adapter`], [`backbone`], [`encoder`],
//! [`hypernet`], [`data`], [`train`], [`eval`].
//!
//! ```no_run
//! use t2l::prelude::*;
//!
//! let t2l = TextToLora::builder().device("cpu").build()?;
//! let generated = t2l.generate(&["Answer with the capital city of the given country."])?;
//! generated.adapter(0).save("capital-adapter")?;
//! # Ok::<(), t2l::Error>(())
//! ```

mod answer;
mod distil;
mod error;
mod model;
mod text_to_lora;
pub mod training;

pub use answer::{Answers, Question};
pub use error::Error;
pub use model::{fetch, model_ref};
pub use text_to_lora::{Builder, CheckpointSource, GeneratedAdapter, GeneratedAdapters, TextToLora};

pub use t2l_adapter as adapter;
pub use t2l_backbone as backbone;
pub use t2l_core as core;
pub use t2l_data as data;
pub use t2l_encoder as encoder;
pub use t2l_eval as eval;
pub use t2l_hypernet as hypernet;
pub use t2l_models as models;
pub use t2l_train as train;

/// What most programs need.
pub mod prelude {
    pub use crate::{Answers, Error, GeneratedAdapter, GeneratedAdapters, Question, TextToLora};
    pub use t2l_adapter::peft;
    pub use t2l_backbone::{Backbone, Sampling, WeightType};
    pub use t2l_core::{Adapter, AdapterBatch, AdapterGenerator, TextEncoder, device};
}
