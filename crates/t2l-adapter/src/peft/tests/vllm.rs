//! What vLLM asks of an adapter folder, by the rules of its `PEFTHelper` and its reader of tensor names: it has no package
//! for every machine, so they are spelled out here.

use super::super::{Dtype as Written, SaveOptions, save};
use super::*;

/// Scaling that vLLM gives every module of an adapter with this configuration, or what it says against it.
fn accepted(config: &Value, max_rank: u64) -> Result<f64, String> {
    let field = |name: &str| config.get(name).filter(|v| !v.is_null()).ok_or(format!("{name} is missing"));
    let rank = field("r")?.as_u64().ok_or("r is no integer")?;
    let alpha = field("lora_alpha")?.as_i64().ok_or("lora_alpha is no integer")? as f64;
    match field("target_modules")? {
        Value::String(_) => {}
        Value::Array(modules) if modules.iter().all(Value::is_string) => {}
        other => return Err(format!("target_modules is {other}")),
    }
    if rank == 0 || rank > max_rank {
        return Err(format!("rank {rank} where at most {max_rank} is served"));
    }
    if config.get("bias").is_some_and(|bias| bias != "none") {
        return Err("biases".into());
    }
    if config.get("modules_to_save").is_some_and(|m| m.as_array().is_some_and(|m| !m.is_empty())) {
        return Err("modules_to_save".into());
    }
    if config.get("use_dora").and_then(Value::as_bool) == Some(true) {
        return Err("DoRA".into());
    }
    // It knows no patterns: what they say is passed over in silence.
    for name in ["rank_pattern", "alpha_pattern"] {
        if config.get(name).and_then(Value::as_object).is_some_and(|pattern| !pattern.is_empty()) {
            return Err(format!("{name} is passed over"));
        }
    }
    let rslora = config.get("use_rslora").and_then(Value::as_bool) == Some(true);
    Ok(alpha / if rslora { (rank as f64).sqrt() } else { rank as f64 })
}

/// The module that a tensor belongs to, as vLLM reads names.
fn module_of(tensor: &str) -> Option<&str> {
    let name = tensor.strip_prefix("base_model.model.")?;
    name.strip_suffix(".lora_A.weight").or(name.strip_suffix(".lora_B.weight"))
}

fn generated(use_rslora: bool, rank: usize, alpha: f64) -> Adapter {
    let mut adapter = Adapter::new("some/base", use_rslora);
    for layer in 0..3 {
        for module in ["q_proj", "v_proj", "down_proj"] {
            let factor = |shape: [usize; 2]| Tensor::ones(shape, &Device::flex());
            adapter.insert(layer, module, LoraWeights { a: factor([rank, 6]), b: factor([4, rank]), alpha });
        }
    }
    adapter
}

#[test]
fn adapters_of_one_rank_are_served_as_they_are() {
    for (use_rslora, rank, alpha) in [(false, 8, 16.0), (true, 16, 32.0), (false, 64, 1.0)] {
        for dtype in [Written::F32, Written::Bf16, Written::F16] {
            let adapter = generated(use_rslora, rank, alpha);
            let folder = tempfile::tempdir().unwrap();
            let options = SaveOptions { dtype, ..SaveOptions::default() };
            save(&adapter, folder.path(), &options).unwrap();
            let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
            let config: Value = serde_json::from_slice(&read("adapter_config.json")).unwrap();
            let scaling = accepted(&config, 64).unwrap();
            let expected = adapter.scaling(adapter.get(0, "q_proj").unwrap()).value();
            assert!((scaling - expected).abs() < 1e-12, "{scaling} instead of {expected}");
            let weights = read("adapter_model.safetensors");
            let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
            assert_eq!(tensors.len(), 18);
            let targets: Vec<&str> =
                config["target_modules"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
            for name in tensors.names() {
                let module = module_of(name).unwrap_or_else(|| panic!("{name} is no name to vLLM"));
                assert!(targets.contains(&module.rsplit('.').next().unwrap()), "{name} is unexpected to vLLM");
            }
        }
    }
}

#[test]
fn ranks_that_differ_are_not() {
    let mut adapter = generated(false, 8, 16.0);
    let factor = |shape: [usize; 2]| Tensor::ones(shape, &Device::flex());
    adapter.insert(0, "q_proj", LoraWeights { a: factor([2, 6]), b: factor([4, 2]), alpha: 16.0 });
    let folder = tempfile::tempdir().unwrap();
    save(&adapter, folder.path(), &SaveOptions::default()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap();
    assert_eq!(accepted(&config, 64), Err("rank_pattern is passed over".into()));
}
