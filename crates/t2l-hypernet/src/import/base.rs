//! Widths of a base model's modules from its `config.json`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use t2l_core::files::read_at_most;

use super::args::CONFIG_LIMIT;
use super::error::{ImportError, printable};

/// The shapes that `config.json` of a decoder tells.
#[derive(Debug)]
pub(super) struct BaseConfig {
    path: PathBuf,
    sizes: Sizes,
}

#[derive(Debug, Deserialize)]
struct Sizes {
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
}

impl BaseConfig {
    pub fn load(path: &Path) -> Result<Self, ImportError> {
        let bytes = read_at_most(path, CONFIG_LIMIT).map_err(crate::HypernetError::io(path))?;
        let invalid = |e: serde_json::Error| ImportError::file(path, format!("is not a base model's config: {e}"));
        let mut config: Value = serde_json::from_slice(&bytes).map_err(invalid)?;
        // Models that also see keep the language model's shapes apart.
        if let Some(text) = config.get_mut("text_config").filter(|text| text.is_object()) {
            config = text.take();
        }
        Ok(Self { path: path.to_owned(), sizes: serde_json::from_value(config).map_err(invalid)? })
    }

    pub fn layers(&self) -> usize {
        self.sizes.num_hidden_layers
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// (in, out) of a module.
    pub fn widths(&self, module: &str) -> Result<(usize, usize), ImportError> {
        let s = &self.sizes;
        let too_large = || ImportError::file(&self.path, "has sizes that no model has");
        let head = match s.head_dim {
            Some(head) => head,
            None if s.num_attention_heads > 0 => s.hidden_size / s.num_attention_heads,
            None => return Err(ImportError::file(&self.path, "num_attention_heads is 0")),
        };
        let query = head.checked_mul(s.num_attention_heads).ok_or_else(too_large)?;
        let keys = s.num_key_value_heads.unwrap_or(s.num_attention_heads);
        let key = head.checked_mul(keys).ok_or_else(too_large)?;
        let doubled = |n: usize| n.checked_mul(2).ok_or_else(too_large);
        Ok(match module {
            "q_proj" => (s.hidden_size, query),
            "k_proj" | "v_proj" => (s.hidden_size, key),
            "qkv_proj" => (s.hidden_size, query.checked_add(doubled(key)?).ok_or_else(too_large)?),
            "o_proj" => (query, s.hidden_size),
            "gate_proj" | "up_proj" => (s.hidden_size, s.intermediate_size),
            "gate_up_proj" => (s.hidden_size, doubled(s.intermediate_size)?),
            "down_proj" => (s.intermediate_size, s.hidden_size),
            other => {
                let reason = format!("does not tell the widths of {}", printable(other));
                return Err(ImportError::file(&self.path, reason));
            }
        })
    }
}
