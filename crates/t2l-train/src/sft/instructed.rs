//! What a hypernetwork that puts effects of instructions into adapters starts from: a look at the base model.

use burn::tensor::{DType, Tensor};
use t2l_backbone::Decoder;
use t2l_core::AdapterGenerator;
use t2l_data::TokenizedExample;
use t2l_hypernet::{Hypernet, InstructedStart};

use super::constant::constant_rows;
use crate::TrainError;

/// Share of an effect that is put back at first: of 0.25, 0.5, 0.75 and 1, tried on SmolLM2-135M, what lies between the two
/// best.
const GATE: f64 = 0.35;

/// Lets a hypernetwork put what a description does to attention as an instruction into adapters, in this many of the last
/// layers: its task embeddings end with that from now on.
///
/// The base model wears what `hypernet` writes now when nothing is said, while effects are looked at. `decoder` is a plain one
/// (not for training). What its attention reads of `examples`, a hundred or so of all kinds, says
/// what is about constant over positions.
///
/// # Errors
/// No example, more layers than there are, or a hypernetwork that cannot take them.
pub fn set_instructed(
    hypernet: &mut Hypernet,
    decoder: &Decoder,
    examples: &[&TokenizedExample],
    layers: usize,
) -> Result<(), TrainError> {
    let first = decoder.config().layers.checked_sub(layers).ok_or_else(|| TrainError::Setting {
        key: "hypernet.instructed_layers",
        value: layers.to_string(),
        reason: "is more than the base model has",
    })?;
    // That of an embedding of zeros: what is written when nothing is said, in the type that checkpoints store. A fresh one
    // mostly changes nothing.
    let nothing = Tensor::zeros([1, hypernet.config.input_width()], &decoder.device());
    let mut worn = hypernet.generate(nothing)?;
    let stored = |factor: &Tensor<4>| factor.clone().cast(DType::BF16).cast(DType::F32);
    worn.modules.iter_mut().for_each(|m| (m.a, m.b) = (stored(&m.a), stored(&m.b)));
    let (rows, products) = constant_rows(decoder, examples, first)?;
    let scaling = hypernet.config.scaling.value();
    let scales = products.into_iter().map(|product| (1.0 / (product * scaling)) as f32).collect();
    Ok(hypernet.instruct(InstructedStart { rows, scales, gate: GATE, worn })?)
}
