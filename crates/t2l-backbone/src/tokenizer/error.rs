//! What can go wrong between text and token ids.

use std::path::PathBuf;

use t2l_gguf::GgufError;

/// What can go wrong between text and token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tokenizer file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GGUF file whose tokenizer is of a kind that is not built here.
    #[error("{}: the tokenizer {kind} is not supported; supported are {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The kind that the file names.
        kind: String,
        /// The kinds that are built here.
        supported: String,
    },
    /// The GGUF file itself is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Text that the tokenizer cannot encode.
    #[error("text cannot be encoded: {0}")]
    Encode(String),
    /// Token ids that the tokenizer cannot decode.
    #[error("token ids cannot be decoded: {0}")]
    Decode(String),
}
