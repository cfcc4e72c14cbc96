//! Why a model cannot be had.

use std::path::{Path, PathBuf};

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Not a model of the manifest, nor a path.
    #[error("unknown model {name:?}: it is no folder or file that is here, and none of {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that are known.
        known: Vec<&'static str>,
    },
    /// A known model that is not in the cache.
    #[error("model {name} is not here; fetch it with: t2l models pull {name}")]
    NotFetched {
        /// The model.
        name: &'static str,
    },
    /// There is no folder for a cache.
    #[error("this system names no cache folder; set T2L_CACHE")]
    NoCache,
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Every source failed.
    #[error("model {name} cannot be fetched:{}", failures.iter().map(|(s, why)| format!("\n  {s}: {why}")).collect::<String>())]
    NoSource {
        /// The model.
        name: &'static str,
        /// Every source and why it failed.
        failures: Vec<(String, String)>,
    },
}

impl ModelError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Why one source failed; the next is tried. A full disk ends the pull.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Fatal(#[from] ModelError),
}

impl SourceError {
    pub(crate) fn failed(reason: impl ToString) -> Self {
        Self::Failed(reason.to_string())
    }
}
