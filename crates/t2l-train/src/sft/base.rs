//! What a hypernetwork takes from the base model before it is trained, by one look at it.

use t2l_backbone::Decoder;
use t2l_data::TokenizedExample;
use t2l_hypernet::Hypernet;

use super::constant::constant_rows;
use super::copying::set_copying;
use super::instructed::set_instructed;
use crate::TrainError;

/// Lets a hypernetwork copy the words that its task embeddings end with in `copying` of the last layers, and put what a
/// description does to attention as an instruction into adapters in `instructed` of them: its task embeddings end with that
/// from now on. 0 for neither.
///
/// The base model wears what `hypernet` writes now when nothing is said, while effects are looked at. `decoder` is a plain one
/// (not for training). What its attention reads of `examples`, a hundred or so of all kinds, says what is about constant over
/// positions.
///
/// # Errors
/// No example, more layers than there are, a hypernetwork that can do no such thing, or, for copying, weights that are packed
/// for training.
pub fn set_from_base(
    hypernet: &mut Hypernet,
    decoder: &Decoder,
    examples: &[&TokenizedExample],
    copying: usize,
    instructed: usize,
) -> Result<(), TrainError> {
    let (there, most) = (decoder.config().layers, copying.max(instructed));
    for (key, layers) in [("hypernet.copying_layers", copying), ("hypernet.instructed_layers", instructed)] {
        if layers > there {
            let reason = "is more than the base model has";
            return Err(TrainError::Setting { key, value: layers.to_string(), reason });
        }
    }
    if most == 0 {
        return Ok(());
    }
    let (rows, products) = constant_rows(decoder, examples, there - most)?;
    let last = |layers: usize| (rows.clone().narrow(0, most - layers, layers), &products[most - layers..]);
    if copying > 0 {
        let (rows, products) = last(copying);
        set_copying(hypernet, decoder, rows, products)?;
    }
    if instructed > 0 {
        let (rows, products) = last(instructed);
        set_instructed(hypernet, rows, products)?;
    }
    Ok(())
}
