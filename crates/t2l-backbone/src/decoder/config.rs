//! The switches in which decoder families differ; `json` and `gguf` read them.

mod gguf;
mod json;
mod rope;

use std::path::Path;

pub use rope::RopeScaling;

use crate::BackboneError;

/// Families by the `model_type` of config.json.
pub const FAMILIES: [&str; 8] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_text", "phi3"];

/// Longest context in tokens that a RoPE scaling factor may make.
const LONGEST_SCALED: usize = 1 << 24;

/// Activation of the gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x·σ(x)`.
    Silu,
    /// `x·Φ(x)`.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

/// Which layers look back over a window only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sliding {
    /// None.
    Never,
    /// Every layer.
    Always,
    /// All but every `n`-th layer, counted from 1.
    AllButEvery(usize),
    /// Those marked; as many marks as layers.
    Layers(Vec<bool>),
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
    /// How much of a head RoPE turns, from its start; the rest passes (Phi-4-mini).
    pub rotary_dim: usize,
    /// Checkpoints hold q, k, v as one `qkv_proj` and gate, up as one `gate_up_proj` (Phi-3).
    pub fused: bool,
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
    /// The shape of SmolLM2-135M: a small Llama, for benches and examples that need no file.
    pub fn smollm2_135m() -> Self {
        Self {
            family: "llama".into(),
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            rotary_dim: 64,
            fused: false,
            norm_eps: 1e-5,
            rope_theta: 100_000.0,
            rope_local_theta: None,
            rope_scaling: RopeScaling::None,
            max_positions: 8192,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            post_norms: false,
            norm_plus_one: false,
            scale_embeddings: false,
            tied: true,
            activation: Activation::Silu,
            window: None,
            sliding: Sliding::Never,
            attention_scale: 0.125,
            attention_softcap: None,
            logit_softcap: None,
        }
    }

    /// Longest context it can be asked for: the trained one, or what RoPE scaling makes of it.
    pub fn longest_context(&self) -> usize {
        self.rope_scaling.longest(self.max_positions)
    }

    /// How long the longest row of a batch may be for RoPE frequencies not to depend on it, in tokens. Beyond (dynamic,
    /// LongRoPE) a row's states depend on the batch it is in, and cached ones are not those of a longer row.
    pub fn steady_context(&self) -> usize {
        self.rope_scaling.steady().unwrap_or(usize::MAX)
    }

    /// Number of weights, norms and biases left out.
    pub fn parameters(&self) -> usize {
        let attention = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden_size;
        let mlp = 3 * self.intermediate_size * self.hidden_size;
        let tables = if self.tied { 1 } else { 2 };
        tables * self.vocab_size * self.hidden_size + self.layers * (attention + mlp)
    }

    /// The window of a layer, if it slides.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let slides = match &self.sliding {
            Sliding::Never => false,
            Sliding::Always => true,
            Sliding::AllButEvery(n) => !(layer + 1).is_multiple_of(*n),
            Sliding::Layers(marks) => marks.get(layer).copied().unwrap_or(false),
        };
        self.window.filter(|_| slides)
    }

    /// Refuses what no decoder can have, before anything is allocated for it. `path` is for the error.
    pub(super) fn checked(self, path: &Path) -> Result<Self, BackboneError> {
        let wrong = |reason: String| Err(BackboneError::config(path, reason));
        let sizes = [
            ("vocabulary", self.vocab_size, 1 << 22),
            ("hidden size", self.hidden_size, 1 << 17),
            ("intermediate size", self.intermediate_size, 1 << 19),
            ("number of layers", self.layers, 1 << 10),
            ("number of heads", self.heads, 1 << 12),
            ("number of key/value heads", self.kv_heads, 1 << 12),
            ("head width", self.head_dim, 1 << 12),
            ("context length", self.max_positions, 1 << 30),
        ];
        for (what, value, limit) in sizes {
            if value == 0 || value > limit {
                return wrong(format!("{what} is {value}; it must be from 1 to {limit}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            let (h, kv, d) = (self.heads, self.kv_heads, self.head_dim);
            return wrong(format!("{h} heads of width {d} over {kv} key/value heads do not divide"));
        }
        if self.rotary_dim == 0 || self.rotary_dim > self.head_dim || !self.rotary_dim.is_multiple_of(2) {
            let (r, d) = (self.rotary_dim, self.head_dim);
            return wrong(format!("RoPE turns {r} of the {d} values of a head; it must be an even number of them"));
        }
        if !self.norm_eps.is_finite() || self.norm_eps < 0.0 {
            return wrong(format!("norm epsilon {} is out of range", self.norm_eps));
        }
        let positive = [
            ("RoPE base frequency", Some(self.rope_theta)),
            ("local RoPE base frequency", self.rope_local_theta),
            ("attention scale", Some(self.attention_scale)),
            ("attention soft cap", self.attention_softcap),
            ("logit soft cap", self.logit_softcap),
        ];
        for (what, value) in positive {
            if let Some(x) = value.filter(|x| !x.is_finite() || *x <= 0.0) {
                return wrong(format!("{what} is {x}; it must be positive"));
            }
        }
        match &self.sliding {
            _ if self.window == Some(0) => return wrong("the sliding window is empty".into()),
            Sliding::AllButEvery(0) => return wrong("every 0th layer is to see everything".into()),
            Sliding::Layers(marks) if marks.len() != self.layers => {
                return wrong(format!("{} layer types for {} layers", marks.len(), self.layers));
            }
            _ => {}
        }
        if !self.rope_scaling.fits(self.rotary_dim) {
            return wrong(format!("RoPE scaling {:?} is out of range", self.rope_scaling));
        }
        if let RopeScaling::Dynamic { factor, original } | RopeScaling::Yarn { factor, original, .. } =
            self.rope_scaling
            && factor * original > LONGEST_SCALED as f64
        {
            return wrong(format!(
                "RoPE scaling factor {factor} makes a context of {original} tokens longer than {LONGEST_SCALED}"
            ));
        }
        Ok(self)
    }
}
