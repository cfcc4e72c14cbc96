//! What can be wrong with an encoder's files, with the file and the tensor named.

use std::path::{Path, PathBuf};

use t2l_core::EncodeError;
use t2l_core::files::read_at_most;

/// Why an encoder or a table of embeddings could not be loaded, used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A JSON file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// A setting that cannot be served.
    #[error("{}: {field}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Name of the setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A model of a family that this crate has no table row for.
    #[error("{}: model_type {model_type:?} is not supported (bert, roberta, xlm-roberta, camembert and new are)", path.display())]
    UnsupportedFamily {
        /// The config.json.
        path: PathBuf,
        /// What it calls itself.
        model_type: String,
    },
    /// A safetensors file whose header or size lies.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor the configuration asks for is not in the file.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{}: tensor {name} has shape {found:?}, the configuration wants {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape the configuration wants.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor whose values cannot be used.
    #[error("{}: tensor {name}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tokenizer that cannot be built or does not fit the model.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Token ids that the model has no rows for.
    #[error("token batch: {reason}")]
    Batch {
        /// What is wrong with it.
        reason: String,
    },
    /// A decoder that cannot be loaded or run.
    #[error(transparent)]
    Decoder(#[from] t2l_backbone::BackboneError),
    /// A text that cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A file of embeddings made by another encoder.
    #[error("{}: holds embeddings of {found}, not of {expected}", path.display())]
    OtherEncoder {
        /// The file.
        path: PathBuf,
        /// Encoder asked for.
        expected: String,
        /// Encoder that made it.
        found: String,
    },
    /// A description whose embedding was never computed.
    #[error("no embedding stored for the description {description:?}")]
    NotStored {
        /// The description.
        description: String,
    },
}

impl EncoderError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn json(path: &Path, reason: impl ToString) -> Self {
        Self::Json { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn config(path: &Path, field: &'static str, reason: impl ToString) -> Self {
        Self::Config { path: path.to_owned(), field, reason: reason.to_string() }
    }

    pub(crate) fn weights(path: &Path, reason: impl ToString) -> Self {
        Self::Weights { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn tokenizer(path: &Path, reason: impl ToString) -> Self {
        Self::Tokenizer { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Longest file that is read whole: none of those that describe a model is larger.
pub(crate) const SMALL: u64 = 64 << 20;

/// Reads a JSON file of at most [`SMALL`] bytes.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EncoderError> {
    let bytes = read_at_most(path, SMALL).map_err(|e| EncoderError::io(path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| EncoderError::json(path, e))
}

/// Like [`read_json`], `None` when there is no such file.
pub(crate) fn read_json_if_there<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EncoderError> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}
