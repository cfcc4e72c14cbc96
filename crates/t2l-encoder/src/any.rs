//! Whichever kind of encoder a folder or file holds.

use std::path::Path;

use burn::tensor::Device;
use serde::Deserialize;
use t2l_backbone::decoder::FAMILIES;
use t2l_core::{EncodeError, EncodedTexts, TextEncoder};

use crate::error::read_json;
use crate::sentence::Recipe;
use crate::{BertEncoder, Beside, EncoderError, InstructionEffects, LastTokenEncoder, QuotedWords};

/// An encoder of any kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "one per program")]
pub enum Encoder {
    /// Of the BERT family, or GTE.
    Bert(BertEncoder),
    /// The last token of a decoder language model.
    LastToken(LastTokenEncoder),
    /// Either of them, with the words that a text quotes beside.
    Quoting(Beside<QuotedWords>),
    /// Any of them, with what a text does to a language model as an instruction beside.
    Instructing(Beside<InstructionEffects>),
}

impl Encoder {
    /// Loads what `path` holds: a folder of the BERT family or GTE, a decoder's folder, or a decoder's GGUF file.
    ///
    /// # Errors
    /// As [`BertEncoder::load`] and [`LastTokenEncoder::load`].
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self, EncoderError> {
        let path = path.as_ref();
        if is_decoder(path)? {
            return Ok(Self::LastToken(LastTokenEncoder::load(path, device)?));
        }
        Ok(Self::Bert(BertEncoder::load(path, device)?))
    }

    /// The same encoder under the name by which checkpoints refer to it.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        match self {
            Self::Bert(encoder) => Self::Bert(encoder.with_id(id)),
            Self::LastToken(encoder) => Self::LastToken(encoder.with_id(id)),
            Self::Quoting(encoder) => Self::Quoting(encoder.with_id(id)),
            Self::Instructing(encoder) => Self::Instructing(encoder.with_id(id)),
        }
    }

    /// The same encoder with the words that a text quotes beside its vector.
    pub fn with_quoted_words(self, words: QuotedWords) -> Self {
        Self::Quoting(Beside::new(self, words))
    }

    /// The same encoder with what a text does to a language model as an instruction beside its vector.
    pub fn with_instruction_effects(self, effects: InstructionEffects) -> Self {
        Self::Instructing(Beside::new(self, effects))
    }

    fn inner(&self) -> &dyn TextEncoder {
        match self {
            Self::Bert(encoder) => encoder,
            Self::LastToken(encoder) => encoder,
            Self::Quoting(encoder) => encoder,
            Self::Instructing(encoder) => encoder,
        }
    }
}

impl TextEncoder for Encoder {
    fn id(&self) -> &str {
        self.inner().id()
    }

    fn width(&self) -> usize {
        self.inner().width()
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        self.inner().encode(texts)
    }
}

fn is_decoder(path: &Path) -> Result<bool, EncoderError> {
    #[derive(Deserialize)]
    struct Config {
        model_type: Option<String>,
    }
    if path.is_file() {
        return Ok(true);
    }
    let config: Config = read_json(&Recipe::read(path)?.model.join("config.json"))?;
    Ok(config.model_type.is_some_and(|family| FAMILIES.contains(&family.as_str())))
}
