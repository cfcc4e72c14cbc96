//! Singular values: first a QR decomposition, which leaves a small square matrix, then one-sided Jacobi rotations on it.

use super::matrix::{Matrix, dot, normalise, remove};

/// Rotations over all pairs of columns; a dozen are enough for any matrix.
const SWEEPS: usize = 60;

/// `u · diag(s) · vᵀ`: orthonormal columns, and the singular values that are not nought, largest first.
#[derive(Debug, Clone)]
pub(crate) struct Svd {
    pub(crate) u: Matrix,
    pub(crate) s: Vec<f64>,
    pub(crate) v: Matrix,
}

/// The singular values of a matrix, with their vectors.
///
/// Those below the rounding error of the largest count as nought.
pub(crate) fn svd(matrix: &Matrix) -> Svd {
    if matrix.cols() > matrix.rows() {
        let Svd { u, s, v } = svd(&matrix.transposed());
        return Svd { u: v, s, v: u };
    }
    let (q, r) = qr(matrix);
    // R = W diag(s) Vᵀ: rotations from the right make the columns of R orthogonal.
    let (mut w, mut v) = (r, identity(matrix.cols()));
    for _ in 0..SWEEPS {
        if !sweep(&mut w, &mut v) {
            break;
        }
    }
    let mut lengths: Vec<(f64, usize)> = (0..w.cols()).map(|j| (normalise(w.column_mut(j)), j)).collect();
    lengths.sort_by(|x, y| y.0.total_cmp(&x.0));
    let largest = lengths.first().map_or(0.0, |x| x.0);
    let floor = largest * f64::EPSILON * matrix.rows().max(1) as f64;
    lengths.retain(|x| x.0 > floor);
    let (mut left, mut right) = (Matrix::zeros(w.rows(), 0), Matrix::zeros(v.rows(), 0));
    for (_, j) in &lengths {
        left.push(w.column(*j));
        right.push(v.column(*j));
    }
    Svd { u: q.times(&left), s: lengths.into_iter().map(|x| x.0).collect(), v: right }
}

fn identity(size: usize) -> Matrix {
    let mut out = Matrix::zeros(size, size);
    for j in 0..size {
        out.column_mut(j)[j] = 1.0;
    }
    out
}

/// Gram–Schmidt, twice over each column: orthogonal to the last digit. A column within those before gets nought in `Q`.
fn qr(matrix: &Matrix) -> (Matrix, Matrix) {
    let size = matrix.cols();
    let (mut q, mut r) = (Matrix::zeros(matrix.rows(), 0), Matrix::zeros(size, size));
    for j in 0..size {
        let mut column = matrix.column(j).to_vec();
        let before = dot(&column, &column).sqrt();
        for _ in 0..2 {
            for i in 0..j {
                r.column_mut(j)[i] += remove(&mut column, q.column(i));
            }
        }
        let left = normalise(&mut column);
        if left > before * f64::EPSILON * 16.0 {
            r.column_mut(j)[j] = left;
        } else {
            column.fill(0.0);
        }
        q.push(&column);
    }
    (q, r)
}

/// Rotates every pair of columns of `w`, and of `v` with it, until they are orthogonal; whether any had to be.
fn sweep(w: &mut Matrix, v: &mut Matrix) -> bool {
    let mut rotated = false;
    for i in 0..w.cols() {
        for j in i + 1..w.cols() {
            let (x, y) = w.two_columns(i, j);
            let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y));
            if xy == 0.0 || xy.abs() <= f64::EPSILON * (xx * yy).sqrt() {
                continue;
            }
            rotated = true;
            let zeta = (yy - xx) / (2.0 * xy);
            let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
            let cosine = tangent.hypot(1.0).recip();
            let sine = cosine * tangent;
            rotate(x, y, cosine, sine);
            let (x, y) = v.two_columns(i, j);
            rotate(x, y, cosine, sine);
        }
    }
    rotated
}

fn rotate(x: &mut [f64], y: &mut [f64], cosine: f64, sine: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}
