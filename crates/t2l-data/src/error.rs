//! Why tasks or examples cannot be used.

use std::path::{Path, PathBuf};

/// Why tasks or examples cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A list of tasks, splits or benchmarks that is not one.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An example that cannot be one.
    #[error("{}:{line}: {reason}", path.display())]
    Example {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A task that the folder does not have.
    #[error("{}: there is no {kind} {name:?}", path.display())]
    NoSuch {
        /// Where it was looked for.
        path: PathBuf,
        /// Task, benchmark or split.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// Benchmarks never enter training.
    #[error("{name:?} is a benchmark: benchmarks are never trained on")]
    Benchmark {
        /// The benchmark.
        name: String,
    },
    /// A prompt that the chat template or the tokenizer refuses.
    #[error("task {task:?}: {reason}")]
    Render {
        /// The task.
        task: String,
        /// What is wrong.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
