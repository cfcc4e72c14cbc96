//! What a hypernetwork that puts effects of instructions into adapters starts from: a look at the base model.

use burn::tensor::{DType, Tensor};
use t2l_core::AdapterGenerator;
use t2l_hypernet::{Hypernet, InstructedStart};

use crate::TrainError;

/// Share of an effect that is put back at first: of 0.25, 0.5, 0.75 and 1, tried on SmolLM2-135M, what lies between the two
/// best.
const GATE: f64 = 0.35;

/// Lets a hypernetwork put what a description does to attention as an instruction into adapters, in as many of the last
/// layers as `rows` has: constant ones, `[layers, in]`, whose products with an input are about `products`.
///
/// # Errors
/// A hypernetwork that cannot take effects.
pub(super) fn set_instructed(hypernet: &mut Hypernet, rows: Tensor<2>, products: &[f64]) -> Result<(), TrainError> {
    // That of an embedding of zeros: what is written when nothing is said, in the type that checkpoints store. A fresh one
    // mostly changes nothing.
    let nothing = Tensor::zeros([1, hypernet.config.input_width()], &rows.device());
    let mut worn = hypernet.generate(nothing)?;
    let stored = |factor: &Tensor<4>| factor.clone().cast(DType::BF16).cast(DType::F32);
    worn.modules.iter_mut().for_each(|m| (m.a, m.b) = (stored(&m.a), stored(&m.b)));
    let scaling = hypernet.config.scaling.value();
    let scales = products.iter().map(|product| (1.0 / (product * scaling)) as f32).collect();
    Ok(hypernet.instruct(InstructedStart { rows, scales, gate: GATE, worn })?)
}
