//! What a hypernetwork that copies quoted words starts from: a look at the base model.

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_hypernet::{CopyingStart, Hypernet};

use crate::TrainError;

/// Length of what every value of attention gets at first, for words whose embedding is as long as it mostly is: found by
/// trying 1, 3 and 10 on SmolLM2-135M.
const GATE: f64 = 3.0;

/// Lets a hypernetwork copy the words that its task embeddings end with, in as many of the last layers as `rows` has:
/// constant ones, `[layers, in]`, whose products with an input are about `products`.
///
/// # Errors
/// A hypernetwork that cannot copy, or weights that are packed for training.
pub(super) fn set_copying(
    hypernet: &mut Hypernet,
    decoder: &Decoder,
    rows: Tensor<2>,
    products: &[f64],
) -> Result<(), TrainError> {
    let (model, scaling, layers) = (decoder.config(), hypernet.config.scaling.value(), products.len());
    let mut maps = Vec::new();
    for (layer, product) in (model.layers - layers..model.layers).zip(products) {
        let packed = || TrainError::Setting {
            key: "hypernet.copying_layers",
            value: layers.to_string(),
            reason: "needs a base model that is not packed",
        };
        let output = decoder.output_weight(layer).ok_or_else(packed)?;
        let map = words_to_value(output, model.heads, model.kv_heads, model.head_dim);
        // Words' vectors are √width long: this is how long the map makes them, on average over all directions.
        let long = f64::from(map.clone().powi_scalar(2).sum().into_scalar::<f32>()).sqrt().max(1e-9);
        maps.push(map.div_scalar(long * product * scaling));
    }
    Ok(hypernet.copy_words(CopyingStart { rows, words_to_b: Tensor::stack(maps, 0), gate: GATE })?)
}

/// The map from a direction of the stream to the value of attention that makes the output projection add most of it:
/// Oᵀ, the query heads of one value head together. `output`: `[hidden, heads · head_dim]`; gives
/// `[kv_heads · head_dim, hidden]`.
fn words_to_value(output: Tensor<2>, heads: usize, kv_heads: usize, head_dim: usize) -> Tensor<2> {
    let hidden = output.dims()[0];
    let by_group = output.transpose().reshape([kv_heads, heads / kv_heads, head_dim, hidden]);
    by_group.sum_dim(1).reshape([kv_heads * head_dim, hidden])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn heads_that_share_a_value_are_summed() {
        // Two query heads of size 1 on one value head: hidden 2.
        let output = Tensor::<2>::from_data([[1.0, 10.0], [2.0, 20.0]], &Device::default());
        let map = words_to_value(output, 2, 1, 1);
        assert_eq!(map.to_data().iter::<f32>().collect::<Vec<_>>(), [11.0, 22.0]);
    }
}
