//! What an adapter is, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;
use t2l_core::{Adapter, LoraScaling};

use crate::low_rank::Product;

/// An adapter at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Commonest rank.
    pub rank: usize,
    /// Commonest alpha.
    pub alpha: f64,
    /// Whether scalings divide by `sqrt(rank)` instead of `rank`.
    pub use_rslora: bool,
    /// Scaling that the commonest rank and alpha give.
    pub scaling: f64,
    /// Name of the base model; empty when unknown.
    pub base_model: String,
    /// Every place, by layer and then by module name.
    pub modules: Vec<ModuleInspection>,
}

/// One place of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleInspection {
    /// Module type, e.g. `q_proj`.
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

/// Measures an adapter. `ΔW` is made only where it is smaller than its factors: else `‖B·A‖² = Σ (BᵀB)∘(AAᵀ)`, two
/// matrices `[rank, rank]`, in f64.
pub fn inspect(adapter: &Adapter) -> Inspection {
    let common = commonest(adapter);
    let modules = adapter.iter().map(|(layer, name, w)| ModuleInspection {
        name: name.to_owned(),
        layer,
        in_features: w.a.dims()[1],
        out_features: w.b.dims()[0],
        rank: w.rank(),
        norm: Product::new(w, adapter.scaling(w).value()).norm(),
    });
    Inspection {
        rank: common.map_or(0, |c| c.rank),
        alpha: common.map_or(0.0, |c| c.alpha),
        use_rslora: adapter.use_rslora,
        scaling: common.map_or(0.0, |c| c.value()),
        base_model: adapter.base_model.clone(),
        modules: modules.collect(),
    }
}

/// The commonest rank and the commonest alpha, which a configuration gives as its defaults; of equals the larger.
pub(crate) fn commonest(adapter: &Adapter) -> Option<LoraScaling> {
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    let mut alphas: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, _, w) in adapter.iter() {
        *ranks.entry(w.rank()).or_default() += 1;
        *alphas.entry(w.alpha.to_bits()).or_default() += 1;
    }
    let (rank, _) = ranks.into_iter().max_by_key(|(_, count)| *count)?;
    let (alpha, _) = alphas.into_iter().max_by_key(|(_, count)| *count)?;
    Some(LoraScaling { alpha: f64::from_bits(alpha), rank, use_rslora: adapter.use_rslora })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};
    use t2l_core::LoraWeights;

    use super::*;

    #[test]
    fn the_norm_is_that_of_the_whole_product() {
        let device = Device::flex();
        let mut adapter = Adapter::new("base", true);
        let a = Tensor::<2>::random([3, 37], Distribution::Default, &device);
        let b = Tensor::<2>::random([21, 3], Distribution::Default, &device);
        adapter.insert(4, "v_proj", LoraWeights { a: a.clone(), b: b.clone(), alpha: 5.0 });
        let found = inspect(&adapter);
        let delta = b.matmul(a).mul_scalar(5.0 / 3.0_f64.sqrt());
        let expected = f64::from(delta.powf_scalar(2.0).sum().into_scalar::<f32>()).sqrt();
        let module = &found.modules[0];
        assert!((module.norm - expected).abs() < 1e-5 * expected, "{} instead of {expected}", module.norm);
        assert_eq!((module.in_features, module.out_features, module.rank, module.layer), (37, 21, 3, 4));
        assert_eq!((found.rank, found.alpha, found.scaling), (3, 5.0, 5.0 / 3.0_f64.sqrt()));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["modules"][0]["in"], 37);
        assert_eq!(json["modules"][0]["out"], 21);
    }

    #[test]
    fn a_product_that_cancels_has_a_small_norm() {
        let device = Device::flex();
        let row = Tensor::<2>::random([1, 64], Distribution::Default, &device);
        let column = Tensor::<2>::random([48, 1], Distribution::Default, &device);
        let a = Tensor::cat(vec![row.clone(), row], 0);
        let b = Tensor::cat(vec![column.clone(), column.neg()], 1);
        let mut adapter = Adapter::new("", false);
        adapter.insert(0, "q_proj", LoraWeights { a, b, alpha: 2.0 });
        assert!(inspect(&adapter).modules[0].norm < 1e-5);
    }

    /// Two matrices `[rank, rank]` of that rank would have 256 TiB.
    #[test]
    fn the_rank_of_a_file_may_be_any() {
        let (device, rank) = (Device::flex(), 1 << 22);
        let mut adapter = Adapter::new("", false);
        let (a, b) = (Tensor::<2>::ones([rank, 1], &device), Tensor::<2>::ones([1, rank], &device));
        adapter.insert(0, "q_proj", LoraWeights { a, b, alpha: rank as f64 });
        assert_eq!(inspect(&adapter).modules[0].norm, rank as f64);
    }

    #[test]
    fn the_defaults_are_the_commonest() {
        let device = Device::flex();
        let mut adapter = Adapter::new("", false);
        for (layer, rank, alpha) in [(0, 2, 8.0), (1, 2, 16.0), (2, 4, 16.0), (3, 6, 16.0)] {
            let weights =
                LoraWeights { a: Tensor::ones([rank, 4], &device), b: Tensor::ones([4, rank], &device), alpha };
            adapter.insert(layer, "q_proj", weights);
        }
        let common = commonest(&adapter).unwrap();
        assert_eq!((common.rank, common.alpha), (2, 16.0));
        assert_eq!(commonest(&Adapter::new("", false)), None);
    }
}
