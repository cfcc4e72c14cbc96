//! Why an adapter's files cannot be read or written.

use std::path::{Path, PathBuf};

/// Why an adapter's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
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
    /// A weights file that is damaged.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// One tensor that is missing, misshapen, or holds what no factor can be.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A target that holds something already.
    #[error("{}: is not empty; use --force to replace it", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl AdapterError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }
}
