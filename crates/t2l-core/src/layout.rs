//! Where adapters go: which modules of which base model, and how wide they are.

use serde::{Deserialize, Serialize};

/// A kind of linear module that adapters attach to, the same in every layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TargetModule {
    /// Last part of the module's name in the checkpoint, e.g. `q_proj`.
    pub name: String,
    /// Width of the module's input.
    pub in_features: usize,
    /// Width of the module's output.
    pub out_features: usize,
}

impl TargetModule {
    /// A module type by name and widths.
    pub fn new(name: impl Into<String>, in_features: usize, out_features: usize) -> Self {
        Self { name: name.into(), in_features, out_features }
    }

    /// The block that holds a module in Llama-like checkpoints: `self_attn` or `mlp`.
    ///
    /// ```
    /// assert_eq!(t2l_core::TargetModule::block("v_proj"), "self_attn");
    /// assert_eq!(t2l_core::TargetModule::block("down_proj"), "mlp");
    /// ```
    pub fn block(name: &str) -> &'static str {
        match name {
            "gate_proj" | "up_proj" | "down_proj" | "gate_up_proj" => "mlp",
            _ => "self_attn",
        }
    }
}

/// The places of one base model that a generator writes adapters for.
///
/// The order of `modules` is the index order of the hypernetwork's module-type embedding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterLayout {
    /// Hub id of the base model, e.g. `HuggingFaceTB/SmolLM2-135M-Instruct`.
    pub base_model: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Module types, in index order.
    pub modules: Vec<TargetModule>,
}

impl AdapterLayout {
    /// Position of a module type, if it is part of the layout.
    pub fn position(&self, module: &str) -> Option<usize> {
        self.modules.iter().position(|m| m.name == module)
    }

    /// Number of values in one adapter of the given rank.
    pub fn parameters(&self, rank: usize) -> usize {
        let widths: usize = self.modules.iter().map(|m| m.in_features + m.out_features).sum();
        self.layers * rank * widths
    }
}

/// What multiplies `B·A`: `alpha / rank`, or `alpha / sqrt(rank)` with rank-stabilised LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoraScaling {
    /// LoRA's alpha.
    pub alpha: f64,
    /// LoRA's rank.
    pub rank: usize,
    /// Whether the divisor is `sqrt(rank)`.
    pub use_rslora: bool,
}

impl LoraScaling {
    /// The scaling factor `s` in `ΔW = s·B·A`.
    pub fn value(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}
