//! Files that are damaged, lie, or do not belong together: an error that names file and reason, nothing worse.

use std::path::Path;

use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Value, json};
use t2l_backbone::{BackboneError, Decoder, GenerateOptions, KvCache, Sampling};
use t2l_core::{AdapterBatch, FitError};

use super::ids;
use super::tiny::{Shape, Tiny};

fn small_shape() -> Shape {
    Shape {
        family: "llama",
        layers: 2,
        kv_heads: 1,
        group: 2,
        half_head: 2,
        hidden: 6,
        inter: 8,
        vocabulary: 12,
        window: None,
        bias: false,
        tied: true,
        seed: 0,
    }
}

fn small(family: &'static str) -> Tiny {
    Tiny::new(Shape { family, window: Some(3), ..small_shape() })
}

fn message(result: Result<Decoder, BackboneError>) -> String {
    result.expect_err("must be refused").to_string()
}

fn load(folder: &Path) -> Result<Decoder, BackboneError> {
    Decoder::load(folder, &Device::flex())
}

#[test]
fn configurations_that_no_decoder_can_have() {
    let cases: [(&str, Value, &str); 37] = [
        ("model_type", json!("mamba"), "\"mamba\" is not supported"),
        ("model_type", Value::Null, "\"\" is not supported"),
        ("hidden_size", Value::Null, "hidden_size is missing"),
        ("hidden_size", json!(-1), "hidden_size is -1"),
        ("hidden_size", json!("six"), "hidden_size is \"six\""),
        ("hidden_size", json!(u64::MAX), "hidden size"),
        ("vocab_size", json!(0), "vocabulary is 0"),
        ("num_hidden_layers", json!(4_000_000_000u64), "number of layers"),
        ("num_attention_heads", json!(0), "number of heads is 0"),
        ("num_key_value_heads", json!(3), "do not divide"),
        ("num_key_value_heads", json!(0), "key/value heads is 0"),
        ("head_dim", json!(3), "do not divide"),
        ("head_dim", json!(6), "the configuration asks for"),
        ("intermediate_size", json!(9), "the configuration asks for"),
        ("rms_norm_eps", json!(-1.0), "epsilon"),
        ("rope_theta", json!(0.0), "RoPE base frequency is 0"),
        ("rope_scaling", json!({"rope_type": "resonance", "factor": 2.0}), "\"resonance\" is not supported"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 0.5}), "out of range"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": -2.0}), "out of range"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 1e9}), "scaling factor 1000000000"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 1e300}), "longer than 16777216"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0, "attention_factor": 0}), "out of range"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}), "beta_fast is -1"),
        ("rope_scaling", json!({"rope_type": "longrope", "factor": 2.0}), "short_factor is missing"),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "short_factor": 1, "long_factor": [1, 1]}),
            "a list of numbers",
        ),
        ("rope_scaling", json!({"rope_type": "longrope", "short_factor": [1], "long_factor": [1, 1]}), "out of range"),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "short_factor": [1, 0], "long_factor": [1, 1]}),
            "out of range",
        ),
        ("rope_scaling", json!({"rope_type": "linear"}), "factor is missing"),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0}), "out of range"),
        ("rope_scaling", json!([1, 2]), "rope_scaling"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("sliding_window", json!(0), "window is empty"),
        ("layer_types", json!(["full_attention"]), "1 layer types for 2 layers"),
        ("layer_types", json!(["full_attention", "linear_attention"]), "linear_attention"),
        ("hidden_act", json!("relu"), "\"relu\" is not supported"),
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
        ("tie_word_embeddings", json!(false), "lm_head.weight: is missing"),
    ];
    for (key, value, reason) in cases {
        let mut model = small("llama");
        model.config.insert(key.to_owned(), value.clone());
        let message = message(model.load());
        assert!(message.contains(reason), "{key} {value}: {message}");
    }
    let phi3: [(&str, Value, &str); 5] = [
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "\"dynamic\" of phi3 is not supported"),
        ("rope_scaling", json!({"type": "su", "short_factor": [1, 1, 1], "long_factor": [1, 1]}), "out of range"),
        ("partial_rotary_factor", json!(1.5), "partial_rotary_factor 1.5 of phi3"),
        ("partial_rotary_factor", json!(0.25), "an even number"),
        ("num_key_value_heads", json!(2), "qkv_proj.weight: has shape"),
    ];
    for (key, value, reason) in phi3 {
        let mut model = small("phi3");
        model.config.insert(key.to_owned(), value.clone());
        let message = message(model.load());
        assert!(message.contains(reason), "{key} {value}: {message}");
    }
    for text in ["", "{", "[]", "null", "{\"hidden_size\": 1e999}"] {
        let folder = tempfile::tempdir().expect("a folder");
        small("llama").write(folder.path());
        std::fs::write(folder.path().join("config.json"), text).expect("writes");
        let message = message(load(folder.path()));
        assert!(message.contains("config.json"), "{text}: {message}");
    }
}

#[test]
fn weights_that_do_not_fit() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let refused = |change: &dyn Fn(&mut Tiny), reason: &str| {
        let mut model = small("llama");
        change(&mut model);
        let message = message(model.load());
        assert!(message.contains(name) && message.contains(reason), "{message}");
    };
    refused(&|m| drop(m.tensors.remove(name)), "is missing");
    refused(&|m| m.tensors.get_mut(name).expect("there").0.reverse(), "has shape [8, 6]");
    for x in [f32::NAN, f32::INFINITY] {
        refused(&|m| m.tensors.get_mut(name).expect("there").1[5] = x, "value 5 is");
    }
    for family in ["gemma2", "gemma3_text", "qwen3", "qwen2"] {
        let model = small(family);
        let optional = model.tensors.keys().filter(|n| n.contains("norm") || n.ends_with(".bias"));
        for name in optional {
            let mut model = model.clone();
            model.tensors.remove(name);
            let message = message(model.load());
            assert!(message.contains(name.as_str()), "{family} without {name}: {message}");
        }
    }
}

#[test]
fn shards_and_their_index() {
    let model = small("llama");
    let second = |name: &str| name.contains("layers.1");
    let write = |map: Value| {
        let folder = tempfile::tempdir().expect("a folder");
        model.write(folder.path());
        std::fs::remove_file(folder.path().join("model.safetensors")).expect("removes");
        std::fs::write(folder.path().join("a.safetensors"), model.safetensors(|n| !second(n))).expect("writes");
        std::fs::write(folder.path().join("b.safetensors"), model.safetensors(second)).expect("writes");
        std::fs::write(folder.path().join("model.safetensors.index.json"), map.to_string()).expect("writes");
        folder
    };
    let places = |b: &str| -> Value {
        model.tensors.keys().map(|n| (n.clone(), json!(if second(n) { b } else { "a.safetensors" }))).collect()
    };
    let whole = write(json!({ "weight_map": places("b.safetensors") }));
    assert!(load(whole.path()).is_ok());
    for (map, reason) in [
        (json!({ "weight_map": places("c.safetensors") }), "c.safetensors"),
        (json!({ "weight_map": places("../b.safetensors") }), "is not a file name"),
        (json!({ "weight_map": places("..") }), "is not a file name"),
        (json!({ "weight_map": 3 }), "weight_map"),
        (json!({}), "weight_map"),
        (json!({ "weight_map": {} }), "is missing"),
        (json!([]), "weight_map"),
    ] {
        let message = message(load(write(map.clone()).path()));
        assert!(message.contains(reason), "{map}: {message}");
    }
    std::fs::write(whole.path().join("b.safetensors"), model.safetensors(|_| true)).expect("writes");
    assert!(message(load(whole.path())).contains("two shards"));
}

#[test]
fn descriptions_of_a_model_are_read_up_to_a_bound() {
    for name in ["config.json", "model.safetensors.index.json"] {
        let folder = tempfile::tempdir().expect("a folder");
        small("llama").write(folder.path());
        let file = std::fs::File::create(folder.path().join(name)).expect("creates");
        // Sparse: it takes no room.
        file.set_len((64 << 20) + 1).expect("grows");
        let message = message(load(folder.path()));
        assert!(message.contains(name) && message.contains("more than 67108864 bytes"), "{message}");
    }
}

#[test]
fn no_model_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(message(load(folder.path())).contains("config.json"));
    small("llama").write(folder.path());
    std::fs::remove_file(folder.path().join("model.safetensors")).expect("removes");
    assert!(message(load(folder.path())).contains("model.safetensors"));
    std::fs::create_dir(folder.path().join("model.safetensors")).expect("creates");
    assert!(message(load(folder.path())).contains("model.safetensors"));
    assert!(message(load(&folder.path().join("absent.gguf"))).contains("absent.gguf"));
}

#[test]
fn requests_that_do_not_fit() {
    let model = small("llama");
    let decoder = model.load().expect("loads");
    let device = Device::flex();
    let embedded = || decoder.embed(ids(&[vec![1, 2, 3]], &device));
    let none = AdapterBatch::none(1);
    let two = AdapterBatch::from_adapters(&[&model.adapter(1)], &[Some(0), None], &device).expect("fits");
    let error = decoder.hidden(embedded(), &[0], None, &two).expect_err("two rows for one");
    assert!(matches!(error, BackboneError::Fit(FitError::Rows { expected: 1, found: 2 })), "{error}");
    let wider = Tiny::new(Shape { hidden: 10, ..small_shape() }).adapter(1);
    let wider = AdapterBatch::from_adapters(&[&wider], &[Some(0)], &device).expect("fits itself");
    let error = decoder.hidden(embedded(), &[0], None, &wider).expect_err("another width");
    assert!(matches!(error, BackboneError::Fit(FitError::Shape { .. })), "{error}");
    let deeper = Tiny::new(Shape { layers: 5, ..small_shape() }).adapter(1);
    let deeper = AdapterBatch::from_adapters(&[&deeper], &[Some(0)], &device).expect("fits itself");
    let error = decoder.hidden(embedded(), &[0], None, &deeper).expect_err("more layers");
    assert!(matches!(error, BackboneError::Fit(FitError::NoSuchLayer { .. })), "{error}");
    assert!(decoder.hidden(embedded(), &[0, 0], None, &none).is_err());
    let mut short = KvCache::new(decoder.config(), 1, 2, &device);
    let error = decoder.hidden(embedded(), &[0], Some(&mut short), &none).expect_err("no room");
    assert!(matches!(error, BackboneError::TooLong { tokens: 3, limit: 2 }), "{error}");
    let mut broad = KvCache::new(decoder.config(), 2, 9, &device);
    assert!(decoder.hidden(embedded(), &[0], Some(&mut broad), &none).is_err());
    assert!(decoder.layout("tiny", &["q_proj", "w_proj"]).is_err());

    let options = |most| GenerateOptions { max_new_tokens: vec![most], sampling: Sampling::GREEDY, stops: vec![] };
    let generate = |prompts: &[Vec<u32>], most| decoder.generate(prompts, &none, &options(most), |_, _| ());
    for prompts in [vec![], vec![vec![]], vec![vec![1], vec![]], vec![vec![12]], vec![vec![u32::MAX]]] {
        assert!(matches!(generate(&prompts, 1), Err(BackboneError::Prompt(_))), "{prompts:?}");
    }
    for (length, most) in [(250, 7), (1, usize::MAX), (300, 1)] {
        assert!(matches!(generate(&[vec![1; length]], most), Err(BackboneError::TooLong { limit: 256, .. })));
    }
    assert_eq!(generate(&[vec![1; 250]], 6).expect("fits")[0].ids.len(), 6);
    assert_eq!(generate(&[vec![1]], 0).expect("fits")[0].ids.len(), 0);
}

/// A context that a configuration promises and nobody has the memory for.
#[test]
fn prompts_whose_scores_would_fill_any_memory_are_refused() {
    let mut model = small("llama");
    model.config.insert("max_position_embeddings".into(), json!(1 << 24));
    let decoder = model.load().expect("loads");
    let (none, device) = (AdapterBatch::none(1), Device::flex());
    let embedded = || decoder.embed(ids(&[vec![1; 1 << 21]], &device));
    let too_long = |result: Result<(), BackboneError>| {
        let error = result.expect_err("too long");
        assert!(matches!(error, BackboneError::TooLong { tokens: 0x20_0000, limit: 92_681 }), "{error}");
    };
    too_long(decoder.hidden(embedded(), &[0], None, &none).map(drop));
    too_long(decoder.attention_outputs(embedded(), &none, 0, drop));
    too_long(decoder.layer_by_layer(1 << 21, &none).map(drop));
    let options = GenerateOptions { max_new_tokens: vec![1], sampling: Sampling::GREEDY, stops: vec![] };
    too_long(decoder.generate(&[vec![1; 1 << 21]], &none, &options, |_, _| ()).map(drop));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damaged_weights_do_not_panic(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), front in any::<bool>(), cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let model = small("qwen2");
        let folder = tempfile::tempdir().expect("a folder");
        model.write(folder.path());
        let mut bytes = model.safetensors(|_| true);
        let length = if front { 600.min(bytes.len()) } else { bytes.len() };
        bytes[place.index(length)] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(folder.path().join("model.safetensors"), &bytes).expect("writes");
        if let Err(error) = load(folder.path()) {
            prop_assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{}", error);
        }
    }

    #[test]
    fn damaged_configurations_do_not_panic(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let model = small("gemma3_text");
        let folder = tempfile::tempdir().expect("a folder");
        model.write(folder.path());
        let path = folder.path().join("config.json");
        let mut bytes = std::fs::read(&path).expect("reads");
        let place = place.index(bytes.len());
        bytes[place] = byte;
        std::fs::write(&path, &bytes).expect("writes");
        if let Err(error) = load(folder.path()) {
            prop_assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{}", error);
        }
    }

    #[test]
    fn damaged_gguf_models_do_not_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in prop::option::of(any::<prop::sample::Index>())) {
        let model = Tiny::new(small_shape());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        let mut bytes = model.gguf();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).expect("writes");
        if let Err(error) = load(&path) {
            prop_assert!(error.to_string().contains("tiny.gguf"), "{}", error);
        }
    }
}
