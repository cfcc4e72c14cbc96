//! The two halves of a generator: text to embedding, embedding to adapter.

use burn::tensor::Tensor;

use crate::{AdapterLayout, LoraFactors};

/// Task embeddings and what the encoder had to do to the texts.
#[derive(Debug, Clone)]
pub struct EncodedTexts {
    /// Task embeddings, L2-normalised and multiplied by `sqrt(width)`: `[texts, width]`.
    pub embeddings: Tensor<2>,
    /// For each text, whether it was cut at the encoder's token limit.
    pub truncated: Vec<bool>,
}

/// Why texts could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Nothing but white space.
    #[error("{} is empty", named(*index, *of))]
    Empty {
        /// Which of the texts, from 0.
        index: usize,
        /// How many texts there are.
        of: usize,
    },
    /// Longer than anything that can be meant as a description.
    #[error("{} has {bytes} bytes; at most {limit} are accepted", named(*index, *of))]
    TooLong {
        /// Which of the texts, from 0.
        index: usize,
        /// How many texts there are.
        of: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizer refused it.
    #[error("description {} cannot be tokenised: {reason}", index + 1)]
    Tokenize {
        /// Which of the texts, from 0.
        index: usize,
        /// The tokenizer's words.
        reason: String,
    },
    /// The model refused what some of them had become.
    #[error("the descriptions cannot be encoded: {reason}")]
    Model {
        /// The model's words.
        reason: String,
    },
}

/// One of several descriptions, or the only one.
fn named(index: usize, of: usize) -> String {
    if of == 1 { "the description".to_owned() } else { format!("description {}", index + 1) }
}

/// f(z): turns task descriptions into task embeddings.
pub trait TextEncoder {
    /// Name by which a hypernetwork's checkpoint refers to this encoder, e.g. `sentence-transformers/all-MiniLM-L6-v2`.
    fn id(&self) -> &str;

    /// Width `e` of an embedding.
    fn width(&self) -> usize;

    /// Encodes descriptions. A text's embedding does not depend on the others.
    ///
    /// # Errors
    /// An empty text, one over 64 KiB, or one that the tokenizer or the model refuses.
    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError>;
}

/// Why adapters could not be generated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Embeddings of another encoder.
    #[error("task embeddings are {found} wide, this hypernetwork reads {expected}")]
    Width {
        /// Width the generator was trained with.
        expected: usize,
        /// Width given.
        found: usize,
    },
    /// No task at all.
    #[error("no task embedding given")]
    NoTasks,
}

/// h_θ: turns task embeddings into LoRA factors for every module and layer.
pub trait AdapterGenerator {
    /// Where the adapters go.
    fn layout(&self) -> &AdapterLayout;

    /// Generates the adapters of all tasks. `task_embeddings`: `[tasks, e]`.
    ///
    /// # Errors
    /// No task, or embeddings of the wrong width.
    fn generate(&self, task_embeddings: Tensor<2>) -> Result<LoraFactors, GenerateError>;
}
