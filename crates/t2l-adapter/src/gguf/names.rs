//! What llama.cpp calls the modules.

use super::rows::Heads;

/// Layers from this number on are not believed.
pub(super) const LAYER_LIMIT: usize = 1 << 12;

/// An architecture by its names in GGUF and in config.json.
pub(super) struct Architecture {
    pub(super) name: &'static str,
    model_types: &'static [&'static str],
    /// Whether the halves of rotated heads are interleaved.
    pub(super) interleaved: bool,
    /// Whether q, k, v are one weight, and gate and up.
    pub(super) fused: bool,
}

const ARCHITECTURES: [Architecture; 6] = [
    Architecture { name: "llama", model_types: &["llama", "mistral"], interleaved: true, fused: false },
    Architecture { name: "qwen2", model_types: &["qwen2"], interleaved: false, fused: false },
    Architecture { name: "qwen3", model_types: &["qwen3"], interleaved: false, fused: false },
    Architecture { name: "gemma2", model_types: &["gemma2"], interleaved: false, fused: false },
    Architecture { name: "gemma3", model_types: &["gemma3", "gemma3_text"], interleaved: false, fused: false },
    Architecture { name: "phi3", model_types: &["phi3"], interleaved: false, fused: true },
];

/// The architecture that GGUF files call so.
pub(super) fn architecture(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|a| a.name == name)
}

/// The architecture of a config.json's `model_type`.
pub(super) fn of_model_type(model_type: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|a| a.model_types.contains(&model_type))
}

/// Our name and llama.cpp's. Phi-3's fused gate and up projection goes by the name of the up projection.
const MODULES: [(&str, &str); 7] = [
    ("q_proj", "attn_q"),
    ("k_proj", "attn_k"),
    ("v_proj", "attn_v"),
    ("o_proj", "attn_output"),
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
];
const FUSED: [(&str, &str); 4] =
    [("qkv_proj", "attn_qkv"), ("o_proj", "attn_output"), ("gate_up_proj", "ffn_up"), ("down_proj", "ffn_down")];

impl Architecture {
    fn modules(&self) -> &'static [(&'static str, &'static str)] {
        if self.fused { &FUSED } else { &MODULES }
    }

    /// llama.cpp's name of a module's weight in a layer.
    pub(super) fn weight_name(&self, layer: usize, module: &str) -> Option<String> {
        let (_, name) = self.modules().iter().find(|(ours, _)| *ours == module)?;
        (layer < LAYER_LIMIT).then(|| format!("blk.{layer}.{name}.weight"))
    }

    /// Layer and module of a weight that llama.cpp calls so.
    pub(super) fn place(&self, weight: &str) -> Option<(usize, &'static str)> {
        let (number, name) = weight.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
        let layer: usize = number.parse().ok().filter(|l: &usize| *l < LAYER_LIMIT && l.to_string() == number)?;
        let (module, _) = self.modules().iter().find(|(_, theirs)| *theirs == name)?;
        Some((layer, module))
    }

    /// Which heads the rows of a module's output belong to, if they are in another order in GGUF files.
    pub(super) fn interleaved_heads(&self, module: &str) -> Option<Heads> {
        match module {
            "q_proj" if self.interleaved => Some(Heads::Query),
            "k_proj" if self.interleaved => Some(Heads::Key),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for architecture in &ARCHITECTURES {
            for (module, _) in architecture.modules() {
                let name = architecture.weight_name(17, module).unwrap();
                assert_eq!(architecture.place(&name), Some((17, *module)), "{name}");
            }
        }
    }

    #[test]
    fn other_names_have_no_place() {
        let llama = architecture("llama").unwrap();
        for name in [
            "",
            "token_embd.weight",
            "blk.0.attn_norm.weight",
            "blk.00.attn_q.weight",
            "blk.4096.attn_q.weight",
            "blk.0.attn_q.bias",
        ] {
            assert_eq!(llama.place(name), None, "{name}");
        }
        assert_eq!(llama.weight_name(0, "qkv_proj"), None);
        assert_eq!(llama.weight_name(LAYER_LIMIT, "q_proj"), None);
    }
}
