//! GGUF adapters, good and bad.

mod base;
mod hostile;
mod round_trip;

use burn::tensor::{Device, Distribution, Tensor};
use t2l_core::{Adapter, LoraWeights};

use super::*;
use crate::{AdapterError, SaveOptions};

/// Four query heads and two key heads of width 4.
fn llama() -> BaseShape {
    BaseShape::new("llama", 4, 2).unwrap()
}

/// Output width of a module of that model.
fn out(module: &str) -> usize {
    match module {
        "q_proj" => 16,
        "k_proj" => 8,
        _ => 10,
    }
}

fn factors(module: &str, rank: usize, alpha: f64) -> LoraWeights {
    let device = Device::flex();
    let random = |shape: [usize; 2]| Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    LoraWeights { a: random([rank, 6]), b: random([out(module), rank]), alpha }
}

fn adapter(use_rslora: bool, places: &[(usize, &str, usize, f64)]) -> Adapter {
    let mut adapter = Adapter::new("some/base", use_rslora);
    for (layer, module, rank, alpha) in places {
        adapter.insert(*layer, module, factors(module, *rank, *alpha));
    }
    adapter
}

fn values(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

/// Largest value and largest difference of two whole `ΔW`.
fn compare(adapter: &Adapter, x: &LoraWeights, other: &Adapter, y: &LoraWeights) -> (f32, f32) {
    let delta = |a: &Adapter, w: &LoraWeights| w.b.clone().matmul(w.a.clone()).mul_scalar(a.scaling(w).value());
    let (x, y) = (delta(adapter, x), delta(other, y));
    (x.clone().abs().max().into_scalar(), (x - y).abs().max().into_scalar())
}
