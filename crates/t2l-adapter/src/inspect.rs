//! What an adapter is, in numbers.

use burn::tensor::Tensor;
use serde::Serialize;
use t2l_core::{Adapter, LoraWeights};

/// An adapter at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Largest rank of any place.
    pub rank: usize,
    /// Alpha of the first place of that rank.
    pub alpha: f64,
    /// Whether scalings divide by `sqrt(rank)`.
    pub use_rslora: bool,
    /// Scaling of that place.
    pub scaling: f64,
    /// Name of the base model.
    pub base_model: String,
    /// Every place.
    pub modules: Vec<ModuleInspection>,
}

/// One place of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleInspection {
    /// Module type.
    pub name: String,
    /// Layer.
    pub layer: usize,
    /// Input width.
    #[serde(rename = "in")]
    pub in_features: usize,
    /// Output width.
    #[serde(rename = "out")]
    pub out_features: usize,
    /// Rank.
    pub rank: usize,
    /// Frobenius norm of `ΔW = s·B·A`.
    pub norm: f64,
}

/// Measures an adapter. `ΔW` is never made: `‖B·A‖² = tr((BᵀB)(AAᵀ))`, two matrices of the rank's size.
pub fn inspect(adapter: &Adapter) -> Inspection {
    let main = adapter.iter().map(|(_, _, w)| w).max_by_key(|w| w.rank());
    let modules = adapter.iter().map(|(layer, name, w)| ModuleInspection {
        name: name.to_owned(),
        layer,
        in_features: w.a.dims()[1],
        out_features: w.b.dims()[0],
        rank: w.rank(),
        norm: product_norm(w) * adapter.scaling(w).value().abs(),
    });
    Inspection {
        rank: main.map_or(0, LoraWeights::rank),
        alpha: main.map_or(0.0, |w| w.alpha),
        use_rslora: adapter.use_rslora,
        scaling: main.map_or(0.0, |w| adapter.scaling(w).value()),
        base_model: adapter.base_model.clone(),
        modules: modules.collect(),
    }
}

fn product_norm(w: &LoraWeights) -> f64 {
    let gram_a: Tensor<2> = w.a.clone().matmul(w.a.clone().transpose());
    let gram_b: Tensor<2> = w.b.clone().transpose().matmul(w.b.clone());
    let square = f64::from((gram_a * gram_b).sum().into_scalar::<f32>());
    square.max(0.0).sqrt()
}
