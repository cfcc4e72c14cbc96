//! Encoders side by side.

use burn::tensor::Tensor;
use t2l_core::{EncodeError, EncodedTexts, TextEncoder};

use crate::Encoder;

/// An encoder under its own name, another's vector behind its own: `[texts, width + further width]`.
#[derive(Debug, Clone)]
pub struct Beside<E> {
    inner: Box<Encoder>,
    further: E,
}

impl<E> Beside<E> {
    pub(crate) fn new(inner: Encoder, further: E) -> Self {
        Self { inner: Box::new(inner), further }
    }

    pub(crate) fn with_id(self, id: impl Into<String>) -> Self {
        Self::new(self.inner.with_id(id), self.further)
    }
}

impl<E: TextEncoder> TextEncoder for Beside<E> {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn width(&self) -> usize {
        self.inner.width() + self.further.width()
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        let (first, second) = (self.inner.encode(texts)?, self.further.encode(texts)?);
        let truncated = first.truncated.iter().zip(second.truncated).map(|(a, b)| *a || b).collect();
        Ok(EncodedTexts { embeddings: Tensor::cat(vec![first.embeddings, second.embeddings], 1), truncated })
    }
}
