//! From texts to token ids, cut at the model's limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::Deserialize;
use t2l_backbone::tokenizer::parse;
use t2l_core::files::read_at_most;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Encoding, Tokenizer, TruncationParams};

use crate::EncoderError;
use crate::error::{SMALL, read_json_if_there};

/// One text's ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub ids: Vec<u32>,
    /// Whether more text followed.
    pub truncated: bool,
}

/// A tokenizer that cuts at a fixed length.
#[derive(Debug, Clone)]
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    vocab_size: usize,
    lower_case: bool,
}

impl TextTokenizer {
    /// From tokenizer.json, or vocab.txt (WordPiece) when there is none.
    pub fn load(
        folder: &Path,
        max_seq_length: usize,
        vocab_size: usize,
        lower_case: bool,
    ) -> Result<Self, EncoderError> {
        let (json, vocabulary) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
        let (path, mut tokenizer) = if json.exists() || !vocabulary.exists() {
            let bytes = read_at_most(&json, SMALL).map_err(|e| EncoderError::io(&json, e))?;
            let tokenizer = parse(&bytes).map_err(|e| EncoderError::tokenizer(&json, e))?;
            (json, tokenizer)
        } else {
            let tokenizer = word_piece(folder, &vocabulary)?;
            (vocabulary, tokenizer)
        };
        let vocab = tokenizer.get_vocab(true);
        if let Some((token, id)) = vocab.iter().max_by_key(|(_, id)| **id).filter(|(_, id)| **id as usize >= vocab_size)
        {
            let reason = format!("token {token:?} has id {id}, the model has {vocab_size} rows");
            return Err(EncoderError::tokenizer(&path, reason));
        }
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| EncoderError::tokenizer(&path, e))?;
        let special = encode(&tokenizer, "", vocab_size).map_err(|e| EncoderError::tokenizer(&path, e))?;
        let special = special.get_ids().len();
        if max_seq_length <= special {
            let reason = format!("{special} special tokens leave no room in max_seq_length {max_seq_length}");
            return Err(EncoderError::tokenizer(&path, reason));
        }
        let cut = TruncationParams { max_length: max_seq_length, ..Default::default() };
        tokenizer.with_truncation(Some(cut)).map_err(|e| EncoderError::tokenizer(&path, e))?;
        Ok(Self { tokenizer, vocab_size, lower_case })
    }

    /// Tokenises one text; the error is the tokenizer's own words.
    pub fn encode(&self, text: &str) -> Result<Tokens, String> {
        let lower;
        let text = if self.lower_case {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        let encoding = encode(&self.tokenizer, text, self.vocab_size)?;
        if encoding.get_ids().is_empty() {
            return Err("no token in it".into());
        }
        Ok(Tokens { ids: encoding.get_ids().to_vec(), truncated: !encoding.get_overflowing().is_empty() })
    }
}

/// Tokenises, special tokens included. Some descriptions of a tokenizer that parse give ids its own vocabulary lacks, or
/// make the library panic when used: a template that names a special token it does not define, for example.
fn encode(tokenizer: &Tokenizer, text: &str, vocab_size: usize) -> Result<Encoding, String> {
    let encoding = catch_unwind(AssertUnwindSafe(|| tokenizer.encode_fast(text, true)))
        .map_err(|_| "it cannot be used as it stands".to_owned())?
        .map_err(|e| e.to_string())?;
    match encoding.get_ids().iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(format!("it gives id {id}, the model has {vocab_size} rows")),
        None => Ok(encoding),
    }
}

/// BERT's own tokenizer: clean, split at white space and punctuation, greedy WordPiece, `[CLS] … [SEP]`.
fn word_piece(folder: &Path, path: &Path) -> Result<Tokenizer, EncoderError> {
    #[derive(Deserialize)]
    #[serde(default)]
    struct Options {
        do_lower_case: bool,
        tokenize_chinese_chars: bool,
        strip_accents: Option<bool>,
    }
    impl Default for Options {
        fn default() -> Self {
            Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
        }
    }
    let options: Options = read_json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let bad = |reason: &dyn std::fmt::Display| EncoderError::tokenizer(path, reason);
    let bytes = read_at_most(path, SMALL).map_err(|e| EncoderError::io(path, e))?;
    let vocab = WordPiece::read_bytes(&bytes).map_err(|e| bad(&e))?;
    let id = |token: &str| vocab.get(token).copied().ok_or_else(|| bad(&format!("{token} is missing")));
    let (cls, sep) = (("[CLS]".to_owned(), id("[CLS]")?), ("[SEP]".to_owned(), id("[SEP]")?));
    id("[UNK]")?;
    let specials: Vec<AddedToken> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter(|token| vocab.contains_key(*token))
        .map(|token| AddedToken::from(token, true))
        .collect();
    let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().map_err(|e| bad(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let lower = options.do_lower_case;
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, options.tokenize_chinese_chars, options.strip_accents, lower)))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(sep, cls)));
    tokenizer.add_special_tokens(&specials);
    Ok(tokenizer)
}
