//! Rows of A whose product with whatever a layer's attention reads is about constant: with them a rank adds its column of
//! B to the values of every position alike.

use burn::tensor::{Tensor, TensorData};
use t2l_backbone::Decoder;
use t2l_data::{TokenizedExample, TrainBatch};

use crate::TrainError;
use crate::loss::noisy_embeddings;

/// Rows that it reads at once.
const ROWS: usize = 8;
/// What is added to the diagonal of the inputs' second moments, in parts of its mean.
const RIDGE: f64 = 1e-3;

/// Such a row for each layer of a plain decoder from `first` on, `[layers, in]`, and what its product with an input is
/// about. `examples`, a hundred or so of all kinds, say what is constant.
///
/// # Errors
/// No example.
pub(super) fn constant_rows(
    decoder: &Decoder,
    examples: &[&TokenizedExample],
    first: usize,
) -> Result<(Tensor<2>, Vec<f64>), TrainError> {
    if examples.is_empty() {
        return Err(TrainError::NoData { reason: "no example to look at the base model with".into() });
    }
    // As long as other rows of A begin (kaiming-uniform with a = √5), so that one learning rate suits both; B carries the
    // rest.
    let length = 1.0 / 3f64.sqrt();
    let (mut rows, mut products) = (Vec::new(), Vec::new());
    for moments in input_moments(decoder, examples, first)? {
        let row = moments.constant_row();
        let product = length / row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-9);
        rows.extend(row.iter().map(|x| (x * product) as f32));
        products.push(product);
    }
    let shape = [products.len(), decoder.config().hidden_size];
    Ok((Tensor::from_data(TensorData::new(rows, shape), &decoder.device()), products))
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
}
