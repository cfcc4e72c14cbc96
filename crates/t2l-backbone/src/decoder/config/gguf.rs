//! Shape and switches from a GGUF file's metadata.

use t2l_gguf::GgufFile;

use super::{Activation, DecoderConfig, RopeScaling, Sliding};
use crate::BackboneError;

/// Tensor of frequency divisors: how llama.cpp writes Llama 3's scaling.
const DIVISORS: &str = "rope_freqs.weight";

impl DecoderConfig {
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
        let optional_size = |name: &str| file.get::<u32>(&key(name)).map(|n| n.map(|n| n as usize));
        let heads = size("attention.head_count")?;
        let hidden_size = size("embedding_length")?;
        let head_dim = match optional_size("attention.key_length")? {
            Some(d) => d,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = optional_size(name)?.filter(|&d| d != head_dim) {
                let reason = format!("{} is {found}; only the head width, {head_dim}, is supported", key(name));
                return Err(BackboneError::config(file.path(), reason));
            }
        }
        let vocabulary = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
        Self {
            vocab_size: vocabulary,
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            layers: size("block_count")?,
            heads,
            kv_heads: optional_size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            rotary_dim: head_dim,
            fused: false,
            norm_eps: f64::from(file.f32(&key("attention.layer_norm_rms_epsilon"))?),
            rope_theta: file.get::<f32>(&key("rope.freq_base"))?.map_or(10_000.0, f64::from),
            rope_local_theta: None,
            rope_scaling: rope_scaling(file, &family, head_dim)?,
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
}

fn rope_scaling(file: &GgufFile, family: &str, head_dim: usize) -> Result<RopeScaling, BackboneError> {
    let factor = match file.get::<&str>(&format!("{family}.rope.scaling.type"))? {
        None | Some("none") => None,
        Some("linear") => Some(file.f32(&format!("{family}.rope.scaling.factor"))?),
        Some(other) => {
            return Err(BackboneError::config(file.path(), format!("RoPE scaling {other:?} is not supported")));
        }
    };
    let Some(divisors) = file.tensor(DIVISORS) else {
        return Ok(factor.map_or(RopeScaling::None, |f| RopeScaling::Linear { factor: f64::from(f) }));
    };
    if divisors.shape != [head_dim / 2] {
        let reason = format!("has shape {:?}, heads of width {head_dim} ask for [{}]", divisors.shape, head_dim / 2);
        return Err(BackboneError::tensor(file.path(), DIVISORS, reason));
    }
    let divisors = file.read_f32(DIVISORS)?;
    Ok(RopeScaling::Divisors(divisors.into_iter().map(|d| d * factor.unwrap_or(1.0)).collect()))
}
