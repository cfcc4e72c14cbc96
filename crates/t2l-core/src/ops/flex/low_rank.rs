//! Every row's own low-rank update: three thin products a row, forward and backward.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::linear::product;
use super::math::{sum2, vectorised};
use super::matrix::{Matrix, multiply_into};
use super::{constant, finish, operand, tensor, values};
use crate::{InputDropout, RowFactors};

/// See [`crate::ops::low_rank`].
pub fn low_rank(
    y: &Tensor<3>,
    first: usize,
    x: &Tensor<3>,
    factors: &RowFactors,
    dropout: Option<InputDropout>,
    place: u64,
) -> Option<Tensor<3>> {
    let [rows, tokens, input] = x.dims();
    let [_, rank, _] = factors.a.dims();
    let (width, output) = (y.dims()[2], factors.b.dims()[1]);
    let mut operands = [operand(y)?, operand(x)?, operand(&factors.a)?, operand(&factors.b)?];
    for o in &mut operands {
        o.values = o.values.to_contiguous();
    }
    let scaling = constant(&factors.scaling)?;
    let [y, x, a, b] = operands.each_ref().map(|o| o.values.clone());

    // What each row works on: its input as dropped out, and which input values those are.
    let dropped = move |row: usize, x: &[f32]| -> Option<Vec<f32>> {
        let dropout = dropout?;
        let keep = (1.0 / (1.0 - dropout.p)) as f32;
        let first = ((dropout.first_row + row) * tokens * input) as u64;
        Some((first..).zip(x).map(|(i, &x)| if dropout.drops(place, i) { 0.0 } else { x * keep }).collect())
    };

    let mut out = values(&y).to_vec();
    let mut low = vec![0.0f32; rows * tokens * rank];
    let work = out.par_chunks_mut((tokens * width).max(1)).zip(low.par_chunks_mut((tokens * rank).max(1))).enumerate();
    // A row of one token is too little work for a thread.
    work.with_min_len(if tokens == 1 { 16 } else { 1 }).for_each(|(row, (out, low))| {
        let x = &values(&x)[row * tokens * input..][..tokens * input];
        let masked = dropped(row, x);
        let x = masked.as_deref().unwrap_or(x);
        let (a, b, s) = (of_row(&a, row, rank * input), of_row(&b, row, output * rank), values(&scaling)[row]);
        if tokens == 1 {
            product(low, x, a, input);
            vectorised(|| add_update(&mut out[first..first + output], low, b, s));
        } else {
            multiply_into(low, rank, 0.0, Matrix::new(x, tokens, input), Matrix::new(a, rank, input).t(), 1.0, false);
            let (low, b) = (Matrix::new(low, tokens, rank), Matrix::new(b, output, rank));
            multiply_into(&mut out[first..], width, 1.0, low, b.t(), s, false);
        }
    });
    let result = tensor(out, &[rows, tokens, width]);
    Some(finish(operands, result, move |grad, [want_y, want_x, want_a, want_b]| {
        let mut dx = vec![0.0f32; if want_x { rows * tokens * input } else { 0 }];
        let mut da = vec![0.0f32; rows * rank * input];
        let mut db = vec![0.0f32; rows * output * rank];
        let dx_rows: Vec<Option<&mut [f32]>> =
            if want_x { dx.chunks_mut(tokens * input).map(Some).collect() } else { (0..rows).map(|_| None).collect() };
        let work = da.par_chunks_mut(rank * input).zip(db.par_chunks_mut(output * rank)).zip(dx_rows);
        work.enumerate().for_each(|(row, ((da, db), dx))| {
            let s = values(&scaling)[row];
            let x = &values(&x)[row * tokens * input..][..tokens * input];
            let (a, b) = (row_matrix(values(&a), row, rank, input), row_matrix(values(&b), row, output, rank));
            let g = Matrix::rows(&values(&grad)[row * tokens * width + first..], tokens, output, width);
            let mut d_low = vec![0.0f32; tokens * rank];
            multiply_into(&mut d_low, rank, 0.0, g, b, s, false);
            let d_low = Matrix::new(&d_low, tokens, rank);
            if want_b {
                multiply_into(db, rank, 0.0, g.t(), row_matrix(&low, row, tokens, rank), s, false);
            }
            if want_a {
                let masked = dropped(row, x);
                let x = Matrix::new(masked.as_deref().unwrap_or(x), tokens, input);
                multiply_into(da, input, 0.0, d_low.t(), x, 1.0, false);
            }
            if let Some(dx) = dx {
                multiply_into(dx, input, 0.0, d_low, a, 1.0, false);
                if let Some(dropout) = dropout {
                    let keep = (1.0 / (1.0 - dropout.p)) as f32;
                    let first = ((dropout.first_row + row) * tokens * input) as u64;
                    for (i, d) in (first..).zip(dx) {
                        *d = if dropout.drops(place, i) { 0.0 } else { *d * keep };
                    }
                }
            }
        });
        [
            want_y.then_some(grad),
            want_x.then(|| tensor(dx, &[rows, tokens, input])),
            want_a.then(|| tensor(da, &[rows, rank, input])),
            want_b.then(|| tensor(db, &[rows, output, rank])),
        ]
    }))
}

/// One token's update: `out += s · B · low`. `b`: `[out, rank]`.
#[inline(always)]
fn add_update(out: &mut [f32], low: &[f32], b: &[f32], s: f32) {
    for (y, b) in out.iter_mut().zip(b.chunks_exact(low.len().max(1))) {
        *y += s * sum2(b, low, |b, low| b * low);
    }
}

fn of_row(tensor: &FlexTensor, row: usize, length: usize) -> &[f32] {
    &values(tensor)[row * length..][..length]
}

fn row_matrix(values: &[f32], row: usize, rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(&values[row * rows * cols..][..rows * cols], rows, cols)
}
