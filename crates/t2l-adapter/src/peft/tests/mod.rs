//! PEFT directories, good and bad.

mod folders;
mod hostile_config;
mod hostile_weights;
mod round_trip;
mod settings;
mod vllm;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::Dtype;
use serde_json::{Value, json};
use t2l_core::{Adapter, LoraWeights};

use super::{CONFIG, WEIGHTS, load};
use crate::AdapterError;

/// One tensor of a file: name, type, shape, bytes.
type Raw = (String, Dtype, Vec<usize>, Vec<u8>);

fn f32_tensor(name: &str, shape: &[usize], value: f32) -> Raw {
    let values = vec![value; shape.iter().product()];
    (name.to_owned(), Dtype::F32, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

/// A good pair of factors of rank 2.
fn good() -> Vec<Raw> {
    vec![f32_tensor(A, &[2, 6], 1.0), f32_tensor(B, &[4, 2], 0.5)]
}

fn good_config() -> Value {
    json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})
}

fn file_bytes(tensors: &[Raw]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn write_folder(folder: &Path, config: &[u8], weights: &[u8]) {
    std::fs::write(folder.join(CONFIG), config).unwrap();
    std::fs::write(folder.join(WEIGHTS), weights).unwrap();
}

fn load_bytes(config: &[u8], weights: &[u8]) -> Result<Adapter, AdapterError> {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), config, weights);
    load(folder.path(), &Device::flex())
}

fn load_with(config: &Value, tensors: &[Raw]) -> Result<Adapter, AdapterError> {
    load_bytes(config.to_string().as_bytes(), &file_bytes(tensors))
}

fn small_adapter() -> Adapter {
    let device = Device::flex();
    let mut adapter = Adapter::new("some/base", false);
    let a = Tensor::from_data(TensorData::new(vec![0.5_f32; 12], [2, 6]), &device);
    let b = Tensor::from_data(TensorData::new(vec![-0.25_f32; 8], [4, 2]), &device);
    adapter.insert(0, "q_proj", LoraWeights { a, b, alpha: 4.0 });
    adapter
}

fn values(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}
