//! Adapters that PEFT wrote, found wherever the reference cases have one.
#![cfg(feature = "flex")]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde_json::Value;
use t2l_adapter::peft::{self, CONFIG, SaveOptions, WEIGHTS};
use t2l_core::{Adapter, LoraWeights, TargetModule};
use t2l_testing::{Cases, fixtures, json, tensors};

/// Every folder below `root` that is a PEFT directory.
fn peft_folders(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        if folder.join(CONFIG).is_file() && folder.join(WEIGHTS).is_file() {
            found.push(folder.clone());
        }
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        open.extend(entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()));
    }
    found.sort();
    found
}

/// This repository's own cases, made by interop/make_backbone_cases.py.
fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/backbones")
}

fn path_of(layer: usize, module: &str) -> String {
    format!("model.layers.{layer}.{}.{module}", TargetModule::block(module))
}

fn values(tensor: &Tensor<2>) -> Vec<f64> {
    tensor.to_data().iter::<f32>().map(f64::from).collect()
}

/// Every stored value is at its place, and nothing else is.
fn check_values(adapter: &Adapter, folder: &Path) {
    let mut stored = tensors(&folder.join(WEIGHTS));
    for (layer, module, weights) in adapter.iter() {
        for (factor, tensor) in [("lora_A", &weights.a), ("lora_B", &weights.b)] {
            let name = format!("base_model.model.{}.{factor}.weight", path_of(layer, module));
            let expected = stored.remove(&name).unwrap_or_else(|| panic!("{}: no {name}", folder.display()));
            assert_eq!(tensor.dims().to_vec(), expected.shape, "{}: {name}", folder.display());
            assert_eq!(values(tensor), expected.values, "{}: {name}", folder.display());
        }
    }
    assert!(stored.is_empty(), "{}: not read: {:?}", folder.display(), stored.keys());
}

/// Frobenius norm of the whole `s·B·A`.
fn norm(weights: &LoraWeights, scaling: f64) -> f64 {
    let ([rank, cols], [rows, _]) = (weights.a.dims(), weights.b.dims());
    let (a, b) = (values(&weights.a), values(&weights.b));
    let mut square = 0.0;
    for row in 0..rows {
        for col in 0..cols {
            let x: f64 = (0..rank).map(|k| b[row * rank + k] * a[k * cols + col]).sum();
            square += (x * scaling) * (x * scaling);
        }
    }
    square.sqrt()
}

/// Rank, alpha and scaling of every module as PEFT had them in force.
fn check_effective(adapter: &Adapter, effective: &Value, what: &str) {
    let effective = effective.as_object().unwrap_or_else(|| panic!("{what}: no effective settings"));
    assert_eq!(adapter.len(), effective.len(), "{what}: number of modules");
    let inspection = t2l_adapter::inspect(adapter);
    for ((layer, module, weights), seen) in adapter.iter().zip(&inspection.modules) {
        let name = path_of(layer, module);
        let facts = effective.get(&name).unwrap_or_else(|| panic!("{what}: {name} is not adapted"));
        let number = |key: &str| facts[key].as_f64().unwrap_or_else(|| panic!("{what}: {name} has no {key}"));
        assert_eq!(weights.rank() as f64, number("r"), "{what}: rank of {name}");
        assert_eq!(weights.alpha, number("alpha"), "{what}: alpha of {name}");
        let (found, expected) = (adapter.scaling(weights).value(), number("scaling"));
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs(),
            "{what}: scaling of {name}: {found}, not {expected}"
        );
        let expected = norm(weights, expected);
        assert!(
            (seen.norm - expected).abs() <= 1e-9 * expected,
            "{what}: norm of {name}: {}, not {expected}",
            seen.norm
        );
    }
}

#[test]
fn reference_effective_settings() {
    for area in [own()].into_iter().chain(fixtures().map(|f| f.join("backbones"))) {
        check_effective_settings(&area);
    }
}

fn check_effective_settings(area: &Path) {
    let mut cases = Cases::default();
    for folder in peft_folders(area) {
        let (Some(kind), Some(name)) = (folder.parent(), folder.file_name()) else { continue };
        let Some(family) = kind.parent().filter(|_| kind.ends_with("adapters")) else { continue };
        let facts = json(&family.join("facts.json"));
        let what = folder.strip_prefix(area).unwrap_or(&folder).display().to_string();
        let effective = &facts["adapters"][&*name.to_string_lossy()]["effective"];
        let adapter = peft::load(&folder, &Device::flex()).unwrap();
        check_effective(&adapter, effective, &what);
        // What is written again means the same.
        let target = tempfile::tempdir().unwrap();
        peft::save(&adapter, target.path(), &SaveOptions::default()).unwrap();
        check_effective(&peft::load(target.path(), &Device::flex()).unwrap(), effective, &what);
        cases.record(&what, Ok(()));
    }
    cases.finish(area);
}

#[test]
fn reference_values_of_every_adapter() {
    for root in [own()].into_iter().chain(fixtures()) {
        check_values_of_every_adapter(&root);
    }
}

fn check_values_of_every_adapter(root: &Path) {
    let mut cases = Cases::default();
    for folder in peft_folders(root) {
        let what = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
        let config = json(&folder.join(CONFIG));
        let adapter = peft::load(&folder, &Device::flex()).unwrap_or_else(|e| panic!("{e}"));
        check_values(&adapter, &folder);
        assert_eq!(config["base_model_name_or_path"].as_str().unwrap_or_default(), adapter.base_model, "{what}");
        assert_eq!(config["use_rslora"].as_bool(), Some(adapter.use_rslora), "{what}");
        let target = tempfile::tempdir().unwrap();
        peft::save(&adapter, target.path(), &SaveOptions::default()).unwrap();
        check_values(&adapter, target.path());
        check_values(&peft::load(target.path(), &Device::flex()).unwrap(), &folder);
        cases.record(&what, Ok(()));
    }
    cases.finish(root);
}
