//! Why a published training folder cannot be imported.

use std::path::{Path, PathBuf};

use crate::HypernetError;

/// Why a published training folder cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file that is damaged, of another kind, or at odds with another one.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// One tensor that is missing, misshapen, superfluous or not finite.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The `.pt` file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A pickle that names something besides tensors, containers and numbers. Nothing of it was executed.
    #[error(
        "{}: its pickle names {name}; only tensors, containers and numbers are read, and nothing is executed",
        path.display()
    )]
    Refused {
        /// The `.pt` file.
        path: PathBuf,
        /// What it names, as `module.name`.
        name: String,
    },
    /// Sizes that neither offsets, statistics, the depth table nor the heads tell.
    #[error(
        "{}: {what} cannot be told from its tensors (it has neither AB_offset nor statistics of reconstruction \
         targets); name the config.json of the base model with --base-config",
        path.display()
    )]
    BaseConfigNeeded {
        /// The `.pt` file.
        path: PathBuf,
        /// What cannot be told.
        what: String,
    },
    /// A file that cannot be read, or a hypernetwork that cannot be.
    #[error(transparent)]
    Hypernet(#[from] HypernetError),
}

impl ImportError {
    pub(super) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: printable(tensor), reason: reason.into() }
    }
}

/// A name out of a file as a message can bear it: one line, of bounded length.
pub(super) fn printable(name: &str) -> String {
    let short: String = name.chars().take(80).flat_map(char::escape_default).collect();
    if name.chars().nth(80).is_some() { format!("{short}…") } else { short }
}
