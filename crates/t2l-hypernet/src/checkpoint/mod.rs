//! Checkpoints of ours: `manifest.json` says what the hypernetwork is, `hypernet.safetensors` holds its tensors.
//!
//! The format is described in docs/formats.md. A manifest is believed only as far as the weights bear it out: every
//! size in it is compared with the tensors that are there before anything is made.

mod between;
mod read;
mod write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Conditioning, Hypernet, HypernetConfig};

/// Name of the manifest inside a checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the weights inside a checkpoint's folder.
pub const WEIGHTS: &str = "hypernet.safetensors";
/// Version of the format that this program writes. Older ones are read.
pub const VERSION: u32 = 1;

/// Value type of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

/// How prompts were rendered in training. Whoever uses the checkpoint renders them without a system turn too; the rest is
/// for information.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendering {
    /// Longest prompt and response together, in tokens.
    pub max_tokens: usize,
    /// Share of training examples shown without the task's instruction.
    pub input_share: f64,
    /// Whether there is a system turn. Ours have none.
    pub system_turn: bool,
}

/// A model that a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Hub id.
    pub id: String,
    /// Name that `t2l models` knows it by, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the file it was trained with, where there is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub version: u32,
    /// Program and version that wrote it.
    pub created_by: String,
    /// Shape of the hypernetwork, with the base model's id in its layout and the width of what it reads.
    pub config: HypernetConfig,
    /// The base model.
    pub base_model: ModelRef,
    /// The text encoder; another's embeddings mean nothing to this hypernetwork.
    pub encoder: ModelRef,
    /// Whether the words that a description quotes, in the base model's own embeddings, stand beside the encoder's vector.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quoted_words: bool,
    /// How prompts were rendered.
    pub rendering: Rendering,
    /// How it was trained; free form.
    #[serde(default)]
    pub recipe: serde_json::Value,
    /// SHA-256 of the weights file. [`Checkpoint::save`] fills it in.
    pub weights_sha256: String,
}

/// A hypernetwork with its manifest.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What it is.
    pub manifest: Manifest,
    /// The hypernetwork.
    pub hypernet: Hypernet,
}

impl Checkpoint {
    /// SHA-256 of the weights file it was loaded from; empty for one that was never stored.
    pub fn sha256(&self) -> &str {
        &self.manifest.weights_sha256
    }

    /// Lets a hypernetwork that was told of no quoted words read them behind its embedding, both together `read` wide: it goes
    /// on as though nothing were quoted. One that reads them already, or reads no embeddings, stays as it is.
    pub fn read_quoted_words(&mut self, read: usize) {
        let config = &self.hypernet.config;
        if self.manifest.quoted_words || !matches!(config.conditioning, Conditioning::Text | Conditioning::Input) {
            return;
        }
        self.hypernet.widen(read.saturating_sub(config.read_width()));
        self.manifest.quoted_words = true;
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
