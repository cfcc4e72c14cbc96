//! What a hypernetwork that copies quoted words starts from: a look at the base model.

use burn::tensor::{Tensor, TensorData};
use t2l_backbone::Decoder;
use t2l_data::{TokenizedExample, TrainBatch};
use t2l_hypernet::{CopyingStart, Hypernet};

use crate::TrainError;
use crate::loss::noisy_embeddings;

/// Length of what every value of attention gets at first, for words whose embedding is as long as it mostly is: found by
/// trying 1, 3 and 10 on SmolLM2-135M.
const GATE: f64 = 3.0;
/// Rows that it reads at once.
const ROWS: usize = 8;
/// What is added to the diagonal of the inputs' second moments, in parts of its mean.
const RIDGE: f64 = 1e-3;

/// Lets a hypernetwork copy the words that its task embeddings end with, in this many of the last layers.
///
/// `decoder` is a plain one (not for training). What its attention reads of `examples`, a hundred or so of all kinds, says
/// what is about constant over positions.
///
/// # Errors
/// No example, more layers than there are, a hypernetwork that cannot copy, or weights that are packed for training.
pub fn set_copying(
    hypernet: &mut Hypernet,
    decoder: &Decoder,
    examples: &[&TokenizedExample],
    layers: usize,
) -> Result<(), TrainError> {
    let (model, scaling) = (decoder.config(), hypernet.config.scaling.value());
    let wrong = |reason| TrainError::Setting { key: "hypernet.copying_layers", value: layers.to_string(), reason };
    let first = model.layers.checked_sub(layers).ok_or_else(|| wrong("is more than the base model has"))?;
    if examples.is_empty() {
        return Err(TrainError::NoData { reason: "no example to look at the base model with".into() });
    }
    // As long as other rows of A begin (kaiming-uniform with a = √5), so that one learning rate suits both; B carries the
    // rest.
    let length = 1.0 / 3f64.sqrt();
    let (mut rows, mut maps) = (Vec::new(), Vec::new());
    for (layer, moments) in (first..model.layers).zip(input_moments(decoder, examples, first)?) {
        let row = moments.constant_row();
        let scale = length / row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-9);
        rows.extend(row.iter().map(|x| (x * scale) as f32));
        let output = decoder.output_weight(layer).ok_or_else(|| wrong("needs a base model that is not packed"))?;
        let map = words_to_value(output, model.heads, model.kv_heads, model.head_dim);
        // Words' vectors are √width long: this is how long the map makes them, on average over all directions.
        let long = f64::from(map.clone().powi_scalar(2).sum().into_scalar::<f32>()).sqrt().max(1e-9);
        maps.push(map.div_scalar(long * scale * scaling));
    }
    let rows = Tensor::from_data(TensorData::new(rows, [layers, model.hidden_size]), &decoder.device());
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

/// First and second moments of what one layer's attention reads.
struct Moments {
    /// `[width]`.
    mean: Vec<f64>,
    /// `[width, width]`, row-major.
    second: Vec<f64>,
}

/// Those of the layers from `first` on, over all tokens.
fn input_moments(decoder: &Decoder, examples: &[&TokenizedExample], first: usize) -> Result<Vec<Moments>, TrainError> {
    let (device, width) = (decoder.device(), decoder.config().hidden_size);
    let mut sums: Vec<(Tensor<2>, Tensor<2>)> = Vec::new();
    let mut tokens = 0.0;
    for examples in examples.chunks(ROWS) {
        let batch = TrainBatch::new(examples, 8, 0);
        let real = examples.iter().flat_map(|e| {
            let length = e.prompt.len() + e.response.len();
            (0..batch.width).map(move |at| if at < length { 1.0f32 } else { 0.0 })
        });
        let real: Tensor<2> =
            Tensor::from_data(TensorData::new(real.collect::<Vec<_>>(), [batch.rows * batch.width, 1]), &device);
        tokens += batch.tokens as f64;
        let inputs = decoder.attention_inputs(noisy_embeddings(decoder, &batch, None), &vec![0; batch.rows])?;
        for (i, input) in inputs.into_iter().skip(first).enumerate() {
            let input = input.reshape([batch.rows * batch.width, width]) * real.clone();
            let (sum, second) = (input.clone().sum_dim(0), input.clone().transpose().matmul(input));
            match sums.get_mut(i) {
                Some((sums, seconds)) => {
                    *sums = sums.clone() + sum;
                    *seconds = seconds.clone() + second;
                }
                None => sums.push((sum, second)),
            }
        }
    }
    let means = |sums: Tensor<2>| -> Vec<f64> { sums.to_data().iter::<f32>().map(|x| f64::from(x) / tokens).collect() };
    Ok(sums.into_iter().map(|(sum, second)| Moments { mean: means(sum), second: means(second) }).collect())
}

impl Moments {
    /// The row a for which a·x is nearest to 1, by least squares with a ridge: conjugate gradients on
    /// `(E[x·xᵀ] + ridge)·a = E[x]`, each equation scaled by its diagonal.
    fn constant_row(&self) -> Vec<f64> {
        let n = self.mean.len();
        let diagonal: Vec<f64> = (0..n).map(|i| self.second[i * n + i]).collect();
        let ridge = RIDGE * diagonal.iter().sum::<f64>() / n.max(1) as f64;
        let product = |v: &[f64]| -> Vec<f64> {
            let rows = self.second.chunks_exact(n.max(1)).zip(v);
            rows.map(|(row, x)| dot(row, v) + ridge * x).collect()
        };
        let scaled =
            |r: &[f64]| -> Vec<f64> { r.iter().zip(&diagonal).map(|(r, d)| r / (d + ridge).max(1e-30)).collect() };
        let (mut row, mut rest) = (vec![0.0; n], self.mean.clone());
        let mut z = scaled(&rest);
        let mut direction = z.clone();
        let (mut now, target) = (dot(&rest, &z), 1e-16 * dot(&rest, &z));
        for _ in 0..4 * n {
            if now <= target {
                break;
            }
            let moved = product(&direction);
            let step = now / dot(&direction, &moved);
            row.iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
            rest.iter_mut().zip(&moved).for_each(|(r, m)| *r -= step * m);
            z = scaled(&rest);
            let next = dot(&rest, &z);
            direction = z.iter().zip(&direction).map(|(z, d)| z + next / now * d).collect();
            now = next;
        }
        row
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_row_whose_product_is_nearest_to_one() {
        // Inputs (1, x) and (1, y) with a common part: the row that reads only that part.
        let inputs = [[1.0, 0.5, 2.0], [1.0, -0.5, 1.0], [1.0, 0.25, -3.0]];
        let mean = |f: &dyn Fn(&[f64; 3]) -> f64| inputs.iter().map(f).sum::<f64>() / 3.0;
        let moments = Moments {
            mean: (0..3).map(|i| mean(&|x| x[i])).collect(),
            second: (0..9).map(|ij| mean(&|x| x[ij / 3] * x[ij % 3])).collect(),
        };
        let row = moments.constant_row();
        for x in inputs {
            assert!((dot(&row, &x) - 1.0).abs() < 0.01, "{row:?}");
        }
    }

    #[test]
    fn heads_that_share_a_value_are_summed() {
        // Two query heads of size 1 on one value head: hidden 2.
        let output = Tensor::<2>::from_data([[1.0, 10.0], [2.0, 20.0]], &Device::default());
        let map = words_to_value(output, 2, 1, 1);
        assert_eq!(map.to_data().iter::<f32>().collect::<Vec<_>>(), [11.0, 22.0]);
    }
}
