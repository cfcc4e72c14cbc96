//! Why an evaluation cannot be run.

/// Why an evaluation cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A condition nobody knows.
    #[error("unknown condition {name:?}; known are {}", crate::Condition::NAMES.join(", "))]
    Condition {
        /// What was asked for.
        name: String,
    },
    /// A baseline that was asked for and not given.
    #[error("condition {} needs {needs}", condition.name())]
    Baseline {
        /// The condition.
        condition: crate::Condition,
        /// What is missing.
        needs: &'static str,
    },
    /// An adapter of a baseline that cannot be had.
    #[error("the adapter of {name}: {reason}")]
    Adapter {
        /// The baseline, or the task whose adapter it is.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to score.
    #[error("nothing to evaluate: {reason}")]
    Nothing {
        /// What is missing.
        reason: String,
    },
    /// A report that cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Tasks and examples.
    #[error(transparent)]
    Data(#[from] t2l_data::DataError),
    /// The base model.
    #[error(transparent)]
    Backbone(#[from] t2l_backbone::BackboneError),
    /// A description that cannot be encoded.
    #[error("a description scored for task {task:?}: {source}")]
    Description {
        /// The task.
        task: String,
        /// What is wrong with it.
        source: t2l_core::EncodeError,
    },
    /// An adapter or an output that is no number.
    #[error("task {task:?}: {what} is not finite")]
    NotFinite {
        /// The task.
        task: String,
        /// What is not, and under which condition.
        what: String,
    },
    /// Adapters.
    #[error(transparent)]
    Generate(#[from] t2l_core::GenerateError),
    /// Adapters that do not fit.
    #[error(transparent)]
    Fit(#[from] t2l_core::FitError),
}
