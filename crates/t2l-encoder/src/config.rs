//! What a checkpoint's config.json says, as the switches of one encoder stack.

use std::path::Path;

use serde::Deserialize;

use crate::EncoderError;
use crate::error::read_json;

/// How a model knows where a token stands.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Positions {
    /// A learned table; the first token reads row `first`.
    Learned {
        /// 0, or the padding id plus one in the RoBERTa family.
        first: usize,
    },
    /// Rotary embedding over half-split head dimensions.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
        /// NTK scaling, always on when configured.
        ntk: Option<Ntk>,
    },
}

/// NTK scaling of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ntk {
    /// Factor by which the context was stretched.
    pub factor: f64,
    /// Exponent of the mixed-base variant.
    pub mixed_b: Option<f64>,
}

/// Activation in the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// GELU with the error function.
    Gelu,
    /// GELU by the tanh formula.
    GeluTanh,
    /// ReLU.
    Relu,
    /// SiLU.
    Silu,
}

/// Names of the tensors, and with them the shape of attention and feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Naming {
    /// `encoder.layer.0.attention.self.query`, …: plain feed-forward.
    Bert,
    /// `encoder.layer.0.attention.qkv_proj`, …: gated feed-forward (GTE v1.5).
    Gte {
        /// Whether query, key and value are one tensor.
        packed_qkv: bool,
    },
}

/// Switches of the encoder stack.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; a divisor of the width.
    pub heads: usize,
    /// Inner width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation there.
    pub activation: Activation,
    /// Epsilon of all layer norms.
    pub layer_norm_eps: f64,
    /// Rows of the position table, or the length the model was trained for.
    pub max_position_embeddings: usize,
    /// Rows of the token-type table; 0 when there is none.
    pub type_vocab_size: usize,
    /// Id that pads short rows.
    pub padding: u32,
    /// Kind of position embedding.
    pub positions: Positions,
    /// Names of the tensors.
    pub naming: Naming,
}

#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tiny")]
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: Option<usize>,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeScaling>,
    layer_norm_type: Option<String>,
    pack_qkv: Option<bool>,
    #[serde(default)]
    logn_attention_scale: bool,
}

#[derive(Deserialize)]
struct RopeScaling {
    #[serde(alias = "rope_type")]
    r#type: String,
    factor: Option<f64>,
    mixed_b: Option<f64>,
}

fn gelu() -> String {
    "gelu".into()
}

fn tiny() -> f64 {
    1e-12
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// A file that is missing or no JSON, a family or a setting that is not supported, numbers that cannot be.
    pub fn read(path: &Path) -> Result<Self, EncoderError> {
        let file: File = read_json(path)?;
        let bad = |field, reason: String| Err(EncoderError::config(path, field, reason));
        let family = file.model_type.clone().unwrap_or_else(|| "bert".into());
        let gte = family == "new";
        if !gte && !matches!(family.as_str(), "bert" | "roberta" | "xlm-roberta" | "camembert") {
            return Err(EncoderError::UnsupportedFamily { path: path.to_owned(), model_type: family });
        }
        let padding = file.pad_token_id.unwrap_or(if matches!(family.as_str(), "bert" | "new") { 0 } else { 1 });
        // 2^24 is far above every published encoder and keeps products of two sizes inside 64 bits.
        for (field, value) in [
            ("vocab_size", file.vocab_size),
            ("hidden_size", file.hidden_size),
            ("num_hidden_layers", file.num_hidden_layers),
            ("num_attention_heads", file.num_attention_heads),
            ("intermediate_size", file.intermediate_size),
            ("max_position_embeddings", file.max_position_embeddings),
        ] {
            if value == 0 || value > 1 << 24 {
                return bad(field, format!("{value} is not between 1 and {}", 1 << 24));
            }
        }
        let type_vocab_size = file.type_vocab_size.unwrap_or(if gte { 0 } else { 2 });
        if type_vocab_size > 1 << 24 {
            return bad("type_vocab_size", format!("{type_vocab_size} is more than {}", 1 << 24));
        }
        if !file.hidden_size.is_multiple_of(file.num_attention_heads) {
            let reason = format!("{} do not divide hidden_size {}", file.num_attention_heads, file.hidden_size);
            return bad("num_attention_heads", reason);
        }
        if !(file.layer_norm_eps.is_finite() && (0.0..1.0).contains(&file.layer_norm_eps)) {
            return bad("layer_norm_eps", format!("{} is not in [0, 1)", file.layer_norm_eps));
        }
        let activation = match file.hidden_act.as_str() {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            other => return bad("hidden_act", format!("{other:?} is not supported")),
        };
        if let Some(other) = file.layer_norm_type.as_deref().filter(|&t| t != "layer_norm") {
            return bad("layer_norm_type", format!("{other:?} is not supported"));
        }
        if file.logn_attention_scale {
            return bad("logn_attention_scale", "true is not supported".into());
        }
        let kind = file.position_embedding_type.as_deref().unwrap_or(if gte { "rope" } else { "absolute" });
        let positions = match kind {
            "absolute" if matches!(family.as_str(), "bert" | "new") => Positions::Learned { first: 0 },
            "absolute" => Positions::Learned { first: (padding as usize).saturating_add(1) },
            "rope" if gte => rotary(path, &file)?,
            other => return bad("position_embedding_type", format!("{other:?} is not supported")),
        };
        if let Positions::Learned { first } = positions
            && first >= file.max_position_embeddings
        {
            return bad(
                "max_position_embeddings",
                format!("{} rows, the first token reads row {first}", file.max_position_embeddings),
            );
        }
        Ok(Self {
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            intermediate_size: file.intermediate_size,
            activation,
            layer_norm_eps: file.layer_norm_eps,
            max_position_embeddings: file.max_position_embeddings,
            type_vocab_size,
            padding,
            positions,
            naming: if gte { Naming::Gte { packed_qkv: file.pack_qkv.unwrap_or(true) } } else { Naming::Bert },
        })
    }

    /// Most tokens in a row: what a learned table has rows for; no limit of its own with rotary embeddings.
    pub fn position_limit(&self) -> usize {
        match self.positions {
            Positions::Learned { first } => self.max_position_embeddings.saturating_sub(first),
            Positions::Rotary { .. } => usize::MAX,
        }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }
}

fn rotary(path: &Path, file: &File) -> Result<Positions, EncoderError> {
    let positive = |field, value: f64| {
        let fits = value.is_finite() && value > 0.0;
        if fits { Ok(value) } else { Err(EncoderError::config(path, field, format!("{value} is not positive"))) }
    };
    if !(file.hidden_size / file.num_attention_heads).is_multiple_of(2) {
        return Err(EncoderError::config(path, "num_attention_heads", "rotary embeddings need an even head width"));
    }
    let theta = positive("rope_theta", file.rope_theta.unwrap_or(10_000.0))?;
    let ntk = match &file.rope_scaling {
        None => None,
        Some(scaling) if scaling.r#type == "ntk" => {
            let factor = positive("rope_scaling.factor", scaling.factor.unwrap_or(1.0))?;
            let mixed_b = scaling.mixed_b.map(|b| positive("rope_scaling.mixed_b", b)).transpose()?;
            Some(Ntk { factor, mixed_b })
        }
        Some(scaling) => {
            let reason = format!("{:?} is not supported", scaling.r#type);
            return Err(EncoderError::config(path, "rope_scaling.type", reason));
        }
    };
    Ok(Positions::Rotary { theta, ntk })
}
