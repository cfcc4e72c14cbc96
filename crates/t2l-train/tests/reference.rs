//! SFT against the published code: losses, gradients and parameters after eight optimizer steps.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use t2l_backbone::Decoder;
use t2l_core::{AdapterLayout, LoraScaling, TargetModule};
use t2l_data::TrainBatch;
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Offset, Target, TaskEncoder};
use t2l_testing::{Cases, Stored, assert_close, fixtures, json, relative_error, tensors};
use t2l_train::{LinearSchedule, LossConfig, Optimizer, OptimizerConfig, Weighting, sft_step};

#[test]
fn reference_sft() {
    let Some(fixtures) = fixtures() else { return };
    let area = fixtures.join("training");
    Cases::each(&area, "config.json", |case| {
        let config = json(&case.join("config.json"));
        if config["training_task"] == "sft" && case.join("hypernet_init.safetensors").exists() {
            check(case, &config);
        }
        Ok(())
    });
}

fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
}

fn number(config: &Value, key: &str) -> f64 {
    config[key].as_f64().unwrap_or_else(|| panic!("{key}"))
}

fn hypernet_config(config: &Value) -> HypernetConfig {
    let modules = config["layer_type_order"].as_array().expect("modules").iter().map(|m| {
        let name = m.as_str().expect("module");
        TargetModule::new(name, size(&config["in_features"], name), size(&config["out_features"], name))
    });
    HypernetConfig {
        arch: match (config["shared_AB_head"].as_bool(), config["autoreg_gen"].as_bool()) {
            (Some(false), Some(false)) => Arch::L,
            (Some(true), Some(false)) => Arch::M,
            (Some(true), Some(true)) => Arch::S,
            _ => Arch::LA,
        },
        layout: AdapterLayout {
            base_model: "tiny".into(),
            layers: size(config, "num_hidden_layers"),
            modules: modules.collect(),
        },
        scaling: LoraScaling {
            alpha: number(config, "lora_alpha"),
            rank: size(config, "r"),
            use_rslora: config["use_rslora"] == true,
        },
        conditioning: Conditioning::Text,
        embedding: size(config, "task_emb_size"),
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: size(config, "hypernet_latent_size"),
        head_in: size(config, "head_in_size"),
        head_bias: config["head_use_bias"] == true,
        offset: if config["learnable_AB_offset"] == true { Offset::Trainable } else { Offset::Frozen },
        learnable_positions: config["learnable_pos_emb"] == true,
        target: Target::Sft,
        dropout: 0.0,
    }
}

/// A batch as stored: labels of -100 carry no loss; the label at a position is predicted by the one before it.
fn batch(stored: &std::collections::BTreeMap<String, Stored>, device: &Device) -> (TrainBatch, Tensor<2>) {
    let ids = &stored["input_ids"];
    let (rows, width) = (ids.shape[0], ids.shape[1]);
    let labels = stored["labels"].i64();
    let mut batch = TrainBatch {
        rows,
        width,
        ids: ids.i64().iter().map(|&id| id as i32).collect(),
        label_positions: vec![],
        labels: vec![],
        label_rows: vec![],
        label_counts: vec![0; rows],
        tokens: stored["attention_mask"].values.iter().sum::<f64>() as usize,
    };
    for row in 0..rows {
        for position in 1..width {
            let label = labels[row * width + position];
            if label >= 0 {
                batch.label_positions.push((row * width + position - 1) as i32);
                batch.labels.push(label as i32);
                batch.label_rows.push(row);
                batch.label_counts[row] += 1;
            }
        }
    }
    let embeddings = &stored["task_embs"];
    let shape = [embeddings.shape[0], embeddings.shape[1]];
    (batch, Tensor::from_data(TensorData::new(embeddings.f32(), shape), device))
}

fn check(case: &Path, config: &Value) {
    let device = Device::flex();
    let decoder =
        Decoder::load(&case.join(config["base_model"].as_str().expect("base_model")), &device).expect("base model");
    let decoder = decoder.for_training();
    let init = tensors(&case.join("hypernet_init.safetensors"));
    let read = |name: &str, shape: &[usize]| {
        let stored = init.get(name).unwrap_or_else(|| panic!("{name} is not in the reference"));
        assert_eq!(stored.shape, shape, "{name}");
        Ok(stored.f32())
    };
    let mut hypernet = Hypernet::from_tensors(hypernet_config(config), read, &device).expect("hypernet");
    let batches = [0, 1].map(|i| batch(&tensors(&case.join(format!("batch{i}.safetensors"))), &device));

    let token = config["equally_weight_sample"] == false;
    let base = LossConfig {
        label_smoothing: number(config, "label_smoothing"),
        weighting: if token { Weighting::Token } else { Weighting::Sample },
        l2_generated: number(config, "l2_reg_generated_w"),
        lora_dropout: 0.0,
        neftune_alpha: 0.0,
    };
    // Batch 0 under all four options.
    for (name, smoothing, weighting) in [
        ("batch0_loss_no_smoothing_equal_weight", 0.0, Weighting::Sample),
        ("batch0_loss_no_smoothing_token_weight", 0.0, Weighting::Token),
        ("batch0_loss_smoothing_equal_weight", base.label_smoothing, Weighting::Sample),
        ("batch0_loss_smoothing_token_weight", base.label_smoothing, Weighting::Token),
    ] {
        let loss = LossConfig { label_smoothing: smoothing, weighting, ..base.clone() };
        let (batch, embeddings) = &batches[0];
        let out = sft_step(&decoder, &hypernet, batch, embeddings.clone(), &loss, None).expect("step");
        assert_close(name, &[out.sft_loss as f32], &[number(config, name)], 0.0, 2e-5);
    }

    let o = &config["optimizer"];
    let optimizer_config = OptimizerConfig {
        learning_rate: number(o, "lr"),
        warmup_share: 0.0,
        weight_decay: number(o, "weight_decay"),
        beta1: o["betas"][0].as_f64().expect("beta1"),
        beta2: o["betas"][1].as_f64().expect("beta2"),
        epsilon: number(o, "eps"),
        max_grad_norm: number(config, "max_grad_norm"),
    };
    let schedule = LinearSchedule {
        peak: optimizer_config.learning_rate,
        warmup: size(&config["scheduler"], "num_warmup_steps") as u64,
        total: size(&config["scheduler"], "num_training_steps") as u64,
    };
    let mut optimizer = Optimizer::new(optimizer_config.clone(), &hypernet.parameters);
    let expected_gradients = tensors(&case.join("grads_step0.safetensors"));
    for entry in config["log"].as_array().expect("log") {
        let step = size(entry, "step");
        let (batch, embeddings) = &batches[size(entry, "batch")];
        let out = sft_step(&decoder, &hypernet, batch, embeddings.clone(), &base, None).expect("step");
        let what = format!("{} step {step}", case.display());
        assert_close(&what, &[out.sft_loss as f32], &[number(entry, "sft_loss")], 0.0, 2e-5);
        assert_close(&what, &[out.l2_loss as f32], &[number(entry, "generated_w_l2_loss")], 0.0, 1e-4);
        if step == 0 {
            let names: Vec<&str> = hypernet.parameters.iter().map(|(name, _)| name).collect();
            assert_eq!(names, expected_gradients.keys().map(String::as_str).collect::<Vec<_>>(), "trained tensors");
            for (name, gradient) in names.iter().zip(&out.gradients) {
                let found: Vec<f32> = gradient.to_data().iter().collect();
                let error = relative_error(&found, &expected_gradients[*name].values);
                assert!(error < 1e-4, "{what}: gradient of {name} is off by {error:.2e}");
            }
        }
        let rate = schedule.at(step as u64);
        assert_close(&what, &[rate as f32], &[number(entry, "lr")], 1e-9, 1e-6);
        let norm = optimizer.step(&mut hypernet.parameters, &out.gradients, rate);
        assert_close(&what, &[norm as f32], &[number(entry, "grad_norm_before_clip")], 0.0, 1e-4);
    }

    let last = case.join("hypernet_final.safetensors");
    if last.exists() {
        for (name, stored) in tensors(&last) {
            let Some(entry) = hypernet.parameters.entry(&name) else { continue };
            let found: Vec<f32> = entry.values.to_data().iter().collect();
            let off = found.iter().zip(&stored.values).map(|(&x, &y)| (f64::from(x) - y).abs());
            let (mut far, limit) = (0, 8.0 * optimizer_config.learning_rate);
            for d in off {
                assert!(d <= limit, "{name} is off by {d:.2e} after the last step");
                far += usize::from(d > 2e-5);
            }
            assert!(far * 1000 <= found.len(), "{name}: {far} of {} values are off by more than 2e-5", found.len());
        }
    }
}
