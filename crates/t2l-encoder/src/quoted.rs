//! The words that a description quotes, as the base model itself has them.
//!
//! Which words to answer with mostly stands in quotation marks, and of their letters a sentence encoder keeps little (one
//! of lower-cased texts not even whether it is "Yes" or "yes"). So their tokens' embeddings can stand beside its vector.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use t2l_backbone::{BackboneError, TokenEmbeddings};
use t2l_core::{EncodeError, EncodedTexts, TextEncoder};

use crate::EncoderError;
use crate::encoder::check;

/// Words, and letters, of the longest quotation that is taken for words to use rather than for a text.
const LONGEST: (usize, usize) = (4, 60);
/// Letters of the longest one that is known for a quotation, and passed over.
const PASSED: usize = 1000;

/// Pairs of quotation marks.
const MARKS: &[(char, char)] =
    &[('"', '"'), ('“', '”'), ('„', '“'), ('«', '»'), ('「', '」'), ('`', '`'), ('\'', '\''), ('‘', '’')];

/// What a text quotes, from the first to the last: pieces of one to four words, and at most 60 letters, between quotation
/// marks.
///
/// ```
/// use t2l_encoder::quotations;
///
/// assert_eq!(quotations("Answer \"Yes\" or “No”, don't explain."), ["Yes", "No"]);
/// assert!(quotations("Questions such as \"What is 12 plus 4?\"").is_empty());
/// ```
pub fn quotations(text: &str) -> Vec<&str> {
    let (mut found, mut rest, mut before) = (Vec::new(), text, None);
    while let Some(mark) = rest.chars().next() {
        let after = &rest[mark.len_utf8()..];
        let close = MARKS.iter().find(|(open, _)| *open == mark && opens(mark, before, after)).map(|(_, close)| *close);
        let Some(inside) = close.and_then(|close| until(after, close)) else {
            (rest, before) = (after, Some(mark));
            continue;
        };
        let words = inside.split_whitespace().count();
        if (1..=LONGEST.0).contains(&words) && inside.chars().count() <= LONGEST.1 {
            found.push(inside.trim());
        }
        let mut end = after[inside.len()..].chars();
        before = end.next();
        rest = end.as_str();
    }
    found
}

/// Whether a mark opens a quotation: nothing that looks like its end, an apostrophe, or inches.
fn opens(mark: char, before: Option<char>, after: &str) -> bool {
    let next = after.chars().next();
    match mark {
        '«' => next.is_some(),
        '\'' | '‘' => next.is_some_and(|c| !c.is_whitespace()) && !before.is_some_and(char::is_alphanumeric),
        _ => next.is_some_and(|c| !c.is_whitespace()) && !before.is_some_and(char::is_numeric),
    }
}

/// What stands before the closing mark, which is none after a space, and where it may be an apostrophe none before a
/// letter.
fn until(text: &str, close: char) -> Option<&str> {
    let (mut chars, mut last) = (text.char_indices().peekable(), None);
    // What may be an apostrophe closes near or not at all.
    let most = if matches!(close, '\'' | '’') { LONGEST.1 } else { PASSED };
    for _ in 0..=most {
        let (at, c) = chars.next()?;
        let letter_follows = chars.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        let is_end = match close {
            '»' => true,
            '\'' | '’' => !letter_follows && last.is_some_and(|last: char| !last.is_whitespace()),
            _ => !last.is_some_and(char::is_whitespace),
        };
        if c == close && is_end {
            return Some(&text[..at]);
        }
        last = Some(c);
    }
    None
}

/// Turns what a text quotes into one vector: of the tokens of all that is quoted, tokenised as an answer begins, the sum of
/// the embeddings less the vocabulary's mean, each of length 1; scaled to length √width. Zeros where nothing is quoted.
#[derive(Debug, Clone)]
pub struct QuotedWords {
    embeddings: TokenEmbeddings,
    mean: Vec<f32>,
    device: Device,
}

impl QuotedWords {
    /// Reads the token embeddings of the language model in a folder or a GGUF file. Vectors are put on `device`.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of an unsupported family.
    pub fn load(path: &Path, device: &Device) -> Result<Self, EncoderError> {
        let embeddings = TokenEmbeddings::load(path)?;
        let mut sums = vec![0.0f64; embeddings.width()];
        let mut tokens = 0usize;
        for vector in embeddings.iter() {
            sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(x));
            tokens += 1;
        }
        let mean = sums.iter().map(|sum| (sum / tokens.max(1) as f64) as f32).collect();
        Ok(Self { embeddings, mean, device: device.clone() })
    }

    /// A text's vector.
    fn vector(&self, text: &str) -> Result<Vec<f32>, EncoderError> {
        let mut sum = vec![0.0f32; self.width()];
        for words in quotations(text) {
            for token in self.embeddings.tokenizer.encode(words).map_err(BackboneError::from)? {
                let missing = || EncoderError::Batch { reason: format!("the base model has no token {token}") };
                let centred: Vec<f32> =
                    self.embeddings.get(token).ok_or_else(missing)?.zip(&self.mean).map(|(x, mean)| x - mean).collect();
                let length = length(&centred);
                sum.iter_mut().zip(centred).for_each(|(sum, x)| *sum += x / length);
            }
        }
        let scale = (self.width() as f32).sqrt() / length(&sum);
        Ok(sum.into_iter().map(|x| x * scale).collect())
    }
}

impl TextEncoder for QuotedWords {
    fn id(&self) -> &str {
        "quoted words"
    }

    fn width(&self) -> usize {
        self.mean.len()
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        check(texts)?;
        let mut values = Vec::with_capacity(texts.len() * self.width());
        for (index, text) in texts.iter().enumerate() {
            let refused = |e: EncoderError| EncodeError::Tokenize { index, reason: e.to_string() };
            values.extend(self.vector(text).map_err(refused)?);
        }
        let values = TensorData::new(values, [texts.len(), self.width()]);
        let embeddings = Tensor::from_data(values, &self.device);
        Ok(EncodedTexts { embeddings, truncated: vec![false; texts.len()] })
    }
}

/// Euclidean length, never zero.
fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted() {
        let long = format!("\"{}\". Answer \"Yes\" or \"No\".", "long text ".repeat(12).trim());
        let cases: [(&str, &[&str]); 14] = [
            ("Answer \"Yes\" or \"No\".", &["Yes", "No"]),
            ("Write 'a' for it's and ‘b’ for others'.", &["a", "b"]),
            ("«oui» ou « non » ou `si`", &["oui", "non", "si"]),
            ("„ja“ oder „nein“", &["ja", "nein"]),
            ("回答“是”或\"否\"或「无」", &["是", "否", "无"]),
            ("from \"0 - definitely not\" to \"5 - perfectly\"", &["0 - definitely not", "5 - perfectly"]),
            ("such as \"What is 12 plus 4?\" and \"so\"", &["so"]),
            (&long, &["Yes", "No"]),
            ("the '90s: answer \"yes\"", &["yes"]),
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
        fn pieces_are_short_whatever_the_text(text in "[ab '\"“”„‘’`«»「」é是5]{0,300}") {
            for found in quotations(&text) {
                let words = found.split_whitespace().count();
                proptest::prop_assert!((1..=LONGEST.0).contains(&words) && found.chars().count() <= LONGEST.1, "{found}");
                proptest::prop_assert_eq!(found, found.trim());
            }
        }
    }
}
