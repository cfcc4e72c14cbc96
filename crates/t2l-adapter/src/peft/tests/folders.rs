//! Written whole or not at all.

use super::super::{Dtype, SaveOptions, save};
use super::*;

fn entries(folder: &Path) -> Vec<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

fn forced() -> SaveOptions {
    SaveOptions { force: true, ..Default::default() }
}

/// An adapter that fails only when its second factor is written.
fn too_large_for_f16() -> (Adapter, SaveOptions) {
    let mut adapter = small_adapter();
    let mut weights = adapter.get(0, "q_proj").unwrap().clone();
    weights.b = weights.b.mul_scalar(1e6);
    adapter.insert(0, "q_proj", weights);
    (adapter, SaveOptions { dtype: Dtype::F16, force: true, ..Default::default() })
}

#[test]
fn a_new_folder_holds_the_two_files_and_its_parent_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("some/where/adapter");
    save(&small_adapter(), &target, &SaveOptions::default()).unwrap();
    assert_eq!(entries(&target), [CONFIG, WEIGHTS]);
    assert_eq!(entries(&root.path().join("some/where")), ["adapter"]);
}

#[cfg(unix)]
#[test]
fn a_new_folder_is_as_readable_as_any() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    save(&small_adapter(), &root.path().join("adapter"), &SaveOptions::default()).unwrap();
    std::fs::create_dir(root.path().join("plain")).unwrap();
    let mode = |name| std::fs::metadata(root.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("adapter"), mode("plain"));
}

#[test]
fn an_empty_folder_is_filled() {
    let root = tempfile::tempdir().unwrap();
    save(&small_adapter(), root.path(), &SaveOptions::default()).unwrap();
    assert_eq!(entries(root.path()), [CONFIG, WEIGHTS]);
}

#[test]
fn what_is_there_stays_unless_forced() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("README.md"), "mine").unwrap();
    let error = save(&small_adapter(), root.path(), &SaveOptions::default()).unwrap_err();
    assert!(matches!(&error, AdapterError::NotEmpty { path } if path == root.path()), "{error}");
    assert_eq!(entries(root.path()), ["README.md"]);
    save(&small_adapter(), root.path(), &forced()).unwrap();
    assert_eq!(entries(root.path()), ["README.md", CONFIG, WEIGHTS]);
    assert_eq!(std::fs::read_to_string(root.path().join("README.md")).unwrap(), "mine");
}

#[test]
fn force_replaces_an_older_adapter() {
    let root = tempfile::tempdir().unwrap();
    save(&small_adapter(), root.path(), &SaveOptions::default()).unwrap();
    let mut other = small_adapter();
    other.use_rslora = true;
    other.insert(1, "v_proj", small_adapter().get(0, "q_proj").unwrap().clone());
    save(&other, root.path(), &forced()).unwrap();
    assert_eq!(entries(root.path()), [CONFIG, WEIGHTS]);
    let read = load(root.path(), &Device::flex()).unwrap();
    assert_eq!((read.len(), read.use_rslora), (2, true));
}

#[test]
fn a_failed_save_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let (adapter, options) = too_large_for_f16();
    let error = save(&adapter, &root.path().join("new/adapter"), &options).unwrap_err();
    assert!(matches!(&error, AdapterError::Place { layer: 0, .. }), "{error}");
    assert!(error.to_string().contains("q_proj"), "{error}");
    assert!(entries(root.path()).is_empty());
}

#[test]
fn a_failed_save_leaves_the_older_adapter() {
    let root = tempfile::tempdir().unwrap();
    save(&small_adapter(), root.path(), &SaveOptions::default()).unwrap();
    let (adapter, options) = too_large_for_f16();
    assert!(save(&adapter, root.path(), &options).is_err());
    assert_eq!(entries(root.path()), [CONFIG, WEIGHTS]);
    let read = load(root.path(), &Device::flex()).unwrap();
    assert_eq!(values(&read.get(0, "q_proj").unwrap().b)[0], -0.25);
}

#[test]
fn a_file_in_the_way_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("adapter");
    std::fs::write(&target, "a file").unwrap();
    assert!(matches!(save(&small_adapter(), &target, &forced()), Err(AdapterError::Io { .. })));
    assert!(matches!(save(&small_adapter(), &target.join("below"), &forced()), Err(AdapterError::Io { .. })));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "a file");
}

#[test]
fn adapters_that_make_no_sense_are_not_written() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("adapter");
    let options = SaveOptions::default();
    assert!(matches!(save(&Adapter::new("", false), &target, &options), Err(AdapterError::Empty { .. })));
    let good = small_adapter().get(0, "q_proj").unwrap().clone();
    let mut bad = vec![];
    for (layer, module) in [(1 << 20, "q_proj"), (0, "q.proj"), (0, ""), (0, "../q_proj")] {
        bad.push((layer, module, good.clone()));
    }
    bad.push((0, "q_proj", LoraWeights { b: good.b.clone().transpose(), ..good.clone() }));
    bad.push((0, "q_proj", LoraWeights { alpha: f64::NAN, ..good.clone() }));
    bad.push((0, "q_proj", LoraWeights { a: good.a.clone().mul_scalar(f32::NAN), ..good.clone() }));
    for (layer, module, weights) in bad {
        let mut adapter = Adapter::new("", false);
        adapter.insert(layer, module, weights);
        let error = save(&adapter, &target, &options).unwrap_err();
        assert!(matches!(&error, AdapterError::Place { .. }), "{error}");
        assert!(entries(root.path()).is_empty());
    }
}

#[test]
fn names_and_descriptions_are_kept_and_bytes_repeat() {
    let root = tempfile::tempdir().unwrap();
    let description = "Say \"yes\"\nor nö.".to_owned();
    let options = SaveOptions {
        base_model_name: Some("other/name".into()),
        description: Some(description.clone()),
        ..Default::default()
    };
    save(&small_adapter(), &root.path().join("a"), &options).unwrap();
    save(&small_adapter(), &root.path().join("b"), &options).unwrap();
    let bytes = |name: &str, file| std::fs::read(root.path().join(name).join(file)).unwrap();
    assert_eq!(bytes("a", WEIGHTS), bytes("b", WEIGHTS));
    assert_eq!(bytes("a", CONFIG), bytes("b", CONFIG));
    let weights = bytes("a", WEIGHTS);
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&weights).unwrap();
    assert_eq!(header % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["description"], description);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let config: Value = serde_json::from_slice(&bytes("a", CONFIG)).unwrap();
    assert_eq!(config["base_model_name_or_path"], "other/name");
}
