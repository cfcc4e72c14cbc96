//! Why an adapter's files cannot be read or written.

use std::path::{Path, PathBuf};

use t2l_gguf::GgufError;

/// Why an adapter's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A configuration that is not one.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting that changes the maths in a way this program does not do.
    #[error("{}: {setting} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting, with its value.
        setting: String,
    },
    /// A weights file that is damaged as a whole.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// One tensor that is misnamed, misshapen, without its partner, or holds what no factor can hold.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A place of an adapter in memory that cannot be written as it is.
    #[error("layer {layer}, {module}: {reason}")]
    Place {
        /// The layer.
        layer: usize,
        /// The module type.
        module: String,
        /// What is wrong.
        reason: String,
    },
    /// A path at which there is no adapter.
    #[error("{}: is no adapter: {reason}", path.display())]
    NoAdapter {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        reason: &'static str,
    },
    /// An adapter in memory that touches nothing, so that there is nothing to write.
    #[error("{}: the adapter touches no module", path.display())]
    Empty {
        /// Where it was to be written.
        path: PathBuf,
    },
    /// A GGUF file that is damaged.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A GGUF adapter whose rows cannot be put in order without knowing the base model.
    #[error("{}: {architecture} models have the rows of q_proj and k_proj in another order in GGUF files; name the base model that has the heads (--model)", path.display())]
    BaseNeeded {
        /// The file.
        path: PathBuf,
        /// The base model's architecture in GGUF.
        architecture: String,
    },
    /// A GGUF adapter that is to be written for a base model that nobody has named.
    #[error("{}: a GGUF adapter names its base model's architecture and follows its heads; name that model (--model)", path.display())]
    NoBase {
        /// The file.
        path: PathBuf,
    },
    /// Adapters that cannot be mixed or compared.
    #[error("{0}")]
    Together(String),
    /// A file that is there already.
    #[error("{}: is there already; use --force to replace it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A folder for a model that holds something already.
    #[error("{}: is not empty; a merged model is written into a new folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A target that holds something already.
    #[error("{}: is not empty; use --force to write into it anyway", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl AdapterError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn weights(path: &Path, reason: impl Into<String>) -> Self {
        Self::Weights { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }

    pub(crate) fn place(layer: usize, module: &str, reason: impl Into<String>) -> Self {
        Self::Place { layer, module: module.to_owned(), reason: reason.into() }
    }
}
