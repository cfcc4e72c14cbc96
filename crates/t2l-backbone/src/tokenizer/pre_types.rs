//! How byte-level vocabularies cut text into words before merging: GGUF files only name the rule
//! (`tokenizer.ggml.pre`), so the rules are listed here, as the models' own `tokenizer.json` have them.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, Result, SplitDelimiterBehavior,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// The names that [`PreType::named`] knows.
pub(super) const NAMES: &str = "gpt-2, smollm, starcoder, llama-bpe, qwen2, tekken";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way to cut text into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PreType {
    /// The regular expression of GPT-2.
    Gpt2,
    /// Every digit on its own, then as GPT-2: so white space before a digit stays apart.
    DigitsThenGpt2,
    /// One regular expression with up to three digits together.
    Llama3,
    /// The same with single digits, on text in Unicode normal form C.
    Qwen2,
    /// Mistral's: words are also cut where the case changes.
    Tekken,
}

impl PreType {
    /// The rule with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gpt-2" | "gpt2" => Self::Gpt2,
            "smollm" | "starcoder" => Self::DigitsThenGpt2,
            "llama-bpe" | "llama3" | "llama-v3" => Self::Llama3,
            "qwen2" => Self::Qwen2,
            "tekken" => Self::Tekken,
            _ => return None,
        })
    }

    /// Whether a word that is in the vocabulary as a whole is taken without merging.
    pub(super) fn whole_words_first(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    pub(super) fn normalizer(self) -> Option<NormalizerWrapper> {
        (self == Self::Qwen2).then(|| NFC.into())
    }

    pub(super) fn pre_tokenizer(self) -> Result<PreTokenizerWrapper> {
        let by_gpt2 = ByteLevel::new(false, true, true);
        let bytes_only = ByteLevel::new(false, true, false);
        let split = |pattern: &str| -> Result<PreTokenizerWrapper> {
            let pattern = SplitPattern::Regex(pattern.into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
            Ok(Sequence::new(vec![split.into(), bytes_only.into()]).into())
        };
        match self {
            Self::Gpt2 => Ok(by_gpt2.into()),
            Self::DigitsThenGpt2 => Ok(Sequence::new(vec![Digits::new(true).into(), by_gpt2.into()]).into()),
            Self::Llama3 => split(LLAMA3),
            Self::Qwen2 => split(QWEN2),
            Self::Tekken => split(TEKKEN),
        }
    }
}
