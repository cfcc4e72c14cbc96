//! Hypernetworks for tests: from the published code's configuration keys, and small ones of any shape.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use t2l_core::{AdapterGenerator, AdapterLayout, LoraFactors, LoraScaling, TargetModule};
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder};
use t2l_testing::Stored;

pub type Tensors = BTreeMap<String, Stored>;

pub fn device() -> Device {
    t2l_core::device::parse("cpu").expect("a CPU backend is compiled in")
}

pub fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("{key} is missing")) as usize
}

pub fn number(config: &Value, key: &str) -> f64 {
    config[key].as_f64().unwrap_or_else(|| panic!("{key} is missing"))
}

/// The configuration that a reference case's config.json and state dict describe.
///
/// `widths` gives (in, out) of a module. Offsets and statistics are read where the state dict has them.
pub fn reference_config(config: &Value, state: &Tensors, widths: impl Fn(&str) -> (usize, usize)) -> HypernetConfig {
    let modules = config["layer_type_order"].as_array().expect("layer_type_order").iter().map(|name| {
        let name = name.as_str().expect("module name");
        let (input, output) = widths(name);
        TargetModule::new(name, input, output)
    });
    let yes = |key: &str| config[key] == true;
    let embedding = config["task_emb_size"].as_u64().unwrap_or(0) as usize;
    HypernetConfig {
        arch: match (yes("shared_AB_head"), yes("autoreg_gen")) {
            (false, false) => Arch::L,
            (true, false) => Arch::M,
            (true, true) => Arch::S,
            (false, true) => Arch::LA,
        },
        layout: AdapterLayout {
            base_model: "reference".into(),
            layers: size(config, "num_hidden_layers"),
            modules: modules.collect(),
        },
        scaling: LoraScaling {
            alpha: number(config, "lora_alpha"),
            rank: size(config, "r"),
            use_rslora: yes("use_rslora"),
        },
        conditioning: match (embedding, yes("use_one_hot_task_emb")) {
            (0, _) => Conditioning::None,
            (_, true) => Conditioning::OneHot,
            (_, false) => Conditioning::Text,
        },
        embedding,
        tasks: 0,
        task_encoder: match config["encoder_type"].as_str().expect("encoder_type") {
            "linear" => TaskEncoder::Linear,
            "softmax" => TaskEncoder::Softmax,
            "vq" => TaskEncoder::Vq,
            "discrete" => TaskEncoder::Discrete,
            other => panic!("encoder_type {other}"),
        },
        latent: size(config, "hypernet_latent_size"),
        head_in: size(config, "head_in_size"),
        head_bias: state.keys().any(|name| name.starts_with("heads.") && name.ends_with(".bias")),
        offset: if state.keys().any(|name| name.starts_with("AB_offset.")) { Offset::Frozen } else { Offset::None },
        copying: None,
        instructed: None,
        learnable_positions: yes("learnable_pos_emb"),
        target: match (config["training_task"] == "recon", yes("factorized"), yes("pred_z_score")) {
            (false, ..) => Target::Sft,
            (true, true, true) => Target::ZScored,
            (true, true, false) => Target::Factorized,
            (true, false, _) => Target::DeltaW { scaling: number(config, "delta_w_scaling") },
        },
        dropout: 0.05,
    }
}

/// A hypernetwork with a reference case's state dict, tensor by tensor under its own name.
pub fn load_state(config: HypernetConfig, state: &Tensors) -> Hypernet {
    let read = |name: &str, shape: &[usize]| {
        let stored = state.get(name).unwrap_or_else(|| panic!("{name} is not in the reference"));
        assert_eq!(stored.shape, shape, "{name}");
        Ok(stored.f32())
    };
    Hypernet::from_tensors(config, read, &device()).expect("a hypernetwork")
}

pub fn matrix(stored: &Stored) -> Tensor<2> {
    Tensor::from_data(TensorData::new(stored.f32(), [stored.shape[0], stored.shape[1]]), &device())
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// Fixed, irregular values in (-1, 1).
pub fn irregular(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i * 7919 + seed * 104_729 + 13) % 2003) as f32 / 1001.5 - 1.0) * 0.97).collect()
}

/// Task embeddings `[tasks, width]`.
pub fn embeddings(tasks: usize, width: usize, seed: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(irregular(tasks * width, seed), [tasks, width]), &device())
}

/// A small configuration to vary.
pub fn small(arch: Arch) -> HypernetConfig {
    HypernetConfig {
        arch,
        layout: AdapterLayout {
            base_model: "tiny".into(),
            layers: 3,
            modules: vec![TargetModule::new("v_proj", 6, 4), TargetModule::new("q_proj", 6, 9)],
        },
        scaling: LoraScaling { alpha: 8.0, rank: 2, use_rslora: true },
        conditioning: Conditioning::Text,
        embedding: 5,
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: 16,
        head_in: 10,
        head_bias: true,
        offset: Offset::None,
        copying: None,
        instructed: None,
        learnable_positions: false,
        target: Target::Sft,
        dropout: 0.05,
    }
}

pub fn file(folder: &Path, name: &str) -> Tensors {
    t2l_testing::tensors(&folder.join(name))
}

/// A fresh hypernetwork none of whose factors is zero.
pub fn plain(config: HypernetConfig) -> Hypernet {
    Hypernet::new(config, Init::Reconstruction, 1, &device()).expect("fresh")
}

/// The adapters of some tasks.
pub fn generate(hypernet: &Hypernet, tasks: &Tensor<2>) -> LoraFactors {
    hypernet.generate(tasks.clone()).expect("adapters")
}

/// A value of a tensor's values, by its place.
pub fn at(values: &[f32], dims: [usize; 4], place: [usize; 4]) -> f32 {
    values[place.iter().zip(dims).fold(0, |flat, (index, size)| flat * size + index)]
}
