//! Shape and switches from a config.json, with the defaults that transformers has for keys that are not there.

use std::path::Path;

use serde_json::{Map, Value};
use t2l_core::files::read_at_most;

use super::{Activation, DecoderConfig, FAMILIES, Sliding};
use crate::BackboneError;
use crate::weights::JSON_LIMIT;

impl DecoderConfig {
    /// Reads config.json.
    ///
    /// # Errors
    /// Not JSON, an unknown family, or numbers that no decoder can have.
    pub fn from_json(path: &Path) -> Result<Self, BackboneError> {
        let bytes = read_at_most(path, JSON_LIMIT).map_err(BackboneError::io(path))?;
        let json: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|e| BackboneError::config(path, e.to_string()))?;
        let family = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !FAMILIES.contains(&family.as_str()) {
            return Err(BackboneError::UnsupportedFamily { path: path.to_owned(), family });
        }
        let r = Reader { path, json: &json };
        let is = |name: &str| family.starts_with(name);
        let (gemma, phi3) = (is("gemma"), is("phi3"));
        let heads = r.size("num_attention_heads")?;
        let hidden_size = r.size("hidden_size")?;
        let layers = r.size("num_hidden_layers")?;
        let default_head_dim = match () {
            () if gemma => 256,
            () if is("qwen3") => 128,
            () => hidden_size.checked_div(heads).unwrap_or(0),
        };
        let head_dim = r.optional_size("head_dim")?.unwrap_or(default_head_dim);
        let bias = r.flag("attention_bias", false)?;
        let query_scalar = if gemma { r.optional_number("query_pre_attn_scalar")?.or(Some(256.0)) } else { None };
        // What a key that is absent stands for; null stands for none.
        let softcap = |key: &str, absent: f64| match json.contains_key(key) || !is("gemma2") {
            true if gemma => r.optional_number(key),
            true => Ok(None),
            false => Ok(Some(absent)),
        };
        let window = match json.contains_key("sliding_window") || !(gemma || is("mistral")) {
            true => r.optional_size("sliding_window")?,
            false => Some(4096),
        };
        let sliding = r.sliding(&family)?;
        let max_positions = r.optional_size("max_position_embeddings")?.unwrap_or(if phi3 { 4096 } else { 2048 });
        let rope = r.rope(&family, head_dim, max_positions)?;
        Self {
            vocab_size: r.size("vocab_size")?,
            hidden_size,
            intermediate_size: r.size("intermediate_size")?,
            layers,
            heads,
            kv_heads: r.optional_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            rotary_dim: rope.rotary_dim,
            fused: phi3,
            norm_eps: r.optional_number("rms_norm_eps")?.unwrap_or(if phi3 { 1e-5 } else { 1e-6 }),
            rope_theta: rope.theta,
            rope_local_theta: rope.local_theta,
            rope_scaling: rope.scaling,
            max_positions,
            // Qwen2 has them whatever the file says, Mistral and Phi-3 never.
            qkv_bias: is("qwen2") || bias && !is("mistral") && !phi3,
            output_bias: bias && !is("qwen2") && !is("mistral") && !phi3,
            mlp_bias: is("llama") && r.flag("mlp_bias", false)?,
            qk_norm: is("qwen3") || is("gemma3"),
            post_norms: gemma,
            norm_plus_one: gemma,
            scale_embeddings: gemma,
            tied: r.flag("tie_word_embeddings", gemma)?,
            activation: r.activation(gemma)?,
            window,
            sliding,
            attention_scale: query_scalar.unwrap_or(head_dim as f64).powf(-0.5),
            attention_softcap: softcap("attn_logit_softcapping", 50.0)?,
            logit_softcap: softcap("final_logit_softcapping", 30.0)?,
            family,
        }
        .checked(path)
    }
}

/// Typed access to one JSON object; errors name the file and the key.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) json: &'a Map<String, Value>,
}

impl Reader<'_> {
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn wrong(&self, key: &str, what: &str) -> BackboneError {
        BackboneError::config(self.path, format!("{key} is {}, not {what}", self.json.get(key).unwrap_or(&Value::Null)))
    }

    pub(super) fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, BackboneError> {
        Err(BackboneError::config(self.path, reason))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(key, "a size")),
        }
    }

    fn size(&self, key: &str) -> Result<usize, BackboneError> {
        self.optional_size(key)?.ok_or_else(|| BackboneError::config(self.path, format!("{key} is missing")))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number"))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, BackboneError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    fn activation(&self, gemma: bool) -> Result<Activation, BackboneError> {
        let (key, default) =
            if gemma { ("hidden_activation", Activation::GeluTanh) } else { ("hidden_act", Activation::Silu) };
        let Some(value) = self.value(key) else { return Ok(default) };
        match value.as_str() {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
            Some(other) => self.refuse(format!("activation {other:?} is not supported")),
            None => Err(self.wrong(key, "a name")),
        }
    }

    fn sliding(&self, family: &str) -> Result<Sliding, BackboneError> {
        // Newer files list every layer's kind.
        if let Some(kinds) = self.value("layer_types") {
            let kinds = kinds.as_array().ok_or_else(|| self.wrong("layer_types", "a list"))?;
            let marks = kinds.iter().map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => self.refuse(format!("layer type {kind} is not supported")),
            });
            return Ok(Sliding::Layers(marks.collect::<Result<_, _>>()?));
        }
        match family {
            "mistral" | "phi3" => Ok(Sliding::Always),
            "gemma2" => Ok(Sliding::AllButEvery(2)),
            "gemma3" | "gemma3_text" => {
                Ok(Sliding::AllButEvery(self.optional_size("sliding_window_pattern")?.unwrap_or(6)))
            }
            // Which layers slide has changed between versions of transformers.
            "qwen2" | "qwen3" if self.flag("use_sliding_window", false)? => {
                self.refuse("use_sliding_window without layer_types is not supported")
            }
            _ => Ok(Sliding::Never),
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, BackboneError> {
        self.value(key).map(|v| v.as_object().ok_or_else(|| self.wrong(key, "an object"))).transpose()
    }
}
