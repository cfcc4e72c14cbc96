//! Several adapters as one.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use t2l_core::{Adapter, LoraWeights};

use crate::AdapterError;
use crate::low_rank::{Matrix, Product};

/// How adapters become one. The words are those of PEFT's `add_weighted_adapter`, and so is what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixMethod {
    /// Adds up the factors, each times `√|weight · scaling|`, with the weight's sign in `A`. All have one rank, and so
    /// has the result; `ΔW` is **not** the weighted sum, for every `B` also meets the other adapters' `A`.
    Linear,
    /// Puts the factors side by side: `ΔW` is exactly the weighted sum, and the ranks add up.
    Cat,
    /// The best approximation of the weighted sum that the given rank allows; by default the largest rank of the parts.
    Svd {
        /// Rank of the result.
        rank: Option<usize>,
    },
}

/// Mixes adapters, each with its weight. A place that only some of them touch has the sum over those.
///
/// The result's scaling is 1 everywhere; its base model is that of the first.
///
/// # Errors
/// No adapter at all, a weight that is not finite, widths or (where they must agree) ranks that differ.
pub fn mix(parts: &[(&Adapter, f64)], method: MixMethod, device: &Device) -> Result<Adapter, AdapterError> {
    let Some((first, _)) = parts.first() else {
        return Err(AdapterError::Together("there is no adapter to mix".into()));
    };
    if let Some((_, weight)) = parts.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(AdapterError::Together(format!("the weight {weight} is no number to mix with")));
    }
    if method == (MixMethod::Svd { rank: Some(0) }) {
        return Err(AdapterError::Together("an adapter of rank 0 touches nothing".into()));
    }
    let places: BTreeSet<(usize, &str)> =
        parts.iter().flat_map(|(adapter, _)| adapter.iter().map(|(layer, module, _)| (layer, module))).collect();
    let mut mixed = Adapter::new(first.base_model.clone(), false);
    for (layer, module) in places {
        let here: Vec<(&LoraWeights, f64)> = parts
            .iter()
            .filter_map(|(adapter, weight)| {
                let weights = adapter.get(layer, module)?;
                Some((weights, weight * adapter.scaling(weights).value()))
            })
            .collect();
        same_widths(layer, module, &here)?;
        let Product { at, b } = match method {
            MixMethod::Linear => linear(layer, module, &here)?,
            MixMethod::Cat => cat(&here),
            MixMethod::Svd { rank } => truncated(&here, rank),
        };
        let alpha = b.cols() as f64;
        mixed.insert(layer, module, LoraWeights { a: rows(&at.transposed(), device), b: rows(&b, device), alpha });
    }
    Ok(mixed)
}

fn same_widths(layer: usize, module: &str, parts: &[(&LoraWeights, f64)]) -> Result<(), AdapterError> {
    let widths = |w: &LoraWeights| [w.b.dims()[0], w.a.dims()[1]];
    for pair in parts.windows(2) {
        if let [(one, _), (other, _)] = pair
            && widths(one) != widths(other)
        {
            let reason = format!("one adapter is for weights {:?}, another for {:?}", widths(one), widths(other));
            return Err(AdapterError::place(layer, module, reason));
        }
    }
    Ok(())
}

fn linear(layer: usize, module: &str, parts: &[(&LoraWeights, f64)]) -> Result<Product, AdapterError> {
    let ranks: BTreeSet<usize> = parts.iter().map(|(weights, _)| weights.rank()).collect();
    let mut sum: Option<Product> = None;
    for (weights, scale) in parts {
        let root = scale.abs().sqrt();
        let Product { at, b } = Product::new(weights, root);
        let part = Product { at: at.scaled(if *scale < 0.0 { -root } else { root }), b };
        sum = match sum {
            None => Some(part),
            Some(sum) => sum.at.plus(&part.at).zip(sum.b.plus(&part.b)).map(|(at, b)| Product { at, b }),
        };
        if sum.is_none() {
            let reason = format!("the ranks {ranks:?} differ, and linear mixing takes one (cat and svd take any)");
            return Err(AdapterError::place(layer, module, reason));
        }
    }
    sum.ok_or_else(|| AdapterError::place(layer, module, "no adapter touches it"))
}

fn cat(parts: &[(&LoraWeights, f64)]) -> Product {
    let products: Vec<Product> = parts.iter().map(|(weights, scale)| Product::new(weights, *scale)).collect();
    // The widths have been compared.
    Product::sum(&products).unwrap_or(Product { at: Matrix::zeros(0, 0), b: Matrix::zeros(0, 0) })
}

fn truncated(parts: &[(&LoraWeights, f64)], rank: Option<usize>) -> Product {
    let whole = cat(parts);
    let [out, cols] = whole.shape();
    let largest = parts.iter().map(|(weights, _)| weights.rank()).max().unwrap_or(1);
    let rank = rank.unwrap_or(largest).min(out).min(cols);
    let svd = whole.svd();
    // Half of each singular value goes into either factor; directions that are missing are nought.
    let roots: Vec<f64> = svd.s.iter().take(rank).map(|s| s.sqrt()).collect();
    let (mut at, mut b) = (svd.v.scaled_columns(&roots), svd.u.scaled_columns(&roots));
    at.widen(rank);
    b.widen(rank);
    Product { at, b }
}

/// A matrix as a tensor of f32.
fn rows(matrix: &Matrix, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = matrix.transposed().values().iter().map(|x| *x as f32).collect();
    Tensor::from_data(TensorData::new(values, [matrix.rows(), matrix.cols()]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use proptest::prelude::*;

    use super::*;

    fn adapter(shapes: &[(usize, &str, usize)], use_rslora: bool) -> Adapter {
        let device = Device::flex();
        let mut adapter = Adapter::new("base", use_rslora);
        for (layer, module, rank) in shapes {
            let a = Tensor::random([*rank, 7], Distribution::Default, &device);
            let b = Tensor::random([5, *rank], Distribution::Default, &device);
            adapter.insert(*layer, module, LoraWeights { a, b, alpha: 3.0 });
        }
        adapter
    }

    fn delta(adapter: &Adapter, layer: usize, module: &str) -> Vec<f64> {
        let Some(w) = adapter.get(layer, module) else { return vec![0.0; 35] };
        let Product { at, b } = Product::new(w, adapter.scaling(w).value());
        b.times(&at.transposed()).values().to_vec()
    }

    fn far(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    fn sum(parts: &[(&Adapter, f64)], layer: usize, module: &str) -> Vec<f64> {
        let mut sum = vec![0.0; 35];
        for (adapter, weight) in parts {
            sum.iter_mut().zip(delta(adapter, layer, module)).for_each(|(x, y)| *x += weight * y);
        }
        sum
    }

    proptest! {
        #[test]
        fn cat_and_full_rank_svd_are_the_weighted_sum(first in 1_usize..4, second in 1_usize..4, w in -2.0_f64..2.0, use_rslora in any::<bool>()) {
            let one = adapter(&[(0, "q_proj", first), (1, "q_proj", 2)], use_rslora);
            let two = adapter(&[(0, "q_proj", second), (3, "up_proj", 1)], false);
            let parts = [(&one, w), (&two, 0.5)];
            for method in [MixMethod::Cat, MixMethod::Svd { rank: Some(9) }] {
                let mixed = mix(&parts, method, &Device::flex()).unwrap();
                prop_assert_eq!(mixed.len(), 3);
                for (layer, module) in [(0, "q_proj"), (1, "q_proj"), (3, "up_proj")] {
                    prop_assert!(far(&delta(&mixed, layer, module), &sum(&parts, layer, module)) < 1e-5);
                }
            }
        }
    }

    #[test]
    fn linear_adds_the_factors() {
        let (one, two) = (adapter(&[(0, "q_proj", 2)], false), adapter(&[(0, "q_proj", 2)], false));
        let mixed = mix(&[(&one, 1.0), (&two, -0.5)], MixMethod::Linear, &Device::flex()).unwrap();
        let (x, y) = (one.get(0, "q_proj").unwrap(), two.get(0, "q_proj").unwrap());
        let (first, second) = (1.5_f64.sqrt(), 0.75_f64.sqrt());
        let a = x.a.clone().mul_scalar(first) - y.a.clone().mul_scalar(second);
        let b = x.b.clone().mul_scalar(first) + y.b.clone().mul_scalar(second);
        let found = mixed.get(0, "q_proj").unwrap();
        assert_eq!(mixed.scaling(found).value(), 1.0);
        for (found, expected) in [(&found.a, a), (&found.b, b)] {
            let difference: f32 = (found.clone() - expected).abs().max().into_scalar();
            assert!(difference < 1e-6, "{difference}");
        }
    }

    #[test]
    fn svd_of_one_adapter_gives_it_back() {
        let one = adapter(&[(0, "q_proj", 2)], true);
        let mixed = mix(&[(&one, 1.0)], MixMethod::Svd { rank: None }, &Device::flex()).unwrap();
        assert_eq!(mixed.get(0, "q_proj").unwrap().rank(), 2);
        assert!(far(&delta(&mixed, 0, "q_proj"), &delta(&one, 0, "q_proj")) < 1e-6);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let (one, two) = (adapter(&[(0, "q_proj", 2)], false), adapter(&[(0, "q_proj", 3)], false));
        let device = Device::flex();
        let message = |parts: &[(&Adapter, f64)], method| mix(parts, method, &device).unwrap_err().to_string();
        assert_eq!(
            message(&[(&one, 1.0), (&two, 1.0)], MixMethod::Linear),
            "layer 0, q_proj: the ranks {2, 3} differ, and linear mixing takes one (cat and svd take any)"
        );
        assert_eq!(message(&[], MixMethod::Cat), "there is no adapter to mix");
        assert_eq!(message(&[(&one, f64::NAN)], MixMethod::Cat), "the weight NaN is no number to mix with");
        assert_eq!(message(&[(&one, 1.0)], MixMethod::Svd { rank: Some(0) }), "an adapter of rank 0 touches nothing");
        let mut wide = Adapter::new("", false);
        let weights = LoraWeights { a: Tensor::ones([2, 8], &device), b: Tensor::ones([5, 2], &device), alpha: 1.0 };
        wide.insert(0, "q_proj", weights);
        assert_eq!(
            message(&[(&one, 1.0), (&wide, 1.0)], MixMethod::Cat),
            "layer 0, q_proj: one adapter is for weights [5, 7], another for [5, 8]"
        );
    }
}
