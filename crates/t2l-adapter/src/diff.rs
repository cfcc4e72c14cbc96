//! How two adapters differ, place by place.

use std::collections::BTreeSet;

use serde::Serialize;
use t2l_core::{Adapter, LoraWeights};

use crate::AdapterError;
use crate::low_rank::{Product, principal_angles};

/// Two adapters compared. Everything comes from the factors: `ΔW` is made only where it is smaller than they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// Frobenius norm of the first adapter over all places.
    pub norm_a: f64,
    /// That of the second.
    pub norm_b: f64,
    /// Norm of the difference.
    pub distance: f64,
    /// Cosine between the two, all places together; `None` when either is nought.
    pub cosine: Option<f64>,
    /// Every place that either touches, by layer and then by module name.
    pub modules: Vec<ModuleDiff>,
}

/// Two adapters at one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleDiff {
    /// Module type, e.g. `q_proj`.
    pub name: String,
    /// Layer.
    pub layer: usize,
    /// Frobenius norm of the first adapter's `ΔW`; `None` where it touches nothing.
    pub norm_a: Option<f64>,
    /// That of the second.
    pub norm_b: Option<f64>,
    /// Norm of the difference of the two `ΔW`.
    pub distance: f64,
    /// Cosine between the two `ΔW`; `None` where either is nought.
    pub cosine: Option<f64>,
    /// Principal angles between what the two read (row spaces of `ΔW`), in degrees, smallest first.
    pub angles_in: Vec<f64>,
    /// Principal angles between what the two write (column spaces of `ΔW`), in degrees, smallest first.
    pub angles_out: Vec<f64>,
}

/// Compares two adapters.
///
/// # Errors
/// Adapters for weights of different widths.
pub fn diff(a: &Adapter, b: &Adapter) -> Result<Diff, AdapterError> {
    let places: BTreeSet<(usize, &str)> = a.iter().chain(b.iter()).map(|(layer, module, _)| (layer, module)).collect();
    let mut modules = Vec::with_capacity(places.len());
    let mut total = Inner::default();
    for (layer, module) in places {
        let (x, y) = (product(a, a.get(layer, module)), product(b, b.get(layer, module)));
        let inner = match (&x, &y) {
            (Some(x), Some(y)) if x.shape() != y.shape() => {
                let reason = format!("one adapter is for weights {:?}, the other for {:?}", x.shape(), y.shape());
                return Err(AdapterError::place(layer, module, reason));
            }
            (Some(x), Some(y)) => Inner { aa: x.inner(x), bb: y.inner(y), ab: x.inner(y) },
            (Some(x), None) => Inner { aa: x.inner(x), ..Inner::default() },
            (None, Some(y)) => Inner { bb: y.inner(y), ..Inner::default() },
            (None, None) => Inner::default(),
        };
        total.add(&inner);
        let (angles_in, angles_out) = x.as_ref().zip(y.as_ref()).map_or((vec![], vec![]), |(x, y)| angles(x, y));
        modules.push(ModuleDiff {
            name: module.to_owned(),
            layer,
            norm_a: x.map(|_| root(inner.aa)),
            norm_b: y.map(|_| root(inner.bb)),
            distance: inner.distance(),
            cosine: inner.cosine(),
            angles_in,
            angles_out,
        });
    }
    Ok(Diff {
        norm_a: root(total.aa),
        norm_b: root(total.bb),
        distance: total.distance(),
        cosine: total.cosine(),
        modules,
    })
}

fn product(adapter: &Adapter, weights: Option<&LoraWeights>) -> Option<Product> {
    weights.map(|w| Product::new(w, adapter.scaling(w).value()))
}

/// Angles between the row spaces and between the column spaces, in degrees.
fn angles(x: &Product, y: &Product) -> (Vec<f64>, Vec<f64>) {
    let (x, y) = (x.svd(), y.svd());
    let degrees = |angles: Vec<f64>| angles.into_iter().map(f64::to_degrees).collect();
    (degrees(principal_angles(&x.v, &y.v)), degrees(principal_angles(&x.u, &y.u)))
}

/// Inner products of two adapters with themselves and each other.
#[derive(Debug, Clone, Copy, Default)]
struct Inner {
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Inner {
    fn add(&mut self, other: &Self) {
        self.aa += other.aa;
        self.bb += other.bb;
        self.ab += other.ab;
    }

    fn distance(&self) -> f64 {
        root(self.aa + self.bb - 2.0 * self.ab)
    }

    fn cosine(&self) -> Option<f64> {
        let norms = root(self.aa) * root(self.bb);
        (norms > 0.0).then(|| (self.ab / norms).clamp(-1.0, 1.0))
    }
}

fn root(square: f64) -> f64 {
    square.max(0.0).sqrt()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor, TensorData};

    use super::*;

    fn weights(rank: usize, alpha: f64) -> LoraWeights {
        let device = Device::flex();
        let a = Tensor::random([rank, 9], Distribution::Default, &device);
        let b = Tensor::random([6, rank], Distribution::Default, &device);
        LoraWeights { a, b, alpha }
    }

    fn one_place(weights: LoraWeights) -> Adapter {
        let mut adapter = Adapter::new("base", false);
        adapter.insert(2, "q_proj", weights);
        adapter
    }

    #[test]
    fn an_adapter_is_itself() {
        let adapter = one_place(weights(3, 5.0));
        let diff = diff(&adapter, &adapter).unwrap();
        assert_eq!((diff.norm_a, diff.distance), (diff.norm_b, 0.0));
        assert!((diff.cosine.unwrap() - 1.0).abs() < 1e-14);
        let module = &diff.modules[0];
        assert_eq!((module.angles_in.len(), module.angles_out.len()), (3, 3));
        assert!(module.angles_in.iter().chain(&module.angles_out).all(|x| x.abs() < 1e-9), "{module:?}");
    }

    #[test]
    fn the_opposite_has_the_same_spaces() {
        let one = weights(2, 4.0);
        let opposite = LoraWeights { alpha: -2.0, ..one.clone() };
        let diff = diff(&one_place(one), &one_place(opposite)).unwrap();
        assert!((diff.cosine.unwrap() + 1.0).abs() < 1e-14);
        assert!((diff.norm_a - 2.0 * diff.norm_b).abs() < 1e-12 && (diff.distance - 3.0 * diff.norm_b).abs() < 1e-12);
        assert!(diff.modules[0].angles_out.iter().all(|x| x.abs() < 1e-9));
    }

    #[test]
    fn numbers_are_those_of_the_whole_matrices() {
        let (x, y) = (weights(2, 3.0), weights(4, 7.0));
        let whole = |w: &LoraWeights| -> Vec<f64> {
            let delta = w.b.clone().matmul(w.a.clone()).mul_scalar(w.alpha / w.rank() as f64);
            delta.to_data().iter::<f32>().map(f64::from).collect()
        };
        let (p, q) = (whole(&x), whole(&y));
        let dot = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(x, y)| x * y).sum::<f64>();
        let diff = diff(&one_place(x), &one_place(y)).unwrap();
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} {expected}")
        };
        close(diff.norm_a, dot(&p, &p).sqrt());
        close(diff.cosine.unwrap(), dot(&p, &q) / (dot(&p, &p) * dot(&q, &q)).sqrt());
        close(diff.distance, p.iter().zip(&q).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt());
        assert_eq!(diff.modules[0].angles_in.len(), 2);
    }

    #[test]
    fn a_place_in_one_alone_has_no_angle() {
        let diff = diff(&one_place(weights(2, 1.0)), &Adapter::new("", false)).unwrap();
        let module = &diff.modules[0];
        assert_eq!((module.norm_b, module.cosine, diff.cosine), (None, None, None));
        assert!(module.angles_in.is_empty() && module.norm_a == Some(module.distance));
    }

    #[test]
    fn nothing_and_something_have_no_cosine() {
        let nothing = LoraWeights { b: Tensor::zeros([6, 2], &Device::flex()), ..weights(2, 1.0) };
        let diff = diff(&one_place(nothing), &one_place(weights(2, 1.0))).unwrap();
        assert_eq!((diff.modules[0].norm_a, diff.modules[0].cosine), (Some(0.0), None));
        assert!(diff.modules[0].angles_out.is_empty());
    }

    #[test]
    fn other_widths_are_refused() {
        let device = Device::flex();
        let a = Tensor::from_data(TensorData::new(vec![1.0_f32; 8], [1, 8]), &device);
        let narrow = LoraWeights { a, b: Tensor::ones([6, 1], &device), alpha: 1.0 };
        let error = diff(&one_place(weights(1, 1.0)), &one_place(narrow)).unwrap_err();
        assert_eq!(error.to_string(), "layer 2, q_proj: one adapter is for weights [6, 9], the other for [6, 8]");
    }
}
