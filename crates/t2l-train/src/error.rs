//! Everything that can go wrong while training.

use std::path::{Path, PathBuf};

/// Why a training run could not start, go on, or be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A configuration that is not TOML of our schema.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it, with line and column where there is one.
        reason: String,
    },
    /// A setting outside its range.
    #[error("setting {key} = {value}: {reason}")]
    Setting {
        /// Dotted name of the setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// A state file that cannot be resumed from.
    #[error("{}: {reason}", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process trains in this folder.
    #[error("{}: another run is writing this folder", path.display())]
    Locked {
        /// The run's folder.
        path: PathBuf,
    },
    /// A run was to begin in a folder with files that are not a run's.
    #[error("{}: holds {}, which is not of this run; train into another folder", folder.display(), file.display())]
    NotARun {
        /// The folder.
        folder: PathBuf,
        /// Name of a file in it.
        file: PathBuf,
    },
    /// `run.select` names a number that validation does not give.
    #[error("setting run.select = {name:?}: validation gives no such number; it gives {}", list(there))]
    NoSuchNumber {
        /// The setting.
        name: String,
        /// Names of the numbers there are.
        there: Vec<String>,
    },
    /// Several processes that cannot train together.
    #[error("training with several processes: {reason}")]
    Ranks {
        /// Why not.
        reason: String,
    },
    /// A loss or gradient that is not a number; the last checkpoint is untouched.
    #[error("step {step}: {what} is {value}; examples: {examples}")]
    NotFinite {
        /// The step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Names of the tasks in the batch.
        examples: String,
    },
    /// No task, or a task without examples.
    #[error("nothing to train on: {reason}")]
    NoData {
        /// What is missing.
        reason: String,
    },
    /// An adapter of another shape than the one wanted.
    #[error("{source_name}: {reason}")]
    Adapter {
        /// Where the adapter is from.
        source_name: String,
        /// What does not fit.
        reason: String,
    },
    /// Adapter files.
    #[error(transparent)]
    AdapterFile(#[from] t2l_adapter::AdapterError),
    /// Adapters that do not fit the base model or the batch.
    #[error(transparent)]
    Fit(#[from] t2l_core::FitError),
    /// The base model.
    #[error(transparent)]
    Backbone(#[from] t2l_backbone::BackboneError),
    /// The hypernetwork or its checkpoint.
    #[error(transparent)]
    Hypernet(#[from] t2l_hypernet::HypernetError),
    /// Generating adapters.
    #[error(transparent)]
    Generate(#[from] t2l_core::GenerateError),
    /// Tasks and examples.
    #[error(transparent)]
    Data(#[from] t2l_data::DataError),
    /// A validator of the caller's.
    #[error("validation failed: {0}")]
    Validator(Box<dyn std::error::Error + Send + Sync>),
}

impl TrainError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Names in a sentence.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
