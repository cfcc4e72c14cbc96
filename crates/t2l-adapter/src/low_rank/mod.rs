//! Products `B·A` of low rank, handled through their factors in f64: never as the whole matrix.

mod matrix;
mod svd;

pub(crate) use matrix::Matrix;
pub(crate) use svd::{Svd, svd};
use t2l_core::LoraWeights;

/// `ΔW = B·A`, with the scaling already in `B`.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    /// `A` transposed: `[in, rank]`.
    pub(crate) at: Matrix,
    /// `B`: `[out, rank]`.
    pub(crate) b: Matrix,
}

impl Product {
    /// `scale·B·A` of one place.
    pub(crate) fn new(weights: &LoraWeights, scale: f64) -> Self {
        let ([rank, cols], [out, _]) = (weights.a.dims(), weights.b.dims());
        let a: Vec<f64> = weights.a.to_data().iter::<f32>().map(f64::from).collect();
        let b: Vec<f64> = weights.b.to_data().iter::<f32>().map(f64::from).collect();
        // The rows of A are the columns of its transpose, and columns are what a matrix stores.
        Self { at: Matrix::from_columns(cols, rank, a), b: Matrix::from_rows(out, rank, &b).scaled(scale) }
    }

    /// The sum of products of equal widths: their factors side by side.
    pub(crate) fn sum(products: &[Self]) -> Option<Self> {
        let (first, rest) = products.split_first()?;
        let mut sum = first.clone();
        for product in rest {
            sum.at.append(&product.at)?;
            sum.b.append(&product.b)?;
        }
        Some(sum)
    }

    /// `[out, in]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.b.rows(), self.at.rows()]
    }

    /// The inner product of two whole matrices: `Σ (B₁ᵀB₂)∘(A₁A₂ᵀ)`, both small. Where ranks are so large that these two
    /// are not, the whole matrices are: either way nothing is larger than the larger factor.
    pub(crate) fn inner(&self, other: &Self) -> f64 {
        let [rows, cols] = self.shape();
        let (x, y) = if self.rank().saturating_mul(other.rank()) > rows.saturating_mul(cols) {
            (self.whole(), other.whole())
        } else {
            (self.b.transposed_times(&other.b), self.at.transposed_times(&other.at))
        };
        x.values().iter().zip(y.values()).map(|(x, y)| x * y).sum()
    }

    fn rank(&self) -> usize {
        self.b.cols()
    }

    /// The whole matrix: `[out, in]`.
    fn whole(&self) -> Matrix {
        self.b.times(&self.at.transposed())
    }

    /// Frobenius norm.
    pub(crate) fn norm(&self) -> f64 {
        self.inner(self).max(0.0).sqrt()
    }

    /// The singular values of the whole matrix that are not nought, with their vectors: `u` `[out, n]`, `v` `[in, n]`.
    pub(crate) fn svd(&self) -> Svd {
        let (left, right) = (svd(&self.b), svd(&self.at));
        // B = Ub Sb Vbᵀ and Aᵀ = Ua Sa Vaᵀ, hence BA = Ub (Sb Vbᵀ Va Sa) Uaᵀ.
        let core = left.v.scaled_columns(&left.s).transposed_times(&right.v.scaled_columns(&right.s));
        let Svd { u, s, v } = svd(&core);
        Svd { u: left.u.times(&u), s, v: right.u.times(&v) }
    }
}

/// The angles between two subspaces, each given by orthonormal columns: smallest first, in radians.
///
/// From the cosine and from the sine together, so that small ones and those near a right angle are equally exact.
pub(crate) fn principal_angles(x: &Matrix, y: &Matrix) -> Vec<f64> {
    // The smaller space second: each of its directions has an angle.
    let (x, y) = if x.cols() < y.cols() { (y, x) } else { (x, y) };
    let overlap = x.transposed_times(y);
    let Svd { v, .. } = svd(&overlap);
    let directions = complete(&v, y.cols());
    let aligned = y.times(&directions);
    let inside = x.times(&overlap.times(&directions));
    let mut angles: Vec<f64> = (0..aligned.cols())
        .map(|j| {
            let (whole, part) = (aligned.column(j), inside.column(j));
            let sine = whole.iter().zip(part).map(|(w, p)| (w - p) * (w - p)).sum::<f64>().sqrt();
            let cosine = part.iter().map(|p| p * p).sum::<f64>().sqrt();
            sine.atan2(cosine)
        })
        .collect();
    angles.sort_by(f64::total_cmp);
    angles
}

/// Orthonormal columns, with those added that make a square matrix of them.
fn complete(columns: &Matrix, size: usize) -> Matrix {
    let mut basis = columns.clone();
    let mut left: Vec<usize> = (0..size).collect();
    while basis.cols() < size {
        // Of the axes, the one that is least within the columns so far.
        let inside = |axis: usize| -> f64 { (0..basis.cols()).map(|j| basis.column(j)[axis].powi(2)).sum() };
        let Some(at) = (0..left.len()).min_by(|i, j| inside(left[*i]).total_cmp(&inside(left[*j]))) else { break };
        let mut axis = vec![0.0; size];
        axis[left.swap_remove(at)] = 1.0;
        for _ in 0..2 {
            for j in 0..basis.cols() {
                matrix::remove(&mut axis, basis.column(j));
            }
        }
        matrix::normalise(&mut axis);
        basis.push(&axis);
    }
    basis
}

#[cfg(test)]
mod tests;
