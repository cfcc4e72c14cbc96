//! Reconstruction against the published code: losses, gradients and parameters after eight optimizer steps.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use t2l_core::{Adapter, LoraWeights};
use t2l_hypernet::Target;
use t2l_testing::{Cases, Stored, assert_close, fixtures, json, tensors};
use t2l_train::{Optimizer, Targets, recon_step};

use super::support::{assert_gradients, assert_parameters, hypernet, hypernet_config, matrix, number, optimizer, size};

#[test]
fn reference_recon() {
    let Some(fixtures) = fixtures() else { return };
    let area = fixtures.join("training");
    Cases::each(&area, "task_embs.safetensors", |case| {
        check(case, &json(&case.join("config.json")));
        Ok(())
    });
}

fn adapter(path: &Path, alpha: f64, use_rslora: bool) -> Adapter {
    let stored = tensors(path);
    let tensor = |s: &Stored| -> Tensor<2> {
        Tensor::from_data(TensorData::new(s.f32(), [s.shape[0], s.shape[1]]), &Device::flex())
    };
    let mut adapter = Adapter::new("tiny", use_rslora);
    for (name, a) in stored.iter().filter(|(name, _)| name.contains("lora_A")) {
        let mut parts = name.split('.').skip_while(|p| *p != "layers").skip(1);
        let (layer, module) = (parts.next().expect("layer"), parts.nth(1).expect("module"));
        let b = &stored[&name.replace("lora_A", "lora_B")];
        let weights = LoraWeights { a: tensor(a), b: tensor(b), alpha };
        adapter.insert(layer.parse().expect("a number"), module, weights);
    }
    adapter
}

fn check(case: &Path, config: &Value) {
    let shape = hypernet_config(config);
    let mut hypernet = hypernet(case, shape.clone());
    let embeddings = tensors(&case.join("task_embs.safetensors"));
    let names = config["tasks_in_batch_order"].as_array().expect("tasks");
    let adapters: Vec<(String, Adapter)> = names
        .iter()
        .map(|name| {
            let name = name.as_str().expect("a name");
            let path = case.join("targets").join(format!("{name}.safetensors"));
            (name.to_owned(), adapter(&path, shape.scaling.alpha, shape.scaling.use_rslora))
        })
        .collect();
    let targets = Targets::new(&adapters, &shape.layout, shape.scaling).expect("targets");

    // Statistics of our own, against those that the published code stored.
    if shape.target == Target::ZScored {
        let stored = tensors(&case.join("hypernet_init.safetensors"));
        targets.describe_to(&mut hypernet).expect("statistics");
        for (name, p) in hypernet.buffers.iter().filter(|(name, _)| name.contains("recon_target")) {
            let found: Vec<f32> = p.values.to_data().iter().collect();
            assert_close(name, &found, &stored[name].values, 1e-6, 1e-5);
        }
    }

    // Each task stands once for each of its embeddings.
    let rows: Vec<usize> =
        adapters.iter().enumerate().flat_map(|(i, (name, _))| vec![i; embeddings[name].shape[0]]).collect();
    let embeddings = Tensor::cat(adapters.iter().map(|(name, _)| matrix(&embeddings[name])).collect(), 0);
    let wanted = targets.of_rows(&rows);

    let (optimizer_config, schedule) = optimizer(config);
    let mut optimizer = Optimizer::new(optimizer_config.clone(), &hypernet.parameters);
    let expected = tensors(&case.join("grads_step0.safetensors"));
    for entry in config["log"].as_array().expect("log") {
        let step = size(entry, "step");
        let what = format!("{} step {step}", case.display());
        let out = recon_step(&hypernet, embeddings.clone(), &wanted, None).expect("step");
        assert_close(&what, &[out.loss as f32], &[number(entry, "loss")], 0.0, 2e-5);
        assert_close(&what, &[out.raw_error as f32], &[number(entry, "unnorm_err")], 0.0, 2e-5);
        if step == 0 {
            assert_gradients(&what, &hypernet.parameters, &out.gradients, &expected);
        }
        let rate = schedule.at(step as u64);
        assert_close(&what, &[rate as f32], &[number(entry, "lr")], 1e-9, 1e-6);
        let norm = optimizer.step(&mut hypernet.parameters, &out.gradients, rate);
        assert_close(&what, &[norm as f32], &[number(entry, "grad_norm_before_clip")], 0.0, 1e-4);
    }
    let last = tensors(&case.join("hypernet_final.safetensors"));
    assert_parameters(&hypernet.parameters, &last, optimizer_config.learning_rate);
    let out = recon_step(&hypernet, embeddings, &wanted, None).expect("step");
    assert_close("final loss", &[out.loss as f32], &[number(config, "final_loss")], 0.0, 1e-4);
}
