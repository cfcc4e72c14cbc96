//! Cross-entropy over a large vocabulary in tiles: logits exist for a few positions at a time.

use burn::tensor::{Int, Tensor};
use rayon::prelude::*;

use super::math::{exp, vectorised};
use super::matrix::{Matrix, multiply_into};
use super::{constant, finish, operand, tensor, values};

/// Positions whose logits are held at once (64 × 49,152 f32 is 12.6 MB).
const TILE: usize = 64;

/// See [`crate::ops::label_nll`].
pub fn label_nll(
    hidden: &Tensor<2>,
    lm_head: &Tensor<2>,
    labels: &Tensor<1, Int>,
    smoothing: f64,
    softcap: Option<f64>,
) -> Option<Tensor<1>> {
    let mut hidden_operand = operand(hidden)?;
    let head = constant(lm_head)?;
    let ([n, width], vocabulary) = (hidden.dims(), lm_head.dims()[0]);
    let labels: Vec<usize> = labels.to_data().iter::<i64>().map(|l| l as usize).collect();
    hidden_operand.values = hidden_operand.values.to_contiguous();
    let input = hidden_operand.values.clone();
    let tracked = hidden_operand.tracked.is_some();
    let (smoothing, softcap) = (smoothing as f32, softcap.map(|cap| cap as f32));

    let mut nll = vec![0.0f32; n];
    // d nll / d hidden of every position, made while its logits are at hand.
    let mut unit = vec![0.0f32; if tracked { n * width } else { 0 }];
    let mut logits = vec![0.0f32; TILE.min(n) * vocabulary];
    for start in (0..n).step_by(TILE) {
        let count = TILE.min(n - start);
        let logits = &mut logits[..count * vocabulary];
        let rows = Matrix::new(&values(&input)[start * width..][..count * width], count, width);
        let head = Matrix::new(values(&head), vocabulary, width);
        multiply_into(logits, vocabulary, 0.0, rows, head.t(), 1.0, true);
        let tile = logits.par_chunks_mut(vocabulary).zip(&mut nll[start..][..count]).zip(&labels[start..][..count]);
        tile.for_each(|((row, nll), &label)| {
            *nll = vectorised(|| match softcap {
                Some(cap) => capped_nll_and_gradient(row, label, smoothing, cap),
                None => nll_and_gradient(row, label, smoothing),
            });
        });
        if tracked {
            let gradient = Matrix::new(logits, count, vocabulary);
            multiply_into(&mut unit[start * width..][..count * width], width, 0.0, gradient, head, 1.0, true);
        }
    }
    Some(finish([hidden_operand], tensor(nll, &[n]), move |grad, [wanted]| {
        [wanted.then(|| {
            let rows = unit.par_chunks(width).zip(values(&grad));
            tensor(rows.flat_map_iter(|(row, &g)| row.iter().map(move |&u| u * g)).collect(), &[n, width])
        })]
    }))
}

/// As [`nll_and_gradient`], of logits `cap · tanh(x / cap)`.
#[inline(always)]
fn capped_nll_and_gradient(row: &mut [f32], label: usize, smoothing: f32, cap: f32) -> f32 {
    let bent: Vec<f32> = row.iter().map(|&x| 1.0 - 2.0 / (exp(2.0 * x / cap) + 1.0)).collect();
    row.iter_mut().zip(&bent).for_each(|(x, &t)| *x = cap * t);
    let nll = nll_and_gradient(row, label, smoothing);
    row.iter_mut().zip(&bent).for_each(|(g, &t)| *g *= 1.0 - t * t);
    nll
}

/// Turns a row of logits into the gradient of its loss and gives the loss.
#[inline(always)]
fn nll_and_gradient(row: &mut [f32], label: usize, smoothing: f32) -> f32 {
    let vocabulary = row.len() as f32;
    let mut peaks = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks(16) {
        for (peak, &x) in peaks.iter_mut().zip(chunk) {
            *peak = if x > *peak { x } else { *peak };
        }
    }
    let peak = peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let at_label = row.get(label).copied().unwrap_or(f32::NAN);
    let (mut sums, mut totals) = ([0.0f32; 16], [0.0f32; 16]);
    for chunk in row.chunks_mut(16) {
        for ((sum, total), x) in sums.iter_mut().zip(&mut totals).zip(chunk) {
            *total += *x - peak;
            *x = exp(*x - peak);
            *sum += *x;
        }
    }
    let sum: f32 = sums.iter().sum();
    let log_sum = sum.ln();
    let mean_log_prob = totals.iter().sum::<f32>() / vocabulary - log_sum;
    let (scale, floor) = (1.0 / sum, smoothing / vocabulary);
    for x in row.iter_mut() {
        *x = *x * scale - floor;
    }
    if let Some(x) = row.get_mut(label) {
        *x -= 1.0 - smoothing;
    }
    (smoothing - 1.0) * (at_label - peak - log_sum) - smoothing * mean_log_prob
}
