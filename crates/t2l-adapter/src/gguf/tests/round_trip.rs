//! What is written means the same when it is read, here and in llama.cpp's terms.

use proptest::prelude::*;
use t2l_gguf::GgufFile;

use super::*;
use crate::Dtype;

fn written(adapter: &Adapter, base: &BaseShape, options: &SaveOptions) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.gguf");
    save(adapter, base, &path, options).unwrap();
    (folder, path)
}

#[test]
fn the_file_is_what_llama_cpp_expects() {
    let adapter = adapter(true, &[(0, "q_proj", 4, 8.0), (3, "down_proj", 4, 8.0)]);
    let options = SaveOptions { description: Some("Sort the words.".into()), ..Default::default() };
    let (_folder, path) = written(&adapter, &llama(), &options);
    let file = GgufFile::open(&path).unwrap();
    for (key, value) in [
        ("general.architecture", "llama"),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("adapter.lora.task_name", "Sort the words."),
        ("general.base_model.0.repo_url", "https://huggingface.co/some/base"),
    ] {
        assert_eq!(file.str(key).unwrap(), value, "{key}");
    }
    // alpha / rank is to be 8 / √4.
    assert_eq!(file.f32("adapter.lora.alpha").unwrap(), 16.0);
    let shapes: Vec<_> = file.tensors().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    let expected: [(&str, &[usize]); 4] = [
        ("blk.0.attn_q.weight.lora_a", &[4, 6]),
        ("blk.0.attn_q.weight.lora_b", &[16, 4]),
        ("blk.3.ffn_down.weight.lora_a", &[4, 6]),
        ("blk.3.ffn_down.weight.lora_b", &[10, 4]),
    ];
    assert_eq!(shapes, expected);
    // Row 1 of a head of width 4 is row 2 of the checkpoint's.
    let (b, ours) =
        (file.read_f32("blk.0.attn_q.weight.lora_b").unwrap(), values(&adapter.get(0, "q_proj").unwrap().b));
    assert_eq!((&b[0..4], &b[4..8], &b[8..12]), (&ours[0..4], &ours[8..12], &ours[4..8]));
    assert_eq!(file.read_f32("blk.3.ffn_down.weight.lora_b").unwrap(), values(&adapter.get(3, "down_proj").unwrap().b));
}

#[test]
fn what_one_alpha_cannot_say_goes_into_b() {
    let adapter =
        adapter(false, &[(0, "v_proj", 2, 8.0), (1, "v_proj", 2, 8.0), (2, "v_proj", 2, 6.0), (3, "v_proj", 4, 0.0)]);
    let (_folder, path) = written(&adapter, &llama(), &SaveOptions::default());
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.f32("adapter.lora.alpha").unwrap(), 8.0);
    let read = load(&path, None, &Device::flex()).unwrap().adapter;
    let scaled = |layer, by: f32| -> Vec<f32> {
        values(&adapter.get(layer, "v_proj").unwrap().b).iter().map(|x| x * by).collect()
    };
    for (layer, by) in [(0, 1.0), (1, 1.0), (2, 0.75), (3, 0.0)] {
        let found = read.get(layer, "v_proj").unwrap();
        assert_eq!((found.alpha, values(&found.b)), (8.0, scaled(layer, by)), "layer {layer}");
    }
}

/// llama.cpp takes an alpha of nought for "no scaling", so that it must not be written.
#[test]
fn an_adapter_of_nothing_stays_nothing() {
    let adapter = adapter(false, &[(0, "v_proj", 2, 0.0)]);
    let (_folder, path) = written(&adapter, &llama(), &SaveOptions::default());
    assert_eq!(GgufFile::open(&path).unwrap().f32("adapter.lora.alpha").unwrap(), 1.0);
    let read = load(&path, None, &Device::flex()).unwrap().adapter;
    assert!(values(&read.get(0, "v_proj").unwrap().b).iter().all(|x| *x == 0.0));
}

#[test]
fn a_name_that_is_no_hub_id_has_no_page() {
    let adapter = adapter(false, &[(0, "v_proj", 2, 1.0)]);
    for name in ["/models/mine", "a/b/c", "mine", "../x"] {
        let options = SaveOptions { base_model_name: Some(name.into()), ..Default::default() };
        let (_folder, path) = written(&adapter, &llama(), &options);
        let file = GgufFile::open(&path).unwrap();
        assert!(file.metadata("general.base_model.0.repo_url").is_none(), "{name}");
        assert_eq!(load(&path, None, &Device::flex()).unwrap().adapter.base_model, name);
    }
}

#[test]
fn a_file_that_is_there_is_replaced_only_when_asked() {
    let adapter = adapter(false, &[(0, "v_proj", 2, 1.0)]);
    let (_folder, path) = written(&adapter, &llama(), &SaveOptions::default());
    let again = save(&adapter, &llama(), &path, &SaveOptions::default());
    assert!(matches!(again, Err(AdapterError::Exists { .. })));
    save(&adapter, &llama(), &path, &SaveOptions { force: true, ..Default::default() }).unwrap();
}

#[test]
fn what_cannot_be_said_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let message = |adapter: &Adapter, base: &BaseShape, options: &SaveOptions| {
        save(adapter, base, &path, options).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
    };
    let plain = SaveOptions::default();
    let odd = BaseShape::new("llama", 3, 3).unwrap();
    assert_eq!(message(&Adapter::new("", false), &llama(), &plain), "FILE: the adapter touches no module");
    assert_eq!(
        message(&adapter(false, &[(1, "lm_head", 1, 1.0)]), &llama(), &plain),
        "layer 1, lm_head: has no name in GGUF files of llama models"
    );
    assert_eq!(
        message(&adapter(false, &[(1, "q_proj", 1, 1.0)]), &odd, &plain),
        "layer 1, q_proj: has 16 rows, which are not 3 heads of an even width"
    );
    let mut large = adapter(false, &[(0, "v_proj", 1, 1.0)]);
    let weights = LoraWeights { a: Tensor::full([1, 6], 1e6, &Device::flex()), ..factors("v_proj", 1, 1.0) };
    large.insert(0, "v_proj", weights);
    let half = SaveOptions { dtype: Dtype::F16, ..Default::default() };
    assert_eq!(message(&large, &llama(), &half), "layer 0, v_proj: A holds 1000000, which F16 cannot");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_update_comes_back(
        places in prop::collection::btree_map((0_usize..40, 0_usize..7), (1_usize..9, -40_i32..400), 1..16),
        use_rslora in any::<bool>(),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
        interleaved in any::<bool>(),
        description in prop::option::of("\\PC{0,30}"),
    ) {
        const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        let places: Vec<_> = places.into_iter().map(|((l, m), (r, alpha))| (l, MODULES[m], r, f64::from(alpha) / 4.0)).collect();
        let adapter = adapter(use_rslora, &places);
        let base = BaseShape::new(if interleaved { "llama" } else { "qwen2" }, 4, 2).unwrap();
        let options = SaveOptions { dtype, description: description.clone(), ..Default::default() };
        let (_folder, path) = written(&adapter, &base, &options);
        let read = load(&path, None, &Device::flex()).unwrap();
        prop_assert_eq!(read.description, description);
        prop_assert_eq!(&read.adapter.base_model, "some/base");
        prop_assert_eq!(read.adapter.len(), adapter.len());
        let step = match dtype { Dtype::F32 => 1e-6, Dtype::F16 => 2e-3, Dtype::Bf16 => 1.6e-2 };
        for (layer, module, expected) in adapter.iter() {
            let found = read.adapter.get(layer, module).unwrap();
            let (_, far) = compare(&adapter, expected, &read.adapter, found);
            // No value of either factor exceeds 1.
            let bound = (adapter.scaling(expected).value().abs() as f32) * expected.rank() as f32;
            prop_assert!(far <= step * bound.max(1e-6), "layer {} {}: {} of {}", layer, module, far, bound);
        }
    }
}
