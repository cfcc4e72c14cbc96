//! Small dense matrices in f64, stored column by column.

/// A matrix.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// `rows × cols` noughts.
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, values: vec![0.0; rows * cols] }
    }

    /// From its columns, one after the other.
    pub(crate) fn from_columns(rows: usize, cols: usize, values: Vec<f64>) -> Self {
        debug_assert_eq!(values.len(), rows * cols);
        Self { rows, cols, values }
    }

    /// From its rows, one after the other.
    pub(crate) fn from_rows(rows: usize, cols: usize, values: &[f64]) -> Self {
        Self::from_columns(cols, rows, values.to_vec()).transposed()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Column by column.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.rows..(j + 1) * self.rows]
    }

    pub(super) fn column_mut(&mut self, j: usize) -> &mut [f64] {
        &mut self.values[j * self.rows..(j + 1) * self.rows]
    }

    /// Two different columns, to be changed together.
    pub(super) fn two_columns(&mut self, i: usize, j: usize) -> (&mut [f64], &mut [f64]) {
        let (front, back) = self.values.split_at_mut(j * self.rows);
        (&mut front[i * self.rows..(i + 1) * self.rows], &mut back[..self.rows])
    }

    /// Adds a column of the same height.
    pub(super) fn push(&mut self, column: &[f64]) {
        debug_assert_eq!(column.len(), self.rows);
        self.values.extend_from_slice(column);
        self.cols += 1;
    }

    /// Puts another matrix to the right; `None` when the heights differ.
    pub(crate) fn append(&mut self, other: &Self) -> Option<()> {
        if self.rows != other.rows {
            return None;
        }
        self.values.extend_from_slice(&other.values);
        self.cols += other.cols;
        Some(())
    }

    /// Adds columns of noughts up to a number.
    pub(crate) fn widen(&mut self, cols: usize) {
        self.cols = self.cols.max(cols);
        self.values.resize(self.cols * self.rows, 0.0);
    }

    /// The sum; `None` when the shapes differ.
    pub(crate) fn plus(&self, other: &Self) -> Option<Self> {
        let same = (self.rows, self.cols) == (other.rows, other.cols);
        let values = self.values.iter().zip(&other.values).map(|(x, y)| x + y);
        same.then(|| Self { rows: self.rows, cols: self.cols, values: values.collect() })
    }

    /// Its first columns.
    pub(crate) fn first_columns(&self, count: usize) -> Self {
        let cols = count.min(self.cols);
        Self { rows: self.rows, cols, values: self.values[..cols * self.rows].to_vec() }
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.cols, self.rows);
        for j in 0..self.cols {
            for (i, x) in self.column(j).iter().enumerate() {
                out.values[i * self.cols + j] = *x;
            }
        }
        out
    }

    pub(crate) fn scaled(mut self, scale: f64) -> Self {
        self.values.iter_mut().for_each(|x| *x *= scale);
        self
    }

    /// Each column times its own number; columns beyond the numbers are dropped.
    pub(crate) fn scaled_columns(&self, scales: &[f64]) -> Self {
        let mut out = self.first_columns(scales.len());
        for (j, scale) in scales.iter().enumerate().take(out.cols) {
            out.column_mut(j).iter_mut().for_each(|x| *x *= scale);
        }
        out
    }

    /// `self · other`.
    pub(crate) fn times(&self, other: &Self) -> Self {
        debug_assert_eq!(self.cols, other.rows);
        let mut out = Self::zeros(self.rows, other.cols);
        for j in 0..other.cols {
            for (k, scale) in other.column(j).iter().enumerate() {
                for (x, y) in out.column_mut(j).iter_mut().zip(self.column(k)) {
                    *x += scale * y;
                }
            }
        }
        out
    }

    /// `selfᵀ · other`.
    pub(crate) fn transposed_times(&self, other: &Self) -> Self {
        debug_assert_eq!(self.rows, other.rows);
        let mut out = Self::zeros(self.cols, other.cols);
        for j in 0..other.cols {
            for i in 0..self.cols {
                out.values[j * self.cols + i] = dot(self.column(i), other.column(j));
            }
        }
        out
    }
}

/// Eight sums side by side keep the processor's vector units busy.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let mut sums = [0.0_f64; 8];
    for (x, y) in x.iter().zip(y) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// Takes out of a vector what lies along a unit vector; says how much that was.
pub(super) fn remove(vector: &mut [f64], unit: &[f64]) -> f64 {
    let along = dot(vector, unit);
    vector.iter_mut().zip(unit).for_each(|(x, u)| *x -= along * u);
    along
}

/// Gives a vector length 1, unless it is nought; says how long it was.
pub(super) fn normalise(vector: &mut [f64]) -> f64 {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    length
}
