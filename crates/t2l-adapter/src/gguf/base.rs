//! What must be known of the base model to write an adapter for llama.cpp.

use std::path::Path;

use serde_json::{Map, Value};
use t2l_gguf::GgufFile;

use super::keys;
use super::names::{Architecture, architecture, of_model_type};
use super::rows::Heads;
use crate::AdapterError;
use crate::files::read_small;

/// Longer configurations are not believed.
const BYTES_LIMIT: u64 = 4 << 20;
/// More heads are not believed.
const HEADS_LIMIT: usize = 1 << 16;
/// More query heads that share a key head are not believed: fused factors are as many times as large as those of a key head.
const SHARING_LIMIT: usize = 1 << 7;

/// The base model's architecture, as GGUF files call it, and its heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseShape {
    architecture: String,
    heads: usize,
    kv_heads: usize,
}

impl BaseShape {
    /// An architecture by its name in GGUF, with the numbers of query heads and of key heads.
    ///
    /// `None` for an architecture that is not known, no head, or heads that no model has.
    pub fn new(architecture: &str, heads: usize, kv_heads: usize) -> Option<Self> {
        super::names::architecture(architecture)?;
        check_heads(heads, kv_heads).ok()?;
        Some(Self { architecture: architecture.to_owned(), heads, kv_heads })
    }

    /// Reads it from a model: a folder with config.json, that file itself, or a GGUF file.
    ///
    /// # Errors
    /// A file that is missing or damaged, or a family whose names in GGUF are not known.
    pub fn read(model: &Path) -> Result<Self, AdapterError> {
        if model.is_dir() {
            return Self::from_config(&model.join("config.json"));
        }
        match model.extension() {
            Some(extension) if extension == "json" => Self::from_config(model),
            _ => Self::from_gguf(&GgufFile::open(model)?)?.ok_or_else(|| AdapterError::Config {
                path: model.to_owned(),
                reason: format!("has no {}", keys::HEADS),
            }),
        }
    }

    /// The architecture, as GGUF files call it.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Whether its checkpoints have q, k, v as one module, and gate and up (Phi-3).
    pub fn is_fused(&self) -> bool {
        super::names::architecture(&self.architecture).is_some_and(|a| a.fused)
    }

    pub(crate) fn query_heads(&self) -> usize {
        self.heads
    }

    pub(crate) fn key_heads(&self) -> usize {
        self.kv_heads
    }

    pub(super) fn known(&self, path: &Path) -> Result<&'static Architecture, AdapterError> {
        known(path, &self.architecture)
    }

    pub(super) fn heads(&self, which: Heads) -> usize {
        match which {
            Heads::Query => self.heads,
            Heads::Key => self.kv_heads,
        }
    }

    /// What a GGUF file says of itself; `None` when it does not say how many heads there are.
    pub(super) fn from_gguf(file: &GgufFile) -> Result<Option<Self>, AdapterError> {
        let name = file.str(keys::ARCHITECTURE)?;
        known(file.path(), name)?;
        let Some(heads) = file.get::<usize>(&format!("{name}.{}", keys::HEADS))? else { return Ok(None) };
        let kv_heads = file.get::<usize>(&format!("{name}.{}", keys::KV_HEADS))?.unwrap_or(heads);
        Self::checked(file.path(), name, heads, kv_heads).map(Some)
    }

    fn from_config(path: &Path) -> Result<Self, AdapterError> {
        let wrong = |reason: String| AdapterError::Config { path: path.to_owned(), reason };
        let bytes = read_small(path, BYTES_LIMIT)?;
        let outer: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        // Multimodal models have their language model's numbers inside.
        let inner = outer.get("text_config").and_then(Value::as_object).unwrap_or(&outer);
        let kind = inner.get("model_type").or(outer.get("model_type")).and_then(Value::as_str);
        let kind = kind.ok_or_else(|| wrong("has no model_type".into()))?;
        let known = of_model_type(kind).ok_or_else(|| unsupported(path, format!("model_type {kind:?}")))?;
        let count = |key: &str| match inner.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(n) => match n.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(wrong(format!("{key} must be a whole number"))),
            },
        };
        let heads = count("num_attention_heads")?.ok_or_else(|| wrong("has no num_attention_heads".into()))?;
        Self::checked(path, known.name, heads, count("num_key_value_heads")?.unwrap_or(heads))
    }

    fn checked(path: &Path, name: &str, heads: usize, kv_heads: usize) -> Result<Self, AdapterError> {
        check_heads(heads, kv_heads).map_err(|rule| AdapterError::Config {
            path: path.to_owned(),
            reason: format!("has {heads} heads and {kv_heads} key heads; {rule}"),
        })?;
        Ok(Self { architecture: name.to_owned(), heads, kv_heads })
    }
}

/// The rule that numbers of query heads and of key heads break, if they do.
fn check_heads(heads: usize, kv_heads: usize) -> Result<(), String> {
    if ![heads, kv_heads].iter().all(|n| (1..=HEADS_LIMIT).contains(n)) {
        return Err(format!("each must be from 1 to {HEADS_LIMIT}"));
    }
    if !heads.is_multiple_of(kv_heads) || heads / kv_heads > SHARING_LIMIT {
        return Err(format!("each key head must serve equally many heads, at most {SHARING_LIMIT}"));
    }
    Ok(())
}

pub(super) fn known(path: &Path, name: &str) -> Result<&'static Architecture, AdapterError> {
    architecture(name).ok_or_else(|| unsupported(path, format!("architecture {name:?}")))
}

fn unsupported(path: &Path, setting: String) -> AdapterError {
    AdapterError::Unsupported { path: path.to_owned(), setting }
}
