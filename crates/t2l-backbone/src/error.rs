//! Why a language model could not be loaded or run.

use std::path::{Path, PathBuf};

use t2l_gguf::GgufError;

use crate::{chat::ChatError, tokenizer::TokenizerError};

/// Why a language model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A configuration that is not one, or that no decoder can have.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not a model family that this crate knows.
    #[error("{}: model family {family:?} is not supported; supported are {}", path.display(), crate::decoder::FAMILIES.join(", "))]
    UnsupportedFamily {
        /// The file.
        path: PathBuf,
        /// Its `model_type` or `general.architecture`.
        family: String,
    },
    /// A tensor that is missing, misshapen, or holds what no weight can be.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// Reading a GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Adapters that do not fit.
    #[error(transparent)]
    Fit(#[from] t2l_core::FitError),
    /// A module that this model does not have.
    #[error("the model has no linear module {module:?}; it has {}", known.join(", "))]
    NoSuchModule {
        /// The module asked for.
        module: String,
        /// The modules there are.
        known: Vec<String>,
    },
    /// More tokens than the cache or the model holds.
    #[error("{tokens} tokens do not fit; the limit is {limit}")]
    TooLong {
        /// Tokens asked for.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// An empty prompt or batch, or parts of one that do not belong together.
    #[error("{0}")]
    Prompt(String),
}

impl BackboneError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }
}
