//! One adapter, as a file has it.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::LoraScaling;

/// The factors at one place: `ΔW = s·B·A`.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    /// `A`: `[rank, in]`.
    pub a: Tensor<2>,
    /// `B`: `[out, rank]`.
    pub b: Tensor<2>,
    /// Alpha at this place (`alpha_pattern` makes places differ).
    pub alpha: f64,
}

impl LoraWeights {
    /// Rank at this place.
    pub fn rank(&self) -> usize {
        self.a.dims()[0]
    }
}

/// One adapter: its own factors for each (layer, module) it touches, of possibly different ranks.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Hub id of the base model it was made for; empty when unknown.
    pub base_model: String,
    /// Whether scalings divide by `sqrt(rank)` instead of `rank`.
    pub use_rslora: bool,
    places: BTreeMap<(usize, String), LoraWeights>,
}

impl Adapter {
    /// An adapter that touches nothing yet.
    pub fn new(base_model: impl Into<String>, use_rslora: bool) -> Self {
        Self { base_model: base_model.into(), use_rslora, places: BTreeMap::new() }
    }

    /// Sets the factors at a place; the previous ones are returned.
    pub fn insert(&mut self, layer: usize, module: &str, weights: LoraWeights) -> Option<LoraWeights> {
        self.places.insert((layer, module.to_owned()), weights)
    }

    /// The factors at a place.
    pub fn get(&self, layer: usize, module: &str) -> Option<&LoraWeights> {
        self.places.get(&(layer, module.to_owned()))
    }

    /// Every place it touches, by layer and then by module name.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, &LoraWeights)> {
        self.places.iter().map(|((layer, module), w)| (*layer, module.as_str(), w))
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it touches nothing.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The scaling in force at a place.
    pub fn scaling(&self, weights: &LoraWeights) -> LoraScaling {
        LoraScaling { alpha: weights.alpha, rank: weights.rank(), use_rslora: self.use_rslora }
    }
}
