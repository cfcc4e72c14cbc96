//! The words that a description quotes, as the base model itself has them.
//!
//! Which words to answer with mostly stands in quotation marks, and of their letters a sentence encoder keeps little (one
//! of lower-cased texts not even whether it is "Yes" or "yes"). So their tokens' embeddings can stand beside its vector.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use t2l_backbone::TokenEmbeddings;
use t2l_core::{EncodeError, EncodedTexts, TextEncoder};

use crate::{Encoder, EncoderError};

/// Words of the longest quotation that is taken for words to use rather than for a text.
const WORDS: usize = 4;
/// Letters of the longest one.
const LETTERS: usize = 100;

/// Pairs of quotation marks.
const MARKS: &[(char, char)] = &[('"', '"'), ('“', '”'), ('\'', '\''), ('‘', '’'), ('«', '»'), ('`', '`')];

/// What a text quotes, from the first to the last: pieces of up to four words between quotation marks.
///
/// ```
/// use t2l_encoder::quotations;
///
/// assert_eq!(quotations("Answer \"Yes\" or “No”, don't explain."), ["Yes", "No"]);
/// assert!(quotations("Questions such as \"What is 12 plus 4?\"").is_empty());
/// ```
pub fn quotations(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(mark) = rest.chars().next() {
        let after = &rest[mark.len_utf8()..];
        // Between letters it is an apostrophe.
        let opens = !before.is_some_and(char::is_alphanumeric);
        let close = MARKS.iter().find(|(open, _)| *open == mark && opens).map(|(_, close)| *close);
        if let Some(inside) = close.and_then(|close| until(after, close)) {
            let words = inside.split_whitespace().count();
            if (1..=WORDS).contains(&words) {
                found.push(inside);
            }
            let end = &after[inside.len()..];
            let closing = end.chars().next();
            (rest, before) = (&end[closing.map_or(0, char::len_utf8)..], closing);
        } else {
            (rest, before) = (after, Some(mark));
        }
    }
    found
}

/// What stands before the closing mark, which is one only where no letter follows.
fn until(text: &str, close: char) -> Option<&str> {
    let mut chars = text.char_indices().take(LETTERS).peekable();
    while let Some((at, c)) = chars.next() {
        if c == close && !chars.peek().is_some_and(|(_, next)| next.is_alphanumeric()) {
            return Some(&text[..at]);
        }
    }
    None
}

/// Turns what a text quotes into one vector.
#[derive(Debug, Clone)]
pub struct QuotedWords {
    embeddings: TokenEmbeddings,
    mean: Vec<f32>,
}

impl QuotedWords {
    /// Reads the token embeddings of the language model in a folder or a GGUF file.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of an unsupported family.
    pub fn load(path: &Path) -> Result<Self, EncoderError> {
        let embeddings = TokenEmbeddings::load(path)?;
        let mut sums = vec![0.0f64; embeddings.width()];
        let mut tokens = 0usize;
        for vector in embeddings.iter() {
            sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
            tokens += 1;
        }
        let mean = sums.iter().map(|sum| (sum / tokens.max(1) as f64) as f32).collect();
        Ok(Self { embeddings, mean })
    }

    /// Values of a vector: the language model's width.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The mean of the tokens of all that is quoted, tokenised as an answer begins: their embeddings less the vocabulary's
    /// mean, each of length 1; the whole scaled to length √width. Zeros where nothing is quoted.
    ///
    /// # Errors
    /// A quotation that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<f32>, EncoderError> {
        let mut sum = vec![0.0f32; self.width()];
        for words in quotations(text) {
            let tokens = self.embeddings.tokenizer.encode(words).map_err(t2l_backbone::BackboneError::from)?;
            for vector in tokens.into_iter().filter_map(|token| self.embeddings.get(token)) {
                let centred: Vec<f32> = vector.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
                let length = length(&centred);
                sum.iter_mut().zip(centred).for_each(|(sum, x)| *sum += x / length);
            }
        }
        let scale = (self.width() as f32).sqrt() / length(&sum);
        Ok(sum.into_iter().map(|x| x * scale).collect())
    }
}

/// Euclidean length, never zero.
fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6)
}

/// Another encoder's vector with that of the quoted words beside it.
#[derive(Debug, Clone)]
pub struct QuotingEncoder {
    pub(crate) inner: Box<Encoder>,
    pub(crate) words: QuotedWords,
}

impl TextEncoder for QuotingEncoder {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn width(&self) -> usize {
        self.inner.width() + self.words.width()
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        let EncodedTexts { embeddings, truncated } = self.inner.encode(texts)?;
        let mut values = Vec::with_capacity(texts.len() * self.words.width());
        for (index, text) in texts.iter().enumerate() {
            let refused = |e: EncoderError| EncodeError::Tokenize { index, reason: e.to_string() };
            values.extend(self.words.encode(text).map_err(refused)?);
        }
        let words = TensorData::new(values, [texts.len(), self.words.width()]);
        let words = Tensor::<2>::from_data(words, &embeddings.device());
        Ok(EncodedTexts { embeddings: Tensor::cat(vec![embeddings, words], 1), truncated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted() {
        let cases: [(&str, &[&str]); 10] = [
            ("Answer \"Yes\" or \"No\".", &["Yes", "No"]),
            ("Write 'a' for it's and \u{2018}b\u{2019} for others'.", &["a", "b"]),
            ("«oui» ou `non`", &["oui", "non"]),
            ("from \"0 - definitely not\" to \"5 - perfectly\"", &["0 - definitely not", "5 - perfectly"]),
            ("such as \"What is 12 plus 4?\" and \"so\"", &["so"]),
            ("the dogs' and the cats' food", &[]),
            ("an open \"end", &[]),
            ("\"\" and \" \"", &[]),
            ("5\" by 6\"", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(quotations(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_searched(text in "[a '\"“”‘’`«»é]{0,40}") {
            for found in quotations(&text) {
                proptest::prop_assert!(text.contains(found) && !found.trim().is_empty());
            }
        }
    }
}
