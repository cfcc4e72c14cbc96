//! Text to token ids and back, from a `tokenizer.json` or from the vocabulary inside a GGUF file.

mod error;
mod from_folder;
mod from_gguf;
mod growth;
mod pre_types;
mod sentencepiece;
mod stream;

#[cfg(test)]
mod tests;

pub use error::TokenizerError;
pub(crate) use from_folder::{read_object, token_text};
pub use stream::TextStream;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::Tokenizer;

/// A language model's tokenizer, with the ids of its special tokens.
#[derive(Debug, Clone)]
pub struct ModelTokenizer {
    inner: Tokenizer,
    specials: SpecialIds,
}

/// The ids that mean something to whoever generates text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Ids that end an answer: `eos` first, then the ends of a turn.
    stops: Vec<u32>,
}

impl SpecialIds {
    fn new(bos: Option<u32>, eos: Option<u32>, pad: Option<u32>, further_stops: &[u32]) -> Self {
        let mut stops = Vec::new();
        for id in eos.iter().chain(further_stops) {
            if !stops.contains(id) {
                stops.push(*id);
            }
        }
        Self { bos, eos, pad, stops }
    }
}

impl ModelTokenizer {
    /// The token ids of a text. Special tokens written out in the text are recognised; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_with(text, false)
    }

    /// The token ids of a text with whatever the model's own recipe puts around it, a beginning-of-sequence
    /// token for example.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_with(text, true)
    }

    fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = used(|| self.inner.encode_fast(text, add_special)).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids, without the special tokens when `skip_special`. Bytes that are no UTF-8
    /// become U+FFFD; ids outside the vocabulary are passed over.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        used(|| self.inner.decode(ids, skip_special)).map_err(TokenizerError::Decode)
    }

    /// Decodes token by token, giving out only whole characters.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// The id of a token spelled as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The vocabulary's spelling of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many tokens there are, special ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.specials.bos
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> Option<u32> {
        self.specials.eos
    }

    /// The padding token.
    pub fn pad(&self) -> Option<u32> {
        self.specials.pad
    }

    /// The tokens that end an answer: [`eos`](Self::eos) and the model's ends of a turn.
    pub fn stops(&self) -> &[u32] {
        &self.specials.stops
    }
}

/// A tokenizer.json that does not lengthen texts without reason.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    growth::check_growth(&serde_json::from_slice(bytes).map_err(|error| error.to_string())?)?;
    // The parser slices some strings without looking; a file that trips it is an invalid file.
    let parsed = catch_unwind(|| Tokenizer::from_bytes(bytes));
    parsed.map_err(|_| "is not a consistent tokenizer".to_owned())?.map_err(|error| error.to_string())
}

/// What the library makes of a text or of ids. Some descriptions of a tokenizer that parse make it panic when they are
/// used: a template that names a special token it does not define, or a decoder that strips more than there is.
fn used<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| "the tokenizer cannot be used as it stands".to_owned())?
        .map_err(|error| error.to_string())
}
