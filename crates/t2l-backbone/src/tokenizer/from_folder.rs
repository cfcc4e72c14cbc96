//! The tokenizer of a model folder: `tokenizer.json`, and beside it the small files that say which of
//! its tokens begin, end and pad a text.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};
use t2l_core::files::read_at_most;

use super::{ModelTokenizer, SpecialIds, TokenizerError, parse};

/// Longest `tokenizer.json` in bytes; those of vocabularies of a quarter million tokens have some 35 MB.
const LONGEST_TOKENIZER: u64 = 256 << 20;
/// Longest of the files beside it; with every added token listed they reach some 10 MB.
const LONGEST_OBJECT: u64 = 64 << 20;

impl ModelTokenizer {
    /// Reads a `tokenizer.json`. Special tokens come from `tokenizer_config.json`, else
    /// `special_tokens_map.json`, in the same folder; the ends of an answer also from
    /// `generation_config.json` and `config.json`. All of those may be missing.
    pub fn from_tokenizer_json(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let invalid = |reason: String| TokenizerError::Invalid { path: path.into(), reason };
        let bytes =
            read_at_most(path, LONGEST_TOKENIZER).map_err(|source| TokenizerError::Io { path: path.into(), source })?;
        let mut inner = parse(&bytes).map_err(invalid)?;
        // Lengths are the caller's business.
        inner.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        inner.with_padding(None);

        let folder = path.parent().unwrap_or(Path::new(""));
        let files = [read_object(folder, "tokenizer_config.json")?, read_object(folder, "special_tokens_map.json")?];
        let id = |key: &str| {
            let token = files.iter().flatten().find_map(|file| token_text(file.get(key)?))?;
            inner.token_to_id(token)
        };
        let mut stops = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            if let Some(file) = read_object(folder, name)? {
                stops.extend(file.get("eos_token_id").map(ids).unwrap_or_default());
            }
        }
        stops.retain(|&id| inner.id_to_token(id).is_some());
        let eos = id("eos_token").or(stops.first().copied());
        let specials = SpecialIds::new(id("bos_token"), eos, id("pad_token"), &stops);
        Ok(Self { inner, specials })
    }
}

/// A token is written as its text, or as an object that holds the text.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// An id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

/// The JSON object in a file of the folder; nothing when there is no such file.
pub(crate) fn read_object(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>, TokenizerError> {
    let path = folder.join(name);
    let bytes = match read_at_most(&path, LONGEST_OBJECT) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TokenizerError::Io { path, source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(object) => Ok(Some(object)),
        Err(error) => Err(TokenizerError::Invalid { path, reason: error.to_string() }),
    }
}
