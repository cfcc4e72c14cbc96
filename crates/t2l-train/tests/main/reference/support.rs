//! What the reference cases have in common: their configurations, batches, optimizer and tolerances.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use t2l_core::{AdapterLayout, LoraScaling, Parameters, TargetModule};
use t2l_data::TrainBatch;
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Offset, Target, TaskEncoder};
use t2l_testing::{Stored, relative_error, tensors};
use t2l_train::{LinearSchedule, NamedGradients, OptimizerConfig};

pub type Tensors = BTreeMap<String, Stored>;

pub fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
}

pub fn number(config: &Value, key: &str) -> f64 {
    config[key].as_f64().unwrap_or_else(|| panic!("{key}"))
}

/// The shape that a case's config.json describes.
pub fn hypernet_config(config: &Value) -> HypernetConfig {
    let yes = |key: &str| config[key] == true;
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
            use_rslora: yes("use_rslora"),
        },
        conditioning: Conditioning::Text,
        embedding: size(config, "task_emb_size"),
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: size(config, "hypernet_latent_size"),
        head_in: size(config, "head_in_size"),
        head_bias: yes("head_use_bias"),
        offset: if yes("learnable_AB_offset") { Offset::Trainable } else { Offset::Frozen },
        copying: None,
        instructed: None,
        learnable_positions: yes("learnable_pos_emb"),
        target: match (config["training_task"] == "recon", yes("factorized"), yes("pred_z_score")) {
            (false, ..) => Target::Sft,
            (true, true, true) => Target::ZScored,
            (true, true, false) => Target::Factorized,
            (true, false, _) => Target::DeltaW { scaling: number(config, "delta_w_scaling") },
        },
        dropout: 0.0,
    }
}

/// The hypernetwork that a case starts from.
pub fn hypernet(case: &Path, config: HypernetConfig) -> Hypernet {
    let init = tensors(&case.join("hypernet_init.safetensors"));
    let read = |name: &str, shape: &[usize]| {
        let stored = init.get(name).unwrap_or_else(|| panic!("{name} is not in the reference"));
        assert_eq!(stored.shape, shape, "{name}");
        Ok(stored.f32())
    };
    Hypernet::from_tensors(config, read, &Device::flex()).expect("hypernet")
}

pub fn matrix(stored: &Stored) -> Tensor<2> {
    Tensor::from_data(TensorData::new(stored.f32(), [stored.shape[0], stored.shape[1]]), &Device::flex())
}

/// A batch as stored: labels of -100 carry no loss; the label at a position is predicted by the one before it.
pub fn batch(stored: &Tensors) -> TrainBatch {
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
    batch
}

/// The optimizer and schedule of a case.
pub fn optimizer(config: &Value) -> (OptimizerConfig, LinearSchedule) {
    let o = &config["optimizer"];
    let optimizer = OptimizerConfig {
        learning_rate: number(o, "lr"),
        warmup_share: 0.0,
        weight_decay: number(o, "weight_decay"),
        beta1: o["betas"][0].as_f64().expect("beta1"),
        beta2: o["betas"][1].as_f64().expect("beta2"),
        epsilon: number(o, "eps"),
        max_grad_norm: number(config, "max_grad_norm"),
    };
    let schedule = LinearSchedule {
        peak: optimizer.learning_rate,
        warmup: size(&config["scheduler"], "num_warmup_steps") as u64,
        total: size(&config["scheduler"], "num_training_steps") as u64,
    };
    (optimizer, schedule)
}

/// Every gradient, and no other, within 1e-4 of its norm.
pub fn assert_gradients(what: &str, parameters: &Parameters, found: &NamedGradients, expected: &Tensors) {
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected.keys().map(String::as_str).collect::<Vec<_>>(), "trained tensors");
    for (name, gradient) in names.iter().zip(found) {
        let found: Vec<f32> = gradient.to_data().iter().collect();
        let error = relative_error(&found, &expected[*name].values);
        assert!(error < 1e-4, "{what}: gradient of {name} is off by {error:.2e}");
    }
}

/// Parameters after the last step: within 2e-5, but for one in a thousand where Adam divides two tiny numbers or an L1
/// residual is near zero.
pub fn assert_parameters(parameters: &Parameters, expected: &Tensors, learning_rate: f64) {
    let (mut far, mut count) = (0, 0);
    for (name, stored) in expected {
        let Some(entry) = parameters.entry(name) else { continue };
        let found: Vec<f32> = entry.values.to_data().iter().collect();
        assert_eq!(found.len(), stored.values.len(), "{name}");
        for (&x, &y) in found.iter().zip(&stored.values) {
            let off = (f64::from(x) - y).abs();
            assert!(off <= 8.0 * learning_rate, "{name} is off by {off:.2e} after the last step");
            far += usize::from(off > 2e-5);
        }
        count += found.len();
    }
    assert!(count > 0, "no trained tensor is in the reference");
    assert!(far * 1000 <= count, "{far} of {count} values are off by more than 2e-5");
    println!("{far} of {count} values are off by more than 2e-5 after the last step");
}
