//! Writing a PEFT directory, as PEFT, vLLM and SGLang load it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use burn::tensor::Tensor;
use serde_json::{Map, Value, json};
use t2l_core::{Adapter, LoraScaling, LoraWeights};

use super::place::{Factor, FactorName, module_path, tensor_name};
use super::{CONFIG, WEIGHTS};
use crate::inspect::commonest;
use crate::options::{SaveOptions, check_factors};
use crate::{AdapterError, files, tensors};

/// Writes an adapter as a PEFT directory: whole, or not at all.
///
/// # Errors
/// An adapter that touches nothing or holds what its value type cannot, a target that is not empty, files that cannot
/// be written.
pub fn save(adapter: &Adapter, folder: &Path, options: &SaveOptions) -> Result<(), AdapterError> {
    let common = commonest(adapter).ok_or_else(|| AdapterError::Empty { path: folder.to_owned() })?;
    for (layer, module, weights) in adapter.iter() {
        if !FactorName::parse(&tensor_name(layer, module, Factor::A))
            .is_some_and(|n| n.layer == layer && n.module == module)
        {
            return Err(AdapterError::place(layer, module, "is no name of a module in a decoder layer"));
        }
        check_factors(layer, module, weights)?;
    }
    let config = format!("{:#}\n", config(adapter, common, options));
    files::publish(folder, &[CONFIG, WEIGHTS], options.force, |aside| {
        write_weights(adapter, &aside.join(WEIGHTS), options)?;
        let path = aside.join(CONFIG);
        let write = |path: &Path| {
            let mut file = std::fs::File::create(path)?;
            file.write_all(config.as_bytes())?;
            file.sync_all()
        };
        write(&path).map_err(AdapterError::io(&path))
    })
}

/// adapter_config.json. The commonest rank and alpha are the defaults; places that differ get a pattern.
fn config(adapter: &Adapter, common: LoraScaling, options: &SaveOptions) -> Value {
    let modules: BTreeSet<&str> = adapter.iter().map(|(_, m, _)| m).collect();
    let layers: BTreeSet<usize> = adapter.iter().map(|(l, _, _)| l).collect();
    let full = adapter.len() == layers.len() * modules.len();
    let subset = layers.last().is_some_and(|last| last + 1 != layers.len());
    let base_model = options.base_model_name.as_deref().unwrap_or(&adapter.base_model);
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": if base_model.is_empty() { Value::Null } else { json!(base_model) },
        "inference_mode": true,
        "r": common.rank,
        "lora_alpha": number(common.alpha),
        "lora_dropout": 0.0,
        "use_rslora": adapter.use_rslora,
        // Where layers differ in what they touch, every module is named in full.
        "target_modules": if full { json!(modules) } else { adapter.iter().map(|(l, m, _)| module_path(l, m)).collect() },
        "layers_to_transform": if full && subset { json!(layers) } else { Value::Null },
        "layers_pattern": null,
        "rank_pattern": patterns(adapter, |w| (w.rank() != common.rank).then(|| json!(w.rank()))),
        "alpha_pattern": patterns(adapter, |w| (w.alpha != common.alpha).then(|| number(w.alpha))),
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
    })
}

/// A module type that differs in the same way wherever it is gets one pattern, others one for each place.
fn patterns(adapter: &Adapter, differs: impl Fn(&LoraWeights) -> Option<Value>) -> Map<String, Value> {
    let mut by_module: BTreeMap<&str, Vec<(usize, Option<Value>)>> = BTreeMap::new();
    for (layer, module, weights) in adapter.iter() {
        by_module.entry(module).or_default().push((layer, differs(weights)));
    }
    let mut patterns = Map::new();
    for (module, places) in by_module {
        match places.as_slice() {
            [(_, Some(first)), rest @ ..] if rest.iter().all(|(_, v)| v.as_ref() == Some(first)) => {
                patterns.insert(module.to_owned(), first.clone());
            }
            _ => patterns.extend(places.into_iter().filter_map(|(layer, v)| Some((module_path(layer, module), v?)))),
        }
    }
    patterns
}

/// A whole number where it is one: readers that want an integer alpha get one.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

fn write_weights(adapter: &Adapter, path: &Path, options: &SaveOptions) -> Result<(), AdapterError> {
    let factors: Vec<(usize, &str, Factor, &Tensor<2>)> = adapter
        .iter()
        .flat_map(|(layer, module, w)| [(layer, module, Factor::A, &w.a), (layer, module, Factor::B, &w.b)])
        .collect();
    let named: Vec<_> = factors.iter().map(|(l, m, factor, t)| (tensor_name(*l, m, *factor), t.dims())).collect();
    let mut metadata = vec![("format", "pt")];
    metadata.extend(options.description.as_deref().map(|d| ("description", d)));
    let dtype = options.dtype.into();
    tensors::write(path, &metadata, dtype, &named, |i| {
        let Some((layer, module, factor, tensor)) = factors.get(i) else { return Ok(vec![]) };
        let values: Vec<f32> = tensor.to_data().iter::<f32>().collect();
        match values.iter().find(|x| !tensors::fits(dtype, **x)) {
            None => Ok(values),
            Some(x) => {
                Err(AdapterError::place(*layer, module, format!("{factor:?} holds {x}, which {dtype:?} cannot")))
            }
        }
    })
}
