//! The switches in which decoder families differ, and where they are read from.

use std::path::Path;

use serde_json::{Map, Value};

use crate::BackboneError;
use crate::gguf::GgufFile;

/// Families by the `model_type` of config.json.
pub const FAMILIES: [&str; 7] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_text"];

/// How rotation frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3's: low frequencies divided by a factor, high ones kept, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than `original / low` are divided.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context length of the original training.
        original: f64,
    },
}

/// Activation of the gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`.
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

/// Which layers look back over a window only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sliding {
    /// None.
    Never,
    /// Every layer.
    Always,
    /// All but every `n`-th layer, counted from 1.
    AllButEvery(usize),
}

/// A decoder's shape and switches. One decoder covers every family; a family is a choice of these.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// `model_type`.
    pub family: String,
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Epsilon of every norm.
    pub norm_eps: f64,
    /// RoPE base frequency.
    pub rope_theta: f64,
    /// RoPE base frequency of sliding layers, where it differs.
    pub rope_local_theta: Option<f64>,
    /// RoPE scaling (of layers that do not slide).
    pub rope_scaling: RopeScaling,
    /// Longest context it was trained for.
    pub max_positions: usize,
    /// Biases on q, k, v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Norms on every query and key head.
    pub qk_norm: bool,
    /// Norms after attention and MLP too (Gemma).
    pub post_norms: bool,
    /// Norm weights stand for `1 + weight` (Gemma).
    pub norm_plus_one: bool,
    /// Embeddings multiplied by `sqrt(hidden)` (Gemma).
    pub scale_embeddings: bool,
    /// Output head is the embedding table.
    pub tied: bool,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Sliding window, in tokens.
    pub window: Option<usize>,
    /// Which layers it applies to.
    pub sliding: Sliding,
    /// What scores are multiplied by.
    pub attention_scale: f64,
    /// Soft cap on scores.
    pub attention_softcap: Option<f64>,
    /// Soft cap on logits.
    pub logit_softcap: Option<f64>,
}

impl DecoderConfig {
    /// The window of a layer, if it slides.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let slides = match self.sliding {
            Sliding::Never => false,
            Sliding::Always => true,
            Sliding::AllButEvery(n) => !(layer + 1).is_multiple_of(n),
        };
        self.window.filter(|_| slides)
    }

    /// Reads config.json.
    ///
    /// # Errors
    /// Not JSON, an unknown family, or numbers that no decoder can have.
    pub fn from_json(path: &Path) -> Result<Self, BackboneError> {
        let text = std::fs::read_to_string(path).map_err(BackboneError::io(path))?;
        let json: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| BackboneError::config(path, e.to_string()))?;
        let family = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !FAMILIES.contains(&family.as_str()) {
            return Err(BackboneError::UnsupportedFamily { path: path.to_owned(), family });
        }
        let r = Reader { path, json: &json };
        let gemma = family.starts_with("gemma");
        let heads = r.size("num_attention_heads")?;
        let hidden_size = r.size("hidden_size")?;
        let head_dim = match r.optional_size("head_dim")? {
            Some(d) => d,
            None if heads > 0 => hidden_size / heads,
            None => 0,
        };
        let bias = r.flag("attention_bias", family == "qwen2")?;
        let query_scalar = if gemma { r.optional_number("query_pre_attn_scalar")? } else { None };
        let window = r.optional_size("sliding_window")?;
        let sliding = match family.as_str() {
            "mistral" => Sliding::Always,
            "gemma2" => Sliding::AllButEvery(2),
            "gemma3" | "gemma3_text" => Sliding::AllButEvery(r.optional_size("sliding_window_pattern")?.unwrap_or(6)),
            "qwen2" | "qwen3" if r.flag("use_sliding_window", false)? => {
                return Err(BackboneError::config(path, "use_sliding_window is not supported for this family"));
            }
            _ => Sliding::Never,
        };
        Self {
            vocab_size: r.size("vocab_size")?,
            hidden_size,
            intermediate_size: r.size("intermediate_size")?,
            layers: r.size("num_hidden_layers")?,
            heads,
            kv_heads: r.optional_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            norm_eps: r.optional_number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: r.optional_number("rope_theta")?.unwrap_or(10_000.0),
            rope_local_theta: r.optional_number("rope_local_base_freq")?,
            rope_scaling: r.rope_scaling()?,
            max_positions: r.optional_size("max_position_embeddings")?.unwrap_or(2048),
            qkv_bias: bias,
            output_bias: bias && family != "qwen2",
            mlp_bias: r.flag("mlp_bias", false)?,
            qk_norm: matches!(family.as_str(), "qwen3" | "gemma3" | "gemma3_text"),
            post_norms: gemma,
            norm_plus_one: gemma,
            scale_embeddings: gemma,
            tied: r.flag("tie_word_embeddings", gemma)?,
            activation: r.activation()?,
            window,
            sliding,
            attention_scale: query_scalar.unwrap_or(head_dim as f64).powf(-0.5),
            attention_softcap: r.optional_number("attn_logit_softcapping")?,
            logit_softcap: r.optional_number("final_logit_softcapping")?,
            family,
        }
        .checked(path)
    }

    /// Reads GGUF metadata (`general.architecture` llama).
    ///
    /// # Errors
    /// An unknown architecture, missing metadata, or numbers that no decoder can have.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, BackboneError> {
        let family = file.str("general.architecture")?.to_owned();
        if family != "llama" {
            return Err(BackboneError::UnsupportedFamily { path: file.path().to_owned(), family });
        }
        let key = |name: &str| format!("{family}.{name}");
        let size = |name: &str| file.usize(&key(name));
        let heads = size("attention.head_count")?;
        let hidden_size = size("embedding_length")?;
        let head_dim = match file.get::<u32>(&key("attention.key_length"))? {
            Some(d) => d as usize,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        let vocabulary = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
        let scaling = match file.get::<&str>(&key("rope.scaling.type"))? {
            None | Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: f64::from(file.f32(&key("rope.scaling.factor"))?) },
            Some(other) => {
                return Err(BackboneError::config(file.path(), format!("RoPE scaling {other:?} is not supported")));
            }
        };
        Self {
            vocab_size: vocabulary,
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            layers: size("block_count")?,
            heads,
            kv_heads: file.get::<u32>(&key("attention.head_count_kv"))?.map_or(heads, |n| n as usize),
            head_dim,
            norm_eps: f64::from(file.f32(&key("attention.layer_norm_rms_epsilon"))?),
            rope_theta: file.get::<f32>(&key("rope.freq_base"))?.map_or(10_000.0, f64::from),
            rope_local_theta: None,
            rope_scaling: scaling,
            max_positions: size("context_length")?,
            qkv_bias: file.tensor("blk.0.attn_q.bias").is_some(),
            output_bias: file.tensor("blk.0.attn_output.bias").is_some(),
            mlp_bias: file.tensor("blk.0.ffn_gate.bias").is_some(),
            qk_norm: false,
            post_norms: false,
            norm_plus_one: false,
            scale_embeddings: false,
            tied: file.tensor("output.weight").is_none(),
            activation: Activation::Silu,
            window: None,
            sliding: Sliding::Never,
            attention_scale: (head_dim as f64).powf(-0.5),
            attention_softcap: None,
            logit_softcap: None,
            family,
        }
        .checked(file.path())
    }

    fn checked(self, path: &Path) -> Result<Self, BackboneError> {
        let sizes = [
            ("vocabulary", self.vocab_size, 1 << 22),
            ("hidden size", self.hidden_size, 1 << 17),
            ("intermediate size", self.intermediate_size, 1 << 19),
            ("number of layers", self.layers, 1 << 10),
            ("number of heads", self.heads, 1 << 12),
            ("number of key/value heads", self.kv_heads, 1 << 12),
            ("head width", self.head_dim, 1 << 12),
        ];
        for (what, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(BackboneError::config(path, format!("{what} is {value}; it must be from 1 to {limit}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            let (h, kv, d) = (self.heads, self.kv_heads, self.head_dim);
            return Err(BackboneError::config(
                path,
                format!("{h} heads of width {d} over {kv} key/value heads do not divide"),
            ));
        }
        let numbers = [self.norm_eps, self.rope_theta, self.attention_scale];
        if self.window == Some(0)
            || matches!(self.sliding, Sliding::AllButEvery(0))
            || numbers.iter().any(|x| !x.is_finite() || *x < 0.0)
        {
            return Err(BackboneError::config(path, "a window, epsilon, base frequency or scale is out of range"));
        }
        Ok(self)
    }
}

struct Reader<'a> {
    path: &'a Path,
    json: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, what: &str) -> BackboneError {
        BackboneError::config(self.path, format!("{key} is {}, not {what}", self.json.get(key).unwrap_or(&Value::Null)))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(key, "a size")),
        }
    }

    fn size(&self, key: &str) -> Result<usize, BackboneError> {
        self.optional_size(key)?.ok_or_else(|| BackboneError::config(self.path, format!("{key} is missing")))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    fn activation(&self) -> Result<Activation, BackboneError> {
        let name = ["hidden_activation", "hidden_act"].iter().find_map(|k| self.value(k)).and_then(Value::as_str);
        match name {
            None | Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(BackboneError::config(self.path, format!("activation {other:?} is not supported"))),
        }
    }

    fn rope_scaling(&self) -> Result<RopeScaling, BackboneError> {
        let Some(value) = self.value("rope_scaling") else { return Ok(RopeScaling::None) };
        let json = value.as_object().ok_or_else(|| self.wrong("rope_scaling", "an object"))?;
        let kind = ["rope_type", "type"].iter().find_map(|k| json.get(*k)).and_then(Value::as_str).unwrap_or("default");
        let number = |key: &str| {
            let number = json.get(key).and_then(Value::as_f64).filter(|n| n.is_finite() && *n > 0.0);
            number
                .ok_or_else(|| BackboneError::config(self.path, format!("rope_scaling.{key} is not a positive number")))
        };
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            }),
            other => Err(BackboneError::config(self.path, format!("RoPE scaling {other:?} is not supported"))),
        }
    }
}
