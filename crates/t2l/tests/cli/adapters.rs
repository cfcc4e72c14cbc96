//! `t2l adapter …` on small adapters of a small model.

use std::path::PathBuf;

use t2l::adapter::{SaveOptions, peft};
use t2l::core::{Adapter, LoraWeights, device};
use tempfile::TempDir;

use super::{entries, json, t2l, text};

/// Heads of the small model: 4 for queries, 2 for keys, each of width 4.
const CONFIG: &str = r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}"#;

/// A folder with two adapters, `a` and `b`, and the model they are for.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(desk.path("model")).expect("a folder");
        std::fs::write(desk.path("model/config.json"), CONFIG).expect("written");
        desk.adapter("a", 0.7, &[(0, "q_proj", 16), (1, "v_proj", 8)]);
        desk.adapter("b", 0.3, &[(0, "q_proj", 16), (1, "up_proj", 12)]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("utf-8").to_owned()
    }

    fn adapter(&self, name: &str, seed: f64, places: &[(usize, &str, usize)]) {
        let device = device::parse("cpu").expect("a device");
        let tensor = |rows: usize, cols: usize, seed: f64| {
            let values: Vec<f32> = (0..rows * cols).map(|i| (i as f64 * seed).sin() as f32).collect();
            burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(values, [rows, cols]), &device)
        };
        let mut adapter = Adapter::new("some/model", true);
        for (layer, module, out) in places {
            let weights = LoraWeights { a: tensor(2, 6, seed), b: tensor(*out, 2, seed + 0.1), alpha: 4.0 };
            adapter.insert(*layer, module, weights);
        }
        let options = SaveOptions { description: Some(format!("Task {name}.")), ..SaveOptions::default() };
        peft::save(&adapter, &self.path(name), &options).expect("saved");
    }

    /// Weights that fit adapter `a`.
    fn weights(&self) {
        let view =
            |shape: Vec<usize>, bytes| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        let zeros = vec![0_u8; 16 * 6 * 4];
        let tensors = [
            ("model.layers.0.self_attn.q_proj.weight", view(vec![16, 6], &zeros).expect("a view")),
            ("model.layers.1.self_attn.v_proj.weight", view(vec![8, 6], &zeros[..8 * 6 * 4]).expect("a view")),
            ("model.norm.weight", view(vec![6], &zeros[..24]).expect("a view")),
        ];
        let bytes = safetensors::serialize(tensors, None).expect("serialised");
        std::fs::write(self.path("model/model.safetensors"), bytes).expect("written");
    }

    /// Runs `t2l adapter …`; words that begin with `@` are paths on the desk.
    fn run(&self, words: &str) -> std::process::Output {
        let words: Vec<String> =
            words.split(' ').map(|w| w.strip_prefix('@').map_or(w.to_owned(), |name| self.text(name))).collect();
        let mut arguments = vec!["adapter"];
        arguments.extend(words.iter().map(String::as_str));
        t2l(&arguments)
    }

    /// What a run prints, with paths as they are on the desk.
    fn shown(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.tidy(&output.stdout)
    }

    fn refused(&self, words: &str) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        self.tidy(&output.stderr)
    }

    fn tidy(&self, bytes: &[u8]) -> String {
        text(bytes).replace(&format!("{}/", self.0.path().display()), "@")
    }

    fn same(&self, one: &str, other: &str) {
        let read = |name: &str| std::fs::read(self.path(name).join(peft::WEIGHTS)).expect("read");
        assert_eq!(read(one), read(other));
    }
}

#[test]
fn to_gguf_and_back() {
    let desk = Desk::new();
    assert_eq!(desk.shown("convert @a @new/a.gguf --model @model"), "@new/a.gguf\n");
    assert_eq!(entries(&desk.path("new")), ["a.gguf"]);
    // A file of ours tells its heads itself.
    let output = json(&desk.run("convert @new/a.gguf @back --json"));
    assert_eq!((output["format"].as_str(), output["from"].as_str()), (Some("peft"), Some("gguf")));
    assert_eq!(output["path"], desk.text("back"));
    assert_eq!(output["modules"], 2);
    desk.same("a", "back");
    insta::assert_snapshot!(desk.shown("inspect @new/a.gguf"), @r"
    description Task a.
    base model  some/model
    rank        2
    alpha       5.656854152679443 (plain, scaling 2.8284)
    layer  module      in → out        rank  norm of ΔW
        0  q_proj      6 → 16             2  15.8979
        1  v_proj      6 → 8              2  11.2383
    ");
}

#[test]
fn adapters_of_parts_are_fused_for_models_that_fuse_them() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("phi")).expect("made");
    let config = r#"{"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    std::fs::write(desk.path("phi/config.json"), config).expect("written");
    desk.shown("convert @a @fused --model @phi");
    desk.shown("convert @a @a.gguf --model @phi");
    desk.shown("convert @a.gguf @back");
    for name in ["@a", "@fused", "@back"] {
        let seen = json(&desk.run(&format!("inspect {name} --json")));
        let modules = seen["modules"].as_array().expect("a list");
        let place = |m: &serde_json::Value| (m["name"].as_str().unwrap_or_default().to_owned(), m["out"].as_u64());
        let expected = match name {
            "@a" => [("q_proj".to_owned(), Some(16)), ("v_proj".to_owned(), Some(8))],
            _ => [("qkv_proj".to_owned(), Some(32)), ("qkv_proj".to_owned(), Some(32))],
        };
        assert_eq!(modules.iter().map(place).collect::<Vec<_>>(), expected, "{name}");
        for (module, norm) in modules.iter().zip([15.8979, 11.2383]) {
            assert!((module["norm"].as_f64().expect("a number") - norm).abs() < 1e-3, "{name}: {module}");
        }
    }
}

#[test]
fn gguf_needs_to_know_the_base() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("convert @a @a.gguf"), @"error: @a.gguf: a GGUF adapter names its base model's architecture and follows its heads; name that model (--model)");
    insta::assert_snapshot!(desk.refused("convert @a @a.gguf --model @nowhere"), @r#"error: unknown model "@nowhere": it is no folder or file that is here, and none of smollm2-135m-instruct, all-minilm-l6-v2, gemma-3-270m"#);
    desk.shown("convert @a @a.gguf --model @model");
    insta::assert_snapshot!(desk.refused("convert @a @a.gguf --model @model"), @"error: @a.gguf: is there already; use --force to replace it");
    insta::assert_snapshot!(desk.refused("convert @a @b"), @"error: @b: is not empty; use --force to write into it anyway");
    desk.shown("convert @a @a.gguf --model @model --force --dtype bf16");
    assert_eq!(entries(desk.0.path()), ["a", "a.gguf", "b", "model"]);
}

#[test]
fn merge_writes_a_whole_model() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("merge @a --model @model -o @merged"), @"error: @model: merging into anything but a folder with safetensors files (GGUF or pickles do not do) is not supported");
    insta::assert_snapshot!(desk.refused("inspect @model"), @"error: @model: is no adapter: the folder holds no adapter_config.json");
    insta::assert_snapshot!(desk.refused("inspect @a/adapter_config.json"), @"error: @a/adapter_config.json: is no adapter: a PEFT folder is wanted, or a file whose name ends in .gguf");
    insta::assert_snapshot!(desk.refused("merge @a --model @gone -o @merged"), @r#"error: unknown model "@gone": it is no folder or file that is here, and none of smollm2-135m-instruct, all-minilm-l6-v2, gemma-3-270m"#);
    for name in ["smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"] {
        let message = desk.refused(&format!("merge @a --model {name} -o @merged"));
        assert!(message.starts_with(&format!("error: {name}: `t2l models` has it as GGUF")), "{message}");
        assert!(message.contains("`hf download HuggingFaceTB/SmolLM2-135M-Instruct "), "{message}");
    }
    desk.weights();
    insta::assert_snapshot!(desk.refused("merge @b --model @model -o @merged"), @"error: @model: has no weight for layer 1, up_proj");
    assert_eq!(entries(desk.0.path()), ["a", "b", "model"]);
    let output = json(&desk.run("merge @a --model @model -o @merged --json"));
    assert_eq!(
        (output["merged"].as_u64(), output["tensors"].as_u64(), output["shards"].as_u64()),
        (Some(2), Some(3), Some(1))
    );
    assert!(output["bytes"].is_u64() && output["seconds"].is_number());
    assert_eq!(entries(&desk.path("merged")), ["config.json", "model.safetensors"]);
    insta::assert_snapshot!(desk.refused("merge @a --model @model -o @merged"), @"error: @merged: is not empty; a merged model is written into a new folder");
    // The same from a GGUF adapter, up to its alpha in f32.
    desk.shown("convert @a @a.gguf --model @model");
    desk.shown("merge @a.gguf --model @model -o @again");
    let read = |name: &str| t2l_testing::tensors(&desk.path(name).join("model.safetensors"));
    let (one, other) = (read("merged"), read("again"));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, tensor) in &one {
        for (x, y) in tensor.values.iter().zip(&other[name].values) {
            assert!((x - y).abs() <= 1e-6 * (1.0 + x.abs()), "{name}: {x} and {y}");
        }
    }
}

#[test]
fn mix_has_the_ranks_of_its_method() {
    let desk = Desk::new();
    for (method, rank) in [("cat", 4), ("svd", 2), ("linear", 2), ("svd --rank 1", 1)] {
        let name = format!("mixed-{}", method.replace(' ', ""));
        let words = format!("mix @a @b --weights 0.5,-0.25 --method {method} -o @{name} --json");
        let output = json(&desk.run(&words));
        assert_eq!(output["weights"], serde_json::json!([0.5, -0.25]));
        let inspected = json(&desk.run(&format!("inspect @{name} --json")));
        assert_eq!(inspected["modules"][0]["rank"], rank, "{method}");
        assert_eq!(inspected["modules"].as_array().map(Vec::len), Some(3));
    }
}

#[test]
fn mix_says_what_is_missing() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("mix @a @b --weights 1 -o @c"), @"error: --weights has 1 for 2 adapters; there must be as many");
    insta::assert_snapshot!(desk.refused("mix @a @b --rank 3 -o @c"), @"error: --rank is for --method svd; the others have the rank that their parts give them");
    insta::assert_snapshot!(desk.refused("mix @a @b --method svd --rank 0 -o @c"), @"error: an adapter of rank 0 touches nothing");
    insta::assert_snapshot!(desk.refused("mix @a @b --weights 1,NaN -o @c"), @"error: the weight NaN is no number to mix with");
    desk.adapter("wide", 0.3, &[(0, "q_proj", 20)]);
    insta::assert_snapshot!(desk.refused("mix @a @wide -o @c"), @"error: layer 0, q_proj: one adapter is for weights [16, 6], another for [20, 6]");
    assert_eq!(desk.run("mix -o @c").status.code(), Some(2));
    assert!(!desk.path("c").exists());
}

#[test]
fn diff_shows_every_place() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.shown("diff @a @b"), @r"
    layer  module         norm A    norm B  distance   cosine  angles in     angles out
        0  q_proj         15.8979   20.9669   26.3287  -0.0013  9.6–40.7°     87.7–89.7°
        1  up_proj              –   18.1596   18.1596        –  –             –
        1  v_proj         11.2383         –   11.2383        –  –             –
    all                   19.4690   27.7377   33.9009  -0.0008
    ");
    insta::assert_snapshot!(desk.shown("diff @a @a"), @r"
    layer  module         norm A    norm B  distance   cosine  angles in     angles out
        0  q_proj         15.8979   15.8979    0.0000   1.0000  0.0°          0.0°
        1  v_proj         11.2383   11.2383    0.0000   1.0000  0.0°          0.0°
    all                   19.4690   19.4690    0.0000   1.0000
    ");
    let output = json(&desk.run("diff @a @a --svg @map.svg --json"));
    assert_eq!(output["distance"], 0.0);
    for module in output["modules"].as_array().expect("modules") {
        assert!((module["cosine"].as_f64().expect("a cosine") - 1.0).abs() < 1e-12, "{module}");
        assert_eq!(module["angles_in"].as_array().map(Vec::len), Some(2));
        assert!(module["name"].is_string() && module["layer"].is_u64());
    }
    let svg = std::fs::read_to_string(desk.path("map.svg")).expect("drawn");
    assert_eq!(svg.matches("<title>").count(), 6);
}
