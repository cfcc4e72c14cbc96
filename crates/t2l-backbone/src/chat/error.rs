//! What can go wrong when a conversation is written out.

use std::path::PathBuf;

use minijinja::ErrorKind;
use t2l_gguf::GgufError;

use super::{LONGEST, functions::Refusal};
use crate::tokenizer::TokenizerError;

/// What can go wrong when a conversation is written out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A model without a chat template.
    #[error("{}: has no chat template", .0.display())]
    NoTemplate(PathBuf),
    /// A file with a chat template that cannot be read or is malformed.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GGUF file that is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The files beside the template are wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The template is not valid Jinja.
    #[error("the chat template is not valid: {0}")]
    Syntax(String),
    /// The template itself rejects this conversation, for its order of roles for example.
    #[error("the chat template rejects the conversation: {0}")]
    Refused(String),
    /// The template takes too many steps.
    #[error("the chat template takes too many steps")]
    Endless,
    /// The template writes or builds too much.
    #[error("the chat template writes or builds more than {} MiB", LONGEST >> 20)]
    TooLong,
    /// The template fails for another reason.
    #[error("the chat template fails: {0}")]
    Render(String),
    /// The template mixes its default system turn with the conversation.
    #[error("the chat template's default system turn cannot be told apart from the conversation")]
    NotSeparable,
}

impl From<minijinja::Error> for ChatError {
    fn from(error: minijinja::Error) -> Self {
        let causes = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |cause| cause.source());
        for cause in causes {
            if let Some(Refusal(reason)) = cause.downcast_ref() {
                return Self::Refused(reason.clone());
            }
        }
        match error.kind() {
            ErrorKind::OutOfFuel => Self::Endless,
            ErrorKind::WriteFailure => Self::TooLong,
            ErrorKind::SyntaxError => Self::Syntax(error.to_string()),
            _ => Self::Render(error.to_string()),
        }
    }
}
