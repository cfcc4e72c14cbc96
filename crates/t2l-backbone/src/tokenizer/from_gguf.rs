//! The tokenizer that a GGUF file carries in its metadata, rebuilt with the same parts that a
//! `tokenizer.json` would name.

use std::collections::HashSet;

use t2l_gguf::GgufFile;
use tokenizers::{
    AddedToken, PostProcessorWrapper, Tokenizer,
    models::bpe::{BPE, BpeBuilder, Merges, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
    processors::template::TemplateProcessing,
};

use super::{ModelTokenizer, SpecialIds, TokenizerError, pre_types, pre_types::PreType, sentencepiece};

/// `tokenizer.ggml.token_type`: the kinds that matter when encoding.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Ends of a turn by their spelling: not every file has an id for them.
const ENDS_OF_TURN: [&str; 4] = ["<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>"];

/// Special tokens of Phi-3 that leave the white space after them alone.
const KEEP_SPACES: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

impl ModelTokenizer {
    /// Builds the tokenizer of a GGUF file: byte-level BPE (`gpt2`) with one of the known rules for
    /// cutting words, or SentencePiece with scores (`llama`).
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TokenizerError> {
        let source = Source { file, tokens: file.strings("tokenizer.ggml.tokens")? };
        source.check_unique()?;
        let mut inner = match file.str("tokenizer.ggml.model")? {
            "gpt2" => source.byte_level()?,
            "llama" => source.sentencepiece()?,
            kind => return Err(source.unsupported(format!("{kind:?}"), "gpt2 and llama")),
        };
        inner.add_special_tokens(&source.added_tokens()?);
        let specials = source.special_ids()?;
        if let Some(processor) = source.post_processor(&specials)? {
            inner.with_post_processor(Some(processor));
        }
        Ok(Self { inner, specials })
    }
}

/// A file and its vocabulary.
struct Source<'a> {
    file: &'a GgufFile,
    tokens: &'a [String],
}

impl Source<'_> {
    fn byte_level(&self) -> Result<Tokenizer, TokenizerError> {
        let name = self.file.str("tokenizer.ggml.pre")?;
        let Some(pre_type) = PreType::named(name) else {
            return Err(self.unsupported(format!("with the word rule {name:?}"), pre_types::NAMES));
        };
        let mut merges = Merges::new();
        for merge in self.file.strings("tokenizer.ggml.merges")? {
            // The halves may contain anything but a space, which bytes never stand for.
            let Some((left, right)) = merge.split_once(' ') else {
                return Err(self.invalid(format!("the merge {merge:?} has no two halves")));
            };
            merges.push((left.to_owned(), right.to_owned()));
        }
        let model = BPE::builder().vocab_and_merges(self.vocabulary(), merges);
        let mut tokenizer = self.build(model.ignore_merges(pre_type.whole_words_first()))?;
        tokenizer.with_normalizer(pre_type.normalizer());
        tokenizer.with_pre_tokenizer(Some(pre_type.pre_tokenizer().map_err(|e| self.invalid(e.to_string()))?));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }

    fn sentencepiece(&self) -> Result<Tokenizer, TokenizerError> {
        let scores: &[f32] = self.file.require("tokenizer.ggml.scores")?;
        if scores.len() != self.tokens.len() {
            return Err(self.invalid(format!("{} scores for {} tokens", scores.len(), self.tokens.len())));
        }
        let prefix_space = self.file.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let merges = sentencepiece::merges(self.tokens, scores);
        let mut model = BPE::builder().vocab_and_merges(self.vocabulary(), merges).byte_fallback(true).fuse_unk(true);
        if let Some(unknown) = self.special("unknown")?.and_then(|id| self.tokens.get(id as usize)) {
            model = model.unk_token(unknown.clone());
        }
        let mut tokenizer = self.build(model)?;
        let invalid = |error: tokenizers::Error| self.invalid(error.to_string());
        tokenizer.with_normalizer(Some(sentencepiece::normalizer(prefix_space).map_err(invalid)?));
        tokenizer.with_decoder(Some(sentencepiece::decoder(prefix_space).map_err(invalid)?));
        Ok(tokenizer)
    }

    fn build(&self, model: BpeBuilder) -> Result<Tokenizer, TokenizerError> {
        let model = model.build().map_err(|error| self.invalid(error.to_string()))?;
        Ok(Tokenizer::new(model))
    }

    fn vocabulary(&self) -> Vocab {
        self.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect()
    }

    fn check_unique(&self) -> Result<(), TokenizerError> {
        if u32::try_from(self.tokens.len()).is_err() {
            return Err(self.invalid(format!("{} tokens are more than ids can number", self.tokens.len())));
        }
        let mut seen = HashSet::with_capacity(self.tokens.len());
        match self.tokens.iter().find(|token| !seen.insert(token.as_str())) {
            Some(token) => Err(self.invalid(format!("the token {token:?} is in the vocabulary twice"))),
            None => Ok(()),
        }
    }

    /// Control tokens and tokens that users defined are cut out of a text before anything else.
    fn added_tokens(&self) -> Result<Vec<AddedToken>, TokenizerError> {
        let kinds: Vec<i64> = self.file.get("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !kinds.is_empty() && kinds.len() != self.tokens.len() {
            return Err(self.invalid(format!("{} token types for {} tokens", kinds.len(), self.tokens.len())));
        }
        let swallows = self.swallows_spaces()?;
        let added = self.tokens.iter().zip(kinds).filter(|(_, kind)| matches!(*kind, CONTROL | USER_DEFINED));
        Ok(added
            .map(|(token, kind)| {
                let rstrip = swallows && !KEEP_SPACES.contains(&token.as_str());
                AddedToken::from(token, kind == CONTROL).normalized(false).rstrip(rstrip)
            })
            .collect())
    }

    /// Whether special tokens take the white space after them along. Those of Phi-3's SentencePiece vocabulary do, which
    /// files do not say. (llama.cpp goes by whether the model's name contains "phi-3".)
    fn swallows_spaces(&self) -> Result<bool, TokenizerError> {
        let is = |key: &str, value: &str| Ok::<_, TokenizerError>(self.file.get::<&str>(key)? == Some(value));
        Ok(is("general.architecture", "phi3")? && is("tokenizer.ggml.model", "llama")?)
    }

    fn special_ids(&self) -> Result<SpecialIds, TokenizerError> {
        let ends = [self.special("eot")?, self.special("eom")?];
        let mut stops: Vec<u32> = ends.into_iter().flatten().collect();
        stops.extend((0..).zip(self.tokens).filter(|(_, t)| ENDS_OF_TURN.contains(&t.as_str())).map(|(id, _)| id));
        Ok(SpecialIds::new(self.special("bos")?, self.special("eos")?, self.special("padding")?, &stops))
    }

    fn special(&self, name: &str) -> Result<Option<u32>, TokenizerError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match self.file.get::<u32>(&key)? {
            Some(id) if id as usize >= self.tokens.len() => {
                Err(self.invalid(format!("{key} is {id}, but there are only {} tokens", self.tokens.len())))
            }
            id => Ok(id),
        }
    }

    /// Puts BOS in front, and EOS behind, of texts encoded with special tokens, when the file says so.
    fn post_processor(&self, specials: &SpecialIds) -> Result<Option<PostProcessorWrapper>, TokenizerError> {
        // SentencePiece models begin with BOS unless told otherwise.
        let by_default = self.file.str("tokenizer.ggml.model")? == "llama";
        let bos = self.file.get("tokenizer.ggml.add_bos_token")?.unwrap_or(by_default);
        let eos = self.file.get("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let token = |wanted: bool, id: Option<u32>| {
            let id = id.filter(|_| wanted)?;
            Some((self.tokens.get(id as usize)?.clone(), id))
        };
        let (bos, eos) = (token(bos, specials.bos), token(eos, specials.eos));
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let piece = |token: &Option<(String, u32)>| token.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>();
        let single: Vec<String> = [piece(&bos), vec!["$A".into()], piece(&eos)].concat();
        let tokens: Vec<(String, u32)> = bos.into_iter().chain(eos).collect();
        let processor = TemplateProcessing::builder()
            .try_single(single)
            .and_then(|builder| builder.special_tokens(tokens).build().map_err(|error| error.to_string()))
            .map_err(|error| self.invalid(error))?;
        Ok(Some(processor.into()))
    }

    fn invalid(&self, reason: String) -> TokenizerError {
        TokenizerError::Invalid { path: self.file.path().into(), reason }
    }

    fn unsupported(&self, kind: String, supported: &str) -> TokenizerError {
        TokenizerError::Unsupported { path: self.file.path().into(), kind, supported: supported.into() }
    }
}
