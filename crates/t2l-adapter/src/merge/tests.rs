//! Merging into small models, good and bad.

use burn::tensor::{Device, Distribution, Tensor};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::*;

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const UP: &str = "model.layers.1.mlp.up_proj.weight";

fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    crate::tensors::encode(dtype, values)
}

/// A shard of named tensors.
fn shard(folder: &Path, name: &str, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.join(name), safetensors::serialize(views, None).unwrap()).unwrap();
}

fn weight(dtype: Dtype, seed: f32) -> Vec<u8> {
    let values: Vec<f32> = (0..24).map(|i| (i as f32 * seed).sin()).collect();
    bytes(dtype, &values)
}

/// Two shards with an index, and files beside them.
fn model(dtype: Dtype) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let embedding = ("model.embed_tokens.weight", Dtype::I8, vec![3], vec![1_u8, 2, 3]);
    shard(folder.path(), "model-1.safetensors", &[(Q, dtype, vec![4, 6], weight(dtype, 0.7)), embedding]);
    shard(folder.path(), "model-2.safetensors", &[(UP, dtype, vec![4, 6], weight(dtype, 0.3))]);
    let index = serde_json::json!({"weight_map": {
        Q: "model-1.safetensors", "model.embed_tokens.weight": "model-1.safetensors", UP: "model-2.safetensors"}});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), "old").unwrap();
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    folder
}

fn factors(rank: usize, alpha: f64) -> LoraWeights {
    let device = Device::flex();
    let random = |shape: [usize; 2]| Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    LoraWeights { a: random([rank, 6]), b: random([4, rank]), alpha }
}

fn adapter() -> Adapter {
    let mut adapter = Adapter::new("base", true);
    adapter.insert(0, "q_proj", factors(2, 3.0));
    adapter.insert(1, "up_proj", factors(3, -1.0));
    adapter
}

fn read(path: &Path, name: &str) -> (Dtype, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    (view.dtype(), view.data().to_vec())
}

fn expected(before: &[u8], dtype: Dtype, weights: &LoraWeights, scaling: f64) -> Vec<f32> {
    let delta = weights.b.clone().matmul(weights.a.clone()).mul_scalar(scaling);
    let delta: Vec<f32> = delta.to_data().iter::<f32>().collect();
    crate::tensors::decode(dtype, before).iter().zip(delta).map(|(x, d)| x + d).collect()
}

#[test]
fn every_type_is_kept_and_everything_else_copied() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let (model, adapter) = (model(dtype), adapter());
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("new/merged");
        let merged = merge(&adapter, model.path(), &output).unwrap();
        assert_eq!((merged.merged, merged.tensors, merged.shards), (2, 3, 2));
        for (file, name, seed, layer, module) in
            [("model-1.safetensors", Q, 0.7, 0, "q_proj"), ("model-2.safetensors", UP, 0.3, 1, "up_proj")]
        {
            let (found, data) = read(&output.join(file), name);
            assert_eq!(found, dtype);
            let weights = adapter.get(layer, module).unwrap();
            let expected = expected(&weight(dtype, seed), dtype, weights, adapter.scaling(weights).value());
            for (x, y) in crate::tensors::decode(dtype, &data).iter().zip(expected) {
                let (rounded, step) = match dtype {
                    Dtype::F16 => (f16::from_f32(y).to_f32(), 1e-3),
                    Dtype::BF16 => (bf16::from_f32(y).to_f32(), 8e-3),
                    _ => (y, 1e-6),
                };
                assert!((x - rounded).abs() <= step * y.abs().max(1.0), "{dtype:?}: {x} instead of {y}");
            }
        }
        assert_eq!(read(&output.join("model-1.safetensors"), "model.embed_tokens.weight").1, [1, 2, 3]);
        let mut names: Vec<String> =
            std::fs::read_dir(&output).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
        );
    }
}

fn refused(adapter: &Adapter, model: &Path) -> String {
    let root = tempfile::tempdir().unwrap();
    let error = merge(adapter, model, &root.path().join("a/b")).unwrap_err();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left");
    error.to_string().replace(&model.display().to_string(), "MODEL")
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = model(Dtype::F32);
    let mut other = adapter();
    other.insert(5, "v_proj", factors(1, 1.0));
    assert_eq!(refused(&other, folder.path()), "MODEL: has no weight for layer 5, v_proj");
    let mut other = adapter();
    let weights = LoraWeights { b: Tensor::ones([5, 2], &Device::flex()), ..factors(2, 1.0) };
    other.insert(0, "q_proj", weights);
    let message = refused(&other, folder.path());
    assert_eq!(message, format!("MODEL/model-1.safetensors: tensor {Q}: has shape [4, 6]; the adapter is for [5, 6]"));
    let folder = tempfile::tempdir().unwrap();
    shard(folder.path(), "model.safetensors", &[(Q, Dtype::F8_E4M3, vec![4, 6], vec![0; 24])]);
    let mut one = Adapter::new("", false);
    one.insert(0, "q_proj", factors(1, 1.0));
    let message = refused(&one, folder.path());
    assert!(message.ends_with("has type F8_E4M3; an adapter is merged into F32, F16 and BF16"), "{message}");
    assert!(refused(&Adapter::new("", false), folder.path()).ends_with("the adapter touches no module"));
}

#[test]
fn a_sum_beyond_the_type_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let values = bytes(Dtype::F16, &[60000.0; 24]);
    shard(folder.path(), "model.safetensors", &[(Q, Dtype::F16, vec![4, 6], values)]);
    let device = Device::flex();
    let mut one = Adapter::new("", false);
    one.insert(
        0,
        "q_proj",
        LoraWeights { a: Tensor::ones([1, 6], &device), b: Tensor::ones([4, 1], &device), alpha: 9e3 },
    );
    let message = refused(&one, folder.path());
    assert!(message.ends_with("row 0, column 0: the sum is more than F16 can hold"), "{message}");
}

#[test]
fn hostile_indices_are_refused() {
    for (index, reason) in [
        ("{}", "has no weight_map"),
        ("[", "EOF while parsing a list at line 1 column 1"),
        (r#"{"weight_map": {}}"#, "weight_map is empty"),
        (r#"{"weight_map": {"a": 3}}"#, "weight_map: \"a\" names no file"),
        (
            r#"{"weight_map": {"a": "../x.safetensors"}}"#,
            "weight_map: \"../x.safetensors\" is not the name of a safetensors file",
        ),
        (
            r#"{"weight_map": {"a": "config.json"}}"#,
            "weight_map: \"config.json\" is not the name of a safetensors file",
        ),
    ] {
        let folder = model(Dtype::F32);
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let message = refused(&adapter(), folder.path());
        assert_eq!(message, format!("MODEL/model.safetensors.index.json: {reason}"));
    }
}

#[test]
fn a_cut_shard_leaves_nothing() {
    let folder = model(Dtype::F32);
    let path = folder.path().join("model-2.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = refused(&adapter(), folder.path());
    assert!(message.starts_with("MODEL/model-2.safetensors: its tensors need 96 bytes"), "{message}");
}

#[test]
fn a_target_that_holds_something_is_left_alone() {
    let folder = model(Dtype::F32);
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("mine"), "precious").unwrap();
    assert!(matches!(merge(&adapter(), folder.path(), target.path()), Err(AdapterError::Occupied { .. })));
    assert!(matches!(merge(&adapter(), folder.path(), folder.path()), Err(AdapterError::Occupied { .. })));
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Merging an adapter and then its opposite gives the model back.
    #[test]
    fn the_opposite_undoes_it(rank in 1_usize..6, alpha in -4.0_f64..4.0) {
        let folder = model(Dtype::F32);
        let mut there = Adapter::new("", false);
        there.insert(0, "q_proj", factors(rank, alpha));
        let mut back = Adapter::new("", false);
        back.insert(0, "q_proj", LoraWeights { alpha: -alpha, ..there.get(0, "q_proj").unwrap().clone() });
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        merge(&there, folder.path(), &one).unwrap();
        merge(&back, &one, &two).unwrap();
        let before = crate::tensors::decode(Dtype::F32, &read(&folder.path().join("model-1.safetensors"), Q).1);
        let after = crate::tensors::decode(Dtype::F32, &read(&two.join("model-1.safetensors"), Q).1);
        for (x, y) in before.iter().zip(after) {
            prop_assert!((x - y).abs() < 4e-6, "{} {}", x, y);
        }
    }
}
