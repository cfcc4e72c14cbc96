//! Writing a PEFT directory, as PEFT, vLLM and SGLang load it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use t2l_core::{Adapter, TargetModule};

use super::{CONFIG, WEIGHTS};
use crate::AdapterError;

/// Value type of written factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
}

/// How an adapter is written.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Value type of the factors.
    pub dtype: Dtype,
    /// Name of the base model to write; by default the adapter's own.
    pub base_model_name: Option<String>,
    /// Task description it was generated from, kept in the weights file's metadata.
    pub description: Option<String>,
    /// Replace a folder that is not empty.
    pub force: bool,
}

/// Writes an adapter as a PEFT directory: whole, or not at all.
///
/// # Errors
/// An adapter that touches nothing, a target that is not empty, files that cannot be written.
pub fn save(adapter: &Adapter, folder: &Path, options: &SaveOptions) -> Result<(), AdapterError> {
    let occupied = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(AdapterError::io(folder)(e)),
    };
    if occupied && !options.force {
        return Err(AdapterError::NotEmpty { path: folder.to_owned() });
    }
    let config = config(adapter, options).ok_or_else(|| AdapterError::Config {
        path: folder.join(CONFIG),
        reason: "the adapter touches nothing".into(),
    })?;
    let mut config = serde_json::to_vec_pretty(&config)
        .map_err(|e| AdapterError::Config { path: folder.join(CONFIG), reason: e.to_string() })?;
    config.push(b'\n');
    let weights = weights(adapter, options)
        .map_err(|e| AdapterError::Weights { path: folder.join(WEIGHTS), reason: e.to_string() })?;
    let parent = match folder.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(AdapterError::io(parent))?;
    let aside = tempfile::Builder::new().prefix(".adapter-").tempdir_in(parent).map_err(AdapterError::io(parent))?;
    for (name, bytes) in [(WEIGHTS, &weights), (CONFIG, &config)] {
        let path = aside.path().join(name);
        write_synced(&path, bytes).map_err(AdapterError::io(&path))?;
    }
    let old = folder.exists().then(|| aside.path().with_extension("old"));
    if let Some(old) = &old {
        std::fs::rename(folder, old).map_err(AdapterError::io(folder))?;
    }
    let aside = aside.keep();
    if let Err(error) = std::fs::rename(&aside, folder) {
        let _ = std::fs::remove_dir_all(&aside);
        if let Some(old) = &old {
            let _ = std::fs::rename(old, folder);
        }
        return Err(AdapterError::io(folder)(error));
    }
    match old {
        Some(old) => std::fs::remove_dir_all(&old).map_err(AdapterError::io(&old)),
        None => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn module_path(layer: usize, module: &str) -> String {
    format!("model.layers.{layer}.{}.{module}", TargetModule::block(module))
}

/// adapter_config.json. The commonest rank and alpha are the defaults; places that differ get a pattern.
fn config(adapter: &Adapter, options: &SaveOptions) -> Option<Value> {
    let mut counts: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for (_, _, w) in adapter.iter() {
        *counts.entry((w.rank(), w.alpha.to_bits())).or_default() += 1;
    }
    let (&(rank, alpha), _) = counts.iter().max_by_key(|(_, count)| **count)?;
    let alpha = f64::from_bits(alpha);
    let mut modules: Vec<&str> = adapter.iter().map(|(_, m, _)| m).collect();
    modules.sort_unstable();
    modules.dedup();
    let mut layers: Vec<usize> = adapter.iter().map(|(l, _, _)| l).collect();
    layers.sort_unstable();
    layers.dedup();
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (layer, module, w) in adapter.iter() {
        if w.rank() != rank {
            ranks.insert(module_path(layer, module), json!(w.rank()));
        }
        if w.alpha != alpha {
            alphas.insert(module_path(layer, module), number(w.alpha));
        }
    }
    let contiguous = layers.iter().enumerate().all(|(i, l)| i == *l);
    let dense = contiguous && adapter.len() == layers.len() * modules.len();
    // Where not every (layer, module) is touched, the modules are named one by one.
    let targets: Value = if dense || adapter.len() == layers.len() * modules.len() {
        json!(modules)
    } else {
        json!(adapter.iter().map(|(l, m, _)| module_path(l, m)).collect::<Vec<_>>())
    };
    let subset = !contiguous && adapter.len() == layers.len() * modules.len();
    Some(json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": options.base_model_name.as_deref().unwrap_or(&adapter.base_model),
        "inference_mode": true,
        "r": rank,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "use_rslora": adapter.use_rslora,
        "target_modules": targets,
        "layers_to_transform": if subset { json!(layers) } else { Value::Null },
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "bias": "none",
        "fan_in_fan_out": false,
        "modules_to_save": null,
        "init_lora_weights": true,
        "use_dora": false,
    }))
}

/// A whole number where it is one: readers that want an integer alpha get one.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

fn weights(adapter: &Adapter, options: &SaveOptions) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (layer, module, w) in adapter.iter() {
        for (factor, tensor) in [("lora_A", &w.a), ("lora_B", &w.b)] {
            let data = tensor.to_data();
            let values = data.iter::<f32>();
            let bytes = match options.dtype {
                Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
                Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                Dtype::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            };
            let name = format!("base_model.model.{}.{factor}.weight", module_path(layer, module));
            tensors.push((name, tensor.dims().to_vec(), bytes));
        }
    }
    let dtype = match options.dtype {
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
    };
    let views =
        tensors.iter().map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let mut metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    if let Some(description) = &options.description {
        metadata.insert("description".to_owned(), description.clone());
    }
    safetensors::serialize(views, Some(metadata))
}
