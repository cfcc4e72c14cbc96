//! Every reference case through a `.pt` file, and the folders in the published layout as they are.

use std::path::Path;

use burn::tensor::Tensor;
use serde_json::{Value, json};
use t2l_core::AdapterGenerator;
use t2l_hypernet::{Checkpoint, Dtype, Hypernet, Offset, import};
use t2l_testing::{Cases, assert_close, fixtures};

use super::pt::{self, State};
use crate::support::{Tensors, device, file, matrix, reference_config, size, values};

const ATOL: f64 = 2e-5;
const RTOL: f64 = 1e-4;

#[test]
fn reference_folders_are_imported() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("hypernet"), "hypermod.pt", |case| {
        let expected = case.join("expected");
        let facts = t2l_testing::json(&expected.join("facts.json"));
        let config = expected.join("base_model_config/config.json");
        for base in [None, Some(config.as_path())] {
            let checkpoint = import::sakana(case, base, &device()).expect("imported");
            let modules: Vec<&str> =
                checkpoint.manifest.config.layout.modules.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(json!(modules), facts["layer_type_order"], "{}", case.display());
            assert_eq!(checkpoint.hypernet.config.scaling.value(), facts["scaling"].as_f64().expect("scaling"));
            assert_eq!(checkpoint.manifest.encoder.id, "Alibaba-NLP/gte-large-en-v1.5");
            // Through our own files, as a user would have it.
            let folder = tempfile::tempdir().expect("a folder");
            let target = folder.path().join("c");
            checkpoint.save(&target, Dtype::F32).expect("saved");
            let hypernet = Checkpoint::load(&target, &device()).expect("loaded").hypernet;
            let tasks = file(&expected, "task_emb.safetensors");
            let input =
                tasks.iter().find(|(_, t)| t.shape.last() == Some(&hypernet.config.embedding)).expect("input").1;
            let input =
                Tensor::from_data(burn::tensor::TensorData::new(input.f32(), [1, input.values.len()]), &device());
            compare(case, &hypernet, input, &file(&expected, "adapter_model.safetensors"));
        }
        Ok(())
    });
}

#[test]
fn reference_cases_are_imported() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("hypernet"), "state_dict.safetensors", |case| {
        let config = t2l_testing::json(&case.join("config.json"));
        let (state, io) = (file(case, "state_dict.safetensors"), file(case, "io.safetensors"));
        let order = config["state_dict_key_order"].as_array().expect("an order");
        let tensors = order.iter().map(|name| {
            let name = name.as_str().expect("a name");
            (name.to_owned(), state[name].shape.clone(), state[name].f32())
        });
        let bytes = State { tensors: tensors.collect() }.bytes(b"");
        let folder = tempfile::tempdir().expect("a folder");
        pt::folder(folder.path(), &bytes, &yaml(&config), &adapter(&config));
        let hypernet = import::sakana(folder.path(), None, &device()).expect("imported").hypernet;

        let widths = |m: &str| (size(&config["in_features"], m), size(&config["out_features"], m));
        let mut expected = reference_config(&config, &state, widths);
        expected.layout.base_model = hypernet.config.layout.base_model.clone();
        // Offsets without a meaning are left out.
        if hypernet.config.offset == Offset::None {
            expected.offset = Offset::None;
        }
        assert_eq!(hypernet.config, expected, "{}", case.display());

        let tasks = io.get("task_embs").map_or_else(|| Tensor::zeros([1, 1], &device()), matrix);
        let factors = hypernet.forward(&hypernet.parameters, tasks.clone(), None).expect("forward").factors;
        for m in factors.modules {
            assert_close(&format!("A.{}", m.name), &values(m.a), &io[&format!("A.{}", m.name)].values, ATOL, RTOL);
            assert_close(&format!("B.{}", m.name), &values(m.b), &io[&format!("B.{}", m.name)].values, ATOL, RTOL);
        }
        if case.join("generated_task0.safetensors").exists() {
            compare(case, &hypernet, tasks, &file(case, "generated_task0.safetensors"));
        }
        Ok(())
    });
}

/// Compares the adapter of task 0.
fn compare(case: &Path, hypernet: &Hypernet, tasks: Tensor<2>, expected: &Tensors) {
    let adapter = hypernet.generate(tasks).expect("generate").adapter(0, "").expect("task 0");
    assert_eq!(2 * adapter.len(), expected.len(), "{}", case.display());
    for (layer, module, weights) in adapter.iter() {
        for (factor, found) in [("A", values(weights.a.clone())), ("B", values(weights.b.clone()))] {
            let (place, end) = (format!(".layers.{layer}."), format!(".{module}.lora_{factor}.weight"));
            let stored = expected.iter().find(|(key, _)| key.contains(&place) && key.ends_with(&end)).expect("a place");
            assert_close(&format!("{} {}", case.display(), stored.0), &found, &stored.1.values, ATOL, RTOL);
        }
    }
}

/// args.yaml as the published trainer writes it, its lies included.
fn yaml(config: &Value) -> String {
    let keys = [
        "training_task",
        "shared_AB_head",
        "autoreg_gen",
        "learnable_pos_emb",
        "hypernet_latent_size",
        "head_in_size",
        "factorized",
        "delta_w_scaling",
        "pred_z_score",
        "use_one_hot_task_emb",
    ];
    let mut text: String =
        keys.iter().map(|key| format!("{key}: {}\n", config[key].to_string().replace('"', ""))).collect();
    text.push_str(&format!("encoder_type: linear\nhead_use_bias: false\nsave_freq: 1{}\n", "0".repeat(100)));
    text.push_str("emb_model: Alibaba-NLP/gte-large-en-v1.5\nmt_lora_path: null\nnested:\n  deep:\n  - You solve.\n");
    text
}

fn adapter(config: &Value) -> Value {
    let mut modules: Vec<&str> =
        config["target_modules"].as_array().expect("a list").iter().flat_map(Value::as_str).collect();
    modules.sort_unstable();
    json!({
        "base_model_name_or_path": "tiny/backbone", "r": config["r"], "lora_alpha": config["lora_alpha"],
        "use_rslora": config["use_rslora"], "target_modules": modules, "rank_pattern": {}, "alpha_pattern": {},
        "layers_to_transform": null, "use_dora": false, "peft_type": "LORA",
    })
}
