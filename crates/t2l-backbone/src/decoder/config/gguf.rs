//! Shape and switches from a GGUF file's metadata.

mod rope;
#[cfg(test)]
mod tests;

use t2l_gguf::GgufFile;

use super::{Activation, DecoderConfig, Sliding};
use crate::BackboneError;
use rope::Rotated;

/// Families by `general.architecture`. Mistral's models are llama there.
const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

impl DecoderConfig {
    /// Reads GGUF metadata.
    ///
    /// # Errors
    /// An unknown architecture, missing metadata, or numbers that no decoder can have.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, BackboneError> {
        let family = file.str("general.architecture")?.to_owned();
        if !ARCHITECTURES.contains(&family.as_str()) {
            return Err(BackboneError::UnsupportedFamily { path: file.path().to_owned(), family });
        }
        let (gemma, phi3) = (family.starts_with("gemma"), family == "phi3");
        let key = |name: &str| format!("{family}.{name}");
        let size = |name: &str| file.usize(&key(name));
        let optional_size = |name: &str| file.get::<u32>(&key(name)).map(|n| n.map(|n| n as usize));
        let number = |name: &str| file.get::<f32>(&key(name)).map(|x| x.map(f64::from));
        let has = |tensor: &str| file.tensor(tensor).is_some();
        let heads = size("attention.head_count")?;
        let hidden_size = size("embedding_length")?;
        let layers = size("block_count")?;
        let head_dim = match optional_size("attention.key_length")? {
            Some(d) => d,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        let rotary_dim = optional_size("rope.dimension_count")?.unwrap_or(head_dim);
        for (name, found) in [
            ("attention.value_length", optional_size("attention.value_length")?.unwrap_or(head_dim)),
            // Only Phi-3 leaves a part of every head as it is.
            ("rope.dimension_count", if phi3 { head_dim } else { rotary_dim }),
        ] {
            if found != head_dim {
                let reason = format!("{} is {found}; only the head width, {head_dim}, is supported", key(name));
                return Err(BackboneError::config(file.path(), reason));
            }
        }
        let vocabulary = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
        // The largest Gemmas scale by the width of the stream over their heads; the file does not say so.
        let scaled_width = match (family.as_str(), layers) {
            ("gemma2", 46) | ("gemma3", 62) => hidden_size.checked_div(heads).unwrap_or(0),
            _ => head_dim,
        };
        // Of the others no layer slides in llama.cpp, whatever a file says. Phi-3's do not slide there either, but do in
        // transformers, which its files mean.
        let (window, pattern) = match family.as_str() {
            "gemma2" => (Some(optional_size("attention.sliding_window")?.unwrap_or(4096)), Sliding::AllButEvery(2)),
            "gemma3" => (optional_size("attention.sliding_window")?, Sliding::AllButEvery(6)),
            // 0 says that it has none.
            "phi3" => match optional_size("attention.sliding_window")?.filter(|&window| window > 0) {
                Some(window) => (Some(window), Sliding::Always),
                None => (None, Sliding::Never),
            },
            _ => (None, Sliding::Never),
        };
        let local = number("rope.freq_base_swa")?;
        let gemma2 = family == "gemma2";
        let rope_theta = number("rope.freq_base")?.unwrap_or(10_000.0);
        let max_positions = size("context_length")?;
        let rotated = Rotated { family: &family, rotary_dim, theta: rope_theta, context: max_positions };
        let rope_scaling = rotated.scaling(file)?;
        Self {
            vocab_size: vocabulary,
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            layers,
            heads,
            kv_heads: optional_size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            rotary_dim,
            fused: phi3,
            norm_eps: f64::from(file.f32(&key("attention.layer_norm_rms_epsilon"))?),
            rope_theta,
            rope_local_theta: (family == "gemma3").then(|| local.unwrap_or(10_000.0)),
            rope_scaling,
            max_positions,
            qkv_bias: has("blk.0.attn_q.bias"),
            output_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            qk_norm: matches!(family.as_str(), "qwen3" | "gemma3"),
            post_norms: gemma,
            // Files hold the sum.
            norm_plus_one: false,
            scale_embeddings: gemma,
            tied: !has("output.weight"),
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
            window,
            sliding: sliding(file, &family, layers)?.unwrap_or(pattern),
            attention_scale: number("attention.scale")?.unwrap_or((scaled_width as f64).powf(-0.5)),
            attention_softcap: number("attn_logit_softcapping")?.or(gemma2.then_some(50.0)).filter(|_| gemma),
            logit_softcap: number("final_logit_softcapping")?.or(gemma2.then_some(30.0)).filter(|_| gemma),
            family,
        }
        .checked(file.path())
    }
}

/// Which layers slide, where the file says it: a mark for each layer, or after how many layers one sees everything.
fn sliding(file: &GgufFile, family: &str, layers: usize) -> Result<Option<Sliding>, BackboneError> {
    let key = format!("{family}.attention.sliding_window_pattern");
    if !family.starts_with("gemma") {
        return Ok(None);
    }
    if let Ok(marks) = file.get::<&[bool]>(&key) {
        return Ok(marks.map(|marks| Sliding::Layers(marks.iter().copied().take(layers).collect())));
    }
    Ok(file.get::<usize>(&key)?.map(Sliding::AllButEvery))
}
