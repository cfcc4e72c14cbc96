//! What is written is read back, and its configuration is as short as it can be.

use proptest::prelude::*;

use super::super::{Dtype as Written, SaveOptions, save};
use super::*;

const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn factors(rank: usize, cols: usize, rows: usize, alpha: f64, seed: usize) -> LoraWeights {
    let device = Device::flex();
    // Values that no two places share and that every type can hold.
    let value = |i: usize| ((i * 7 + seed * 13) % 61) as f32 * 0.125 - 3.5;
    let a = Tensor::from_data(TensorData::new((0..rank * cols).map(value).collect(), [rank, cols]), &device);
    let b = Tensor::from_data(TensorData::new((0..rows * rank).map(|i| value(i + 5)).collect(), [rows, rank]), &device);
    LoraWeights { a, b, alpha }
}

fn written_config(adapter: &Adapter) -> Value {
    let folder = tempfile::tempdir().unwrap();
    save(adapter, folder.path(), &SaveOptions::default()).unwrap();
    serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap()
}

fn adapter(places: &[(usize, &str, usize, f64)]) -> Adapter {
    let mut adapter = Adapter::new("some/base", true);
    for (i, (layer, module, rank, alpha)) in places.iter().enumerate() {
        adapter.insert(*layer, module, factors(*rank, 5, 3, *alpha, i));
    }
    adapter
}

#[test]
fn alike_places_need_no_patterns() {
    let places: Vec<_> = (0..3).flat_map(|l| [(l, "q_proj", 4, 8.0), (l, "v_proj", 4, 8.0)]).collect();
    let config = written_config(&adapter(&places));
    for (key, expected) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("base_model_name_or_path", json!("some/base")),
        ("r", json!(4)),
        ("lora_alpha", json!(8)),
        ("use_rslora", json!(true)),
        ("lora_dropout", json!(0.0)),
        ("bias", json!("none")),
        ("inference_mode", json!(true)),
        ("fan_in_fan_out", json!(false)),
        ("target_modules", json!(["q_proj", "v_proj"])),
        ("layers_to_transform", json!(null)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
    ] {
        assert_eq!(config[key], expected, "{key}");
    }
}

#[test]
fn a_module_type_that_differs_everywhere_has_one_pattern() {
    let places: Vec<_> =
        (0..3).flat_map(|l| [(l, "q_proj", 4, 8.0), (l, "k_proj", 4, 8.0), (l, "v_proj", 2, 1.5)]).collect();
    let config = written_config(&adapter(&places));
    assert_eq!(config["rank_pattern"], json!({"v_proj": 2}));
    assert_eq!(config["alpha_pattern"], json!({"v_proj": 1.5}));
}

#[test]
fn a_place_that_differs_alone_is_named_in_full() {
    let config =
        written_config(&adapter(&[(0, "down_proj", 4, 8.0), (1, "down_proj", 4, 8.0), (2, "down_proj", 6, 8.0)]));
    assert_eq!(config["rank_pattern"], json!({"model.layers.2.mlp.down_proj": 6}));
    assert_eq!(config["alpha_pattern"], json!({}));
}

#[test]
fn layers_left_out_are_said() {
    let config = written_config(&adapter(&[(1, "q_proj", 4, 8.0), (3, "q_proj", 4, 8.0)]));
    assert_eq!(config["layers_to_transform"], json!([1, 3]));
    assert_eq!(config["target_modules"], json!(["q_proj"]));
}

#[test]
fn layers_with_different_modules_are_named_in_full() {
    let config = written_config(&adapter(&[(0, "q_proj", 4, 8.0), (1, "v_proj", 4, 8.0)]));
    assert_eq!(config["layers_to_transform"], json!(null));
    assert_eq!(config["target_modules"], json!(["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_adapter_comes_back(
        places in prop::collection::btree_map((0_usize..40, 0..MODULES.len()), (1_usize..9, 1_usize..20, 1_usize..20, 1_u32..400), 1..24),
        use_rslora in any::<bool>(),
        dtype in prop::sample::select(vec![Written::F32, Written::F16, Written::Bf16]),
        base_model in "[a-zA-Z0-9/._-]{0,20}",
    ) {
        let mut adapter = Adapter::new(&base_model, use_rslora);
        for (seed, ((layer, module), (rank, cols, rows, alpha))) in places.into_iter().enumerate() {
            adapter.insert(layer, MODULES[module], factors(rank, cols, rows, f64::from(alpha) / 4.0, seed));
        }
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("adapter");
        save(&adapter, &target, &SaveOptions { dtype, ..Default::default() }).unwrap();
        let read = load(&target, &Device::flex()).unwrap();
        prop_assert_eq!(&read.base_model, &base_model);
        prop_assert_eq!(read.use_rslora, use_rslora);
        prop_assert_eq!(read.len(), adapter.len());
        for (layer, module, expected) in adapter.iter() {
            let found = read.get(layer, module).unwrap();
            prop_assert_eq!(found.alpha, expected.alpha);
            prop_assert_eq!(found.a.dims(), expected.a.dims());
            prop_assert_eq!(found.b.dims(), expected.b.dims());
            prop_assert_eq!(values(&found.a), values(&expected.a));
            prop_assert_eq!(values(&found.b), values(&expected.b));
        }
    }

    /// Values that do not fit a type exactly come back as that type's nearest.
    #[test]
    fn values_are_rounded_to_the_nearest(x in -60000.0_f32..60000.0, small in -1.0_f32..1.0) {
        let device = Device::flex();
        let mut adapter = Adapter::new("", false);
        let a = Tensor::from_data(TensorData::new(vec![x, small], [1, 2]), &device);
        adapter.insert(0, "q_proj", LoraWeights { a, b: Tensor::ones([1, 1], &device), alpha: 1.0 });
        for dtype in [Written::F32, Written::F16, Written::Bf16] {
            let folder = tempfile::tempdir().unwrap();
            save(&adapter, folder.path(), &SaveOptions { dtype, ..Default::default() }).unwrap();
            let read = load(folder.path(), &device).unwrap();
            let rounded = |x: f32| match dtype {
                Written::F32 => x,
                Written::F16 => half::f16::from_f32(x).to_f32(),
                Written::Bf16 => half::bf16::from_f32(x).to_f32(),
            };
            prop_assert_eq!(values(&read.get(0, "q_proj").unwrap().a), vec![rounded(x), rounded(small)]);
        }
    }
}
