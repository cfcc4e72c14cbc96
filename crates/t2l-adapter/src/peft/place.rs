//! The names of factors: which layer, module and factor a tensor is for.

use t2l_core::TargetModule;

/// Layers from this number on are not believed.
const LAYER_LIMIT: usize = 1 << 12;
/// What may stand before `layers.`: bare models have nothing, multimodal ones wrap their language model.
const PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];

/// Which of the two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    /// `A`: `[rank, in]`.
    A,
    /// `B`: `[out, rank]`.
    B,
}

/// A factor's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FactorName {
    pub(super) layer: usize,
    /// Module type, e.g. `q_proj`.
    pub(super) module: String,
    /// The module's dotted name inside the base model, which patterns are matched against.
    pub(super) module_path: String,
    pub(super) factor: Factor,
}

impl FactorName {
    /// Reads `[base_model.model.]model.layers.3.self_attn.q_proj.lora_A[.default].weight`.
    ///
    /// Anything else is `None`: embeddings, heads, magnitude vectors, biases, experts, vision towers.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("base_model.model.").unwrap_or(name);
        let name = name.strip_suffix(".weight")?;
        let name = name.strip_suffix(".default").unwrap_or(name);
        let (module_path, factor) = match name.strip_suffix(".lora_A") {
            Some(path) => (path, Factor::A),
            None => (name.strip_suffix(".lora_B")?, Factor::B),
        };
        let (layer, module) = place(module_path)?;
        Some(Self { layer, module: module.to_owned(), module_path: module_path.to_owned(), factor })
    }
}

/// Layer and module type of a linear module in a decoder layer, by its dotted name inside the base model.
pub(crate) fn place(module_path: &str) -> Option<(usize, &str)> {
    let inside = PREFIXES.iter().find_map(|prefix| module_path.strip_prefix(prefix)?.strip_prefix("layers."))?;
    let mut parts = inside.split('.');
    let (number, block, module) = (parts.next()?, parts.next()?, parts.next()?);
    let layer: usize = number.parse().ok().filter(|l| *l < LAYER_LIMIT)?;
    let plain = !module.is_empty() && module.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let canonical = layer.to_string() == number && TargetModule::block(module) == block;
    (parts.next().is_none() && plain && canonical).then_some((layer, module))
}

/// The dotted name of a module inside a Llama-like base model.
pub(super) fn module_path(layer: usize, module: &str) -> String {
    format!("model.layers.{layer}.{}.{module}", TargetModule::block(module))
}

/// The name under which PEFT saves a factor.
pub(super) fn tensor_name(layer: usize, module: &str, factor: Factor) -> String {
    let factor = match factor {
        Factor::A => "lora_A",
        Factor::B => "lora_B",
    };
    format!("base_model.model.{}.{factor}.weight", module_path(layer, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_spelling_are_read() {
        for (name, layer, module, path, factor) in [
            (
                "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight",
                3,
                "q_proj",
                "model.layers.3.self_attn.q_proj",
                Factor::A,
            ),
            ("base_model.model.layers.0.mlp.up_proj.lora_B.weight", 0, "up_proj", "layers.0.mlp.up_proj", Factor::B),
            (
                "base_model.model.model.layers.12.mlp.down_proj.lora_B.default.weight",
                12,
                "down_proj",
                "model.layers.12.mlp.down_proj",
                Factor::B,
            ),
            (
                "base_model.model.model.language_model.layers.1.self_attn.o_proj.lora_A.weight",
                1,
                "o_proj",
                "model.language_model.layers.1.self_attn.o_proj",
                Factor::A,
            ),
        ] {
            let (module, module_path) = (module.to_owned(), path.to_owned());
            assert_eq!(FactorName::parse(name), Some(FactorName { layer, module, module_path, factor }), "{name}");
        }
    }

    #[test]
    fn names_of_anything_else_are_not() {
        for name in [
            "",
            "base_model.model.lm_head.lora_A.weight",
            "base_model.model.model.embed_tokens.lora_embedding_A",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
            "base_model.model.model.layers.0.mlp.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight",
            "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.+1.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.99999999999999999999.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.5000.self_attn.q_proj.lora_A.weight",
            "base_model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(FactorName::parse(name), None, "{name}");
        }
    }
}
