//! An adapter put into the weights of its base model: `W + ΔW`.
//!
//! Each shard is copied under its own header, value by value in file order; where the adapter has something to add, row
//! by row. No tensor is ever held whole, whatever the size of the model. Types stay what they are: sums are made in f32
//! and rounded once.

mod rows;
mod shards;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use t2l_core::files::{is_occupied, publish_new};
use t2l_core::{Adapter, LoraWeights};

use self::rows::RowUpdate;
use crate::options::check_factors;
use crate::tensors::WeightsFile;
use crate::{AdapterError, peft};

/// What a merge wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Weights that the adapter changed.
    pub merged: usize,
    /// Tensors in all.
    pub tensors: usize,
    /// Weights files.
    pub shards: usize,
    /// Bytes of the weights files.
    pub bytes: u64,
}

/// Writes the model in folder `model` with the adapter in its weights into the new folder `output`.
///
/// Configuration, tokenizer and whatever else lies beside the weights is copied. The folder appears whole or not at all.
///
/// # Errors
/// A model that is missing, damaged or not made of safetensors files; weights that the adapter touches and the model
/// lacks, or has in another shape, or in a type other than F32, F16 and BF16; a target that holds something already.
pub fn merge(adapter: &Adapter, model: &Path, output: &Path) -> Result<Merged, AdapterError> {
    if adapter.is_empty() {
        return Err(AdapterError::Empty { path: output.to_owned() });
    }
    for (layer, module, weights) in adapter.iter() {
        check_factors(layer, module, weights)?;
    }
    if is_occupied(output).map_err(AdapterError::io(output))? {
        return Err(AdapterError::Occupied { path: output.to_owned() });
    }
    let names = shards::names(model)?;
    let plan = Plan::new(adapter, model, &names)?;
    let mut merged = Merged { merged: plan.places.len(), tensors: 0, shards: names.len(), bytes: 0 };
    let refused = |path: &Path, error| AdapterError::io(path)(error);
    publish_new(output, refused, |aside| {
        for name in &names {
            let (tensors, bytes) = plan.write_shard(&model.join(name), &aside.join(name))?;
            merged.tensors += tensors;
            merged.bytes += bytes;
        }
        shards::copy_rest(model, aside)
    })?;
    Ok(merged)
}

/// Which tensor takes which update; checked before anything is written.
struct Plan<'a> {
    adapter: &'a Adapter,
    /// By layer and module, the tensor's name.
    places: BTreeMap<(usize, String), String>,
}

impl<'a> Plan<'a> {
    fn new(adapter: &'a Adapter, model: &Path, shards: &[String]) -> Result<Self, AdapterError> {
        let mut plan = Self { adapter, places: BTreeMap::new() };
        for name in shards {
            let path = model.join(name);
            let file = WeightsFile::open(&path)?;
            for (tensor, info) in file.tensors() {
                let Some((layer, module, weights)) = plan.update(tensor) else { continue };
                check_fit(weights, info).map_err(|reason| AdapterError::tensor(&path, tensor, reason))?;
                let key = (layer, module.to_owned());
                if let Some(other) = plan.places.insert(key, tensor.clone()) {
                    return Err(AdapterError::tensor(&path, tensor, format!("is the same weight as {other}")));
                }
            }
        }
        match adapter.iter().find(|(layer, module, _)| !plan.places.contains_key(&(*layer, (*module).to_owned()))) {
            None => Ok(plan),
            Some((layer, module, _)) => {
                Err(AdapterError::weights(model, format!("has no weight for layer {layer}, {module}")))
            }
        }
    }

    /// The update that a tensor of this name takes, if the adapter has one.
    fn update<'n>(&self, tensor: &'n str) -> Option<(usize, &'n str, &'a LoraWeights)> {
        let (layer, module) = peft::place(tensor.strip_suffix(".weight")?)?;
        Some((layer, module, self.adapter.get(layer, module)?))
    }

    /// Writes one shard; says how many tensors and bytes it has.
    fn write_shard(&self, from: &Path, to: &Path) -> Result<(usize, u64), AdapterError> {
        let (mut source, header) = WeightsFile::open_with_header(from)?;
        let mut out = BufWriter::new(File::create(to).map_err(AdapterError::io(to))?);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(AdapterError::io(to))?;
        out.write_all(&header).map_err(AdapterError::io(to))?;
        let mut total = 8 + header.len() as u64;
        let tensors = source.tensors().to_vec();
        for (name, info) in &tensors {
            let bytes = info.data_offsets.1.saturating_sub(info.data_offsets.0) as u64;
            total = total.saturating_add(bytes);
            match self.update(name) {
                // Again: the file may have changed since it was planned for.
                Some((_, _, weights)) => {
                    check_fit(weights, info).map_err(|reason| AdapterError::tensor(from, name, reason))?;
                    let update = RowUpdate::new(weights, self.adapter.scaling(weights).value());
                    update.copy(info.dtype, source.values(), &mut out, (from, to), name)?;
                }
                None => copy(source.values(), bytes, &mut out, from, to)?,
            }
        }
        let out = out.into_inner().map_err(|e| AdapterError::io(to)(e.into_error()))?;
        out.sync_all().map_err(AdapterError::io(to))?;
        Ok((tensors.len(), total))
    }
}

fn check_fit(weights: &LoraWeights, info: &TensorInfo) -> Result<(), String> {
    let expected = [weights.b.dims()[0], weights.a.dims()[1]];
    if info.shape != expected {
        return Err(format!("has shape {:?}; the adapter is for {expected:?}", info.shape));
    }
    match info.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
        other => Err(format!("has type {other:?}; an adapter is merged into F32, F16 and BF16")),
    }
}

/// Copies a tensor as it is.
fn copy(source: &mut impl Read, bytes: u64, out: &mut impl Write, from: &Path, to: &Path) -> Result<(), AdapterError> {
    let mut left = bytes;
    let mut buffer = vec![0; left.min(1 << 20) as usize];
    while left > 0 {
        let size = left.min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..size).unwrap_or_default();
        source.read_exact(piece).map_err(AdapterError::io(from))?;
        out.write_all(piece).map_err(AdapterError::io(to))?;
        left -= size as u64;
    }
    Ok(())
}
