//! Reading a PEFT directory.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use t2l_core::{Adapter, LoraWeights};

use super::config::PeftConfig;
use super::{CONFIG, WEIGHTS};
use crate::AdapterError;

/// Layers above this are not believed.
const LAYER_LIMIT: usize = 1 << 12;

/// Loads a LoRA from a PEFT directory.
///
/// # Errors
/// Files that are missing or damaged, settings that change the maths, factors that do not belong together.
pub fn load(folder: &Path, device: &Device) -> Result<Adapter, AdapterError> {
    let config = PeftConfig::read(&folder.join(CONFIG))?;
    let path = folder.join(WEIGHTS);
    let bytes = std::fs::read(&path).map_err(AdapterError::io(&path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| AdapterError::Weights { path: path.clone(), reason: e.to_string() })?;
    let mut places: BTreeMap<Place, [Option<(String, Tensor<2>)>; 2]> = BTreeMap::new();
    for (name, view) in file.tensors() {
        let (place, factor) = Place::parse(&name).ok_or_else(|| {
            AdapterError::tensor(&path, &name, "is no LoRA factor of a decoder layer's linear module")
        })?;
        let tensor = matrix(&path, &name, &view, device)?;
        if let Some((other, _)) = &places.entry(place.clone()).or_default()[factor] {
            return Err(AdapterError::tensor(&path, &name, format!("stands for the same factor as {other}")));
        }
        places.entry(place).or_default()[factor] = Some((name, tensor));
    }
    if places.is_empty() {
        return Err(AdapterError::Weights { path, reason: "holds no factor".into() });
    }
    let mut adapter = Adapter::new(&config.base_model, config.use_rslora);
    for (place, factors) in places {
        let (a, b) = match factors {
            [Some(a), Some(b)] => (a, b),
            [Some((name, _)), None] => return Err(AdapterError::tensor(&path, &name, "has no lora_B beside it")),
            [None, Some((name, _))] => return Err(AdapterError::tensor(&path, &name, "has no lora_A beside it")),
            [None, None] => continue,
        };
        let (rank, alpha) = config.of(&place.module_path);
        let ((name, a), (name_b, b)) = (a, b);
        if config.fan_in_fan_out && a.dims()[0] as f64 != rank && a.dims()[1] as f64 == rank {
            return Err(AdapterError::tensor(&path, &name, "is stored transposed, which PEFT never does"));
        }
        let found = a.dims()[0];
        if found as f64 != rank {
            let reason = format!("has rank {found}, the configuration says {rank}");
            return Err(AdapterError::tensor(&path, &name, reason));
        }
        if b.dims()[1] != found {
            let reason = format!("has shape {:?}, which does not fit lora_A's {:?}", b.dims(), a.dims());
            return Err(AdapterError::tensor(&path, &name_b, reason));
        }
        adapter.insert(place.layer, &place.module, LoraWeights { a, b, alpha });
    }
    Ok(adapter)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    layer: usize,
    module: String,
    /// The module's dotted name inside the base model, which patterns match.
    module_path: String,
}

impl Place {
    /// Reads `[base_model.model.]model.layers.3.self_attn.q_proj.lora_A[.default].weight`; 0 is A, 1 is B.
    fn parse(name: &str) -> Option<(Self, usize)> {
        let name = name.strip_prefix("base_model.model.").unwrap_or(name);
        let name = name.strip_suffix(".weight")?;
        let name = name.strip_suffix(".default").unwrap_or(name);
        let (module_path, factor) = match name.strip_suffix(".lora_A") {
            Some(path) => (path, 0),
            None => (name.strip_suffix(".lora_B")?, 1),
        };
        let mut parts = module_path.split('.');
        parts.by_ref().find(|p| *p == "layers")?;
        let layer: usize = parts.next()?.parse().ok().filter(|l| *l < LAYER_LIMIT)?;
        let (_block, module) = (parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some((Self { layer, module: module.to_owned(), module_path: module_path.to_owned() }, factor))
    }
}

fn matrix(path: &Path, name: &str, view: &TensorView<'_>, device: &Device) -> Result<Tensor<2>, AdapterError> {
    let &[rows, cols] = view.shape() else {
        return Err(AdapterError::tensor(
            path,
            name,
            format!("has shape {:?}, a factor has two dimensions", view.shape()),
        ));
    };
    if rows == 0 || cols == 0 {
        return Err(AdapterError::tensor(path, name, format!("has shape {:?}", view.shape())));
    }
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        other => {
            return Err(AdapterError::tensor(path, name, format!("has type {other:?}; f32, f16 and bf16 are read")));
        }
    };
    if let Some(i) = values.iter().position(|x| !x.is_finite()) {
        return Err(AdapterError::tensor(path, name, format!("value {i} is {}", values[i])));
    }
    Ok(Tensor::from_data(TensorData::new(values, [rows, cols]), device))
}
