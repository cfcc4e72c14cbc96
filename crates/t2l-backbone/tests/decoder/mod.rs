//! The decoder against transformers and PEFT, on tiny models of every family and on SmolLM2; then properties of models
//! made here, and files and requests that are refused.

mod families;
mod gemma3_270m;
mod gguf_cases;
mod hostile;
mod properties;
mod smollm2;
mod tiny;

use burn::tensor::{Device, Int, Tensor, TensorData};
use t2l_backbone::{Decoder, GenerateOptions, Sampling};
use t2l_core::AdapterBatch;
use t2l_testing::Stored;

fn ids(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let flat: Vec<i64> = rows.concat();
    Tensor::from_data(TensorData::new(flat, [rows.len(), rows[0].len()]), device)
}

fn rows(stored: &Stored) -> Vec<Vec<i64>> {
    let width = stored.shape.last().copied().unwrap_or(stored.values.len());
    stored.i64().chunks(width).map(<[i64]>::to_vec).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter().collect()
}

/// Left-padding positions of every row of a mask.
fn starts(mask: &[Vec<i64>]) -> Vec<usize> {
    mask.iter().map(|row| row.iter().position(|&m| m == 1).unwrap_or(row.len())).collect()
}

/// Greedy tokens after one prompt, not stopping anywhere.
fn greedy(decoder: &Decoder, prompts: &[Vec<u32>], adapters: &AdapterBatch, count: usize) -> Vec<Vec<u32>> {
    let options = GenerateOptions { max_new_tokens: vec![count], sampling: Sampling::GREEDY, stops: vec![] };
    let answers = decoder.generate(prompts, adapters, &options, |_, _| ()).expect("generates");
    answers.into_iter().map(|a| a.ids).collect()
}
