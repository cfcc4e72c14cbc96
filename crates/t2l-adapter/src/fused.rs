//! Adapters of models whose checkpoints fuse projections (Phi-3): q, k, v are one `qkv_proj`, gate and up one
//! `gate_up_proj`.
//!
//! Other programs attach an adapter to the fused module; generators and trainers attach it to the parts. [`fuse`] makes
//! the one of the other, [`split`] goes back; ΔW stays the same.

#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::tensor::{Tensor, TensorData};
use t2l_core::{Adapter, AdapterLayout, LoraWeights};

use crate::AdapterError;
use crate::gguf::BaseShape;
use crate::options::check_factors;

/// A fused module and its parts, each with how many of the module's equal slices of rows it has.
struct Fusion {
    module: &'static str,
    parts: Vec<(&'static str, usize)>,
}

impl Fusion {
    fn all(base: &BaseShape) -> [Self; 2] {
        let (heads, kv_heads) = (base.query_heads(), base.key_heads());
        [
            Self { module: "qkv_proj", parts: vec![("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)] },
            Self { module: "gate_up_proj", parts: vec![("gate_proj", 1), ("up_proj", 1)] },
        ]
    }

    fn slices(&self) -> usize {
        self.parts.iter().map(|p| p.1).sum()
    }

    /// First slice of a part, and how many it has; of the module itself, all.
    fn slices_of(&self, module: &str) -> Option<(usize, usize)> {
        if module == self.module {
            return Some((0, self.slices()));
        }
        let place = self.parts.iter().position(|p| p.0 == module)?;
        Some((self.parts.iter().take(place).map(|p| p.1).sum(), self.parts.get(place)?.1))
    }
}

/// The adapter with one fused module in place of the parts, where the base model has them fused; else as it is.
///
/// Ranks add up: A is the parts' under one another, B holds each part's B in its own rows and columns. Where scalings
/// differ, B takes up the difference.
///
/// # Errors
/// Parts whose widths do not belong to the base model's heads, or to one another.
pub fn fuse(adapter: &Adapter, base: &BaseShape) -> Result<Adapter, AdapterError> {
    let fusions = Fusion::all(base);
    let fusion_of = |module: &str| fusions.iter().find(|f| f.slices_of(module).is_some());
    let mut fused = Adapter::new(&adapter.base_model, adapter.use_rslora);
    for (layer, module, weights) in adapter.iter() {
        match fusion_of(module).filter(|_| base.is_fused()) {
            None => {
                fused.insert(layer, module, weights.clone());
            }
            Some(fusion) if fused.get(layer, fusion.module).is_none() => {
                fused.insert(layer, fusion.module, fusion.joined(adapter, layer)?);
            }
            Some(_) => {}
        }
    }
    Ok(fused)
}

/// The adapter with parts in place of fused modules, where the base model has them fused; else as it is.
///
/// Each part has the fused A and its own rows of B: as many as its heads, which are not thirds where query heads share
/// keys. Ranks that add nothing to a part are left out of it, so that what [`fuse`] made comes apart into what it was
/// made of.
///
/// # Errors
/// A fused module whose rows are not those of the base model's heads, or one beside its own parts.
pub fn split(adapter: &Adapter, base: &BaseShape) -> Result<Adapter, AdapterError> {
    let fusions = Fusion::all(base);
    let mut parts = Adapter::new(&adapter.base_model, adapter.use_rslora);
    for (layer, module, weights) in adapter.iter() {
        let Some(fusion) = fusions.iter().find(|f| f.module == module).filter(|_| base.is_fused()) else {
            parts.insert(layer, module, weights.clone());
            continue;
        };
        if let Some((part, _)) = fusion.parts.iter().find(|(part, _)| adapter.get(layer, part).is_some()) {
            return Err(AdapterError::place(layer, part, format!("is also adapted as a part of {module}")));
        }
        for (part, weights) in fusion.cut(layer, weights, adapter.use_rslora)? {
            parts.insert(layer, part, weights);
        }
    }
    Ok(parts)
}

/// The adapter in the form that a layout has: fused where the layout names a fused module, else in parts.
///
/// # Errors
/// Those of [`fuse`] and [`split`].
pub fn in_layout(adapter: &Adapter, base: &BaseShape, layout: &AdapterLayout) -> Result<Adapter, AdapterError> {
    match Fusion::all(base).iter().any(|f| layout.position(f.module).is_some()) {
        true => fuse(adapter, base),
        false => split(adapter, base),
    }
}

impl Fusion {
    /// What the parts at a layer (and the module itself, if it is there) are together.
    fn joined(&self, adapter: &Adapter, layer: usize) -> Result<LoraWeights, AdapterError> {
        let names = self.parts.iter().map(|p| p.0).chain([self.module]);
        let present: Vec<(&str, &LoraWeights)> = names.filter_map(|n| Some((n, adapter.get(layer, n)?))).collect();
        let scaling = |w: &LoraWeights| adapter.scaling(w).value();
        // Whose scaling the whole has; its B, and those of the same scaling, go in as they are.
        let (_, lead) = present
            .iter()
            .find(|(_, w)| scaling(w) != 0.0)
            .or(present.first())
            .ok_or_else(|| AdapterError::place(layer, self.module, "has no parts"))?;
        let width = lead.a.dims()[1];
        let mut slice = None;
        let (mut downs, mut ups) = (vec![], vec![]);
        for (module, weights) in &present {
            check_factors(layer, module, weights)?;
            let wrong = |reason: String| AdapterError::place(layer, module, reason);
            let ([rank, cols], [rows, _]) = (weights.a.dims(), weights.b.dims());
            if cols != width {
                return Err(wrong(format!("A has {cols} columns, its neighbours have {width}")));
            }
            let Some((first, slices)) = self.slices_of(module) else { continue };
            let size = rows / slices;
            if size * slices != rows || *slice.get_or_insert(size) != size {
                return Err(wrong(format!("B has {rows} rows, which do not fit the base model's heads")));
            }
            let device = weights.b.device();
            let zeros = |slices: usize| (slices > 0).then(|| Tensor::zeros([slices * size, rank], &device));
            let share = if scaling(lead) == scaling(weights) { 1.0 } else { scaling(weights) / scaling(lead) };
            let own = if share == 1.0 { weights.b.clone() } else { weights.b.clone().mul_scalar(share) };
            let rest = self.slices() - first - slices;
            ups.push(Tensor::cat([zeros(first), Some(own), zeros(rest)].into_iter().flatten().collect(), 0));
            downs.push(weights.a.clone());
        }
        let (a, b): (Tensor<2>, Tensor<2>) = (Tensor::cat(downs, 0), Tensor::cat(ups, 1));
        Ok(LoraWeights { alpha: alpha(lead, a.dims()[0], adapter.use_rslora), a, b })
    }

    /// The parts of a fused module's factors; those that it leaves alone are not among them.
    fn cut(
        &self,
        layer: usize,
        weights: &LoraWeights,
        use_rslora: bool,
    ) -> Result<Vec<(&'static str, LoraWeights)>, AdapterError> {
        check_factors(layer, self.module, weights)?;
        let [rows, rank] = weights.b.dims();
        let size = rows / self.slices();
        if size * self.slices() != rows {
            let reason = format!("B has {rows} rows, which do not fit the base model's heads");
            return Err(AdapterError::place(layer, self.module, reason));
        }
        let values: Vec<f32> = weights.b.to_data().iter::<f32>().collect();
        let untouched = values.iter().all(|x| *x == 0.0);
        let mut found = vec![];
        for (part, slices) in &self.parts {
            let Some((first, _)) = self.slices_of(part) else { continue };
            let own = values.get(first * size * rank..(first + slices) * size * rank).unwrap_or_default();
            let adds = |r: &usize| untouched || own.iter().skip(*r).step_by(rank).any(|x| *x != 0.0);
            let ranks: Vec<usize> = (0..rank).filter(adds).collect();
            if ranks.is_empty() {
                continue;
            }
            let (mut a, mut b) = (weights.a.clone(), weights.b.clone().narrow(0, first * size, slices * size));
            if ranks.len() < rank {
                let index: Vec<i64> = ranks.iter().map(|&r| r as i64).collect();
                let index = Tensor::from_data(TensorData::new(index, [ranks.len()]), &a.device());
                (a, b) = (a.select(0, index.clone()), b.select(1, index));
            }
            found.push((*part, LoraWeights { alpha: alpha(weights, ranks.len(), use_rslora), a, b }));
        }
        Ok(found)
    }
}

/// The alpha that keeps the scaling of `weights` at another rank.
fn alpha(weights: &LoraWeights, rank: usize, use_rslora: bool) -> f64 {
    match weights.rank() {
        same if same == rank => weights.alpha,
        other if use_rslora => weights.alpha * (rank as f64 / other as f64).sqrt(),
        other => weights.alpha * rank as f64 / other as f64,
    }
}
