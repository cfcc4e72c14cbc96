//! `W + s·B·A`, one row of `W` at a time.

use std::io::{Read, Write};
use std::path::Path;

use safetensors::Dtype;
use t2l_core::LoraWeights;

use crate::AdapterError;
use crate::tensors::{decode, encode};

/// What is added to the rows of one weight.
pub(super) struct RowUpdate {
    /// `A`: `[rank, in]`.
    a: Vec<f32>,
    /// `B`: `[out, rank]`.
    b: Vec<f32>,
    rank: usize,
    width: usize,
    scaling: f64,
}

impl RowUpdate {
    pub(super) fn new(weights: &LoraWeights, scaling: f64) -> Self {
        let values = |t: &burn::tensor::Tensor<2>| t.to_data().iter::<f32>().collect();
        let [rank, width] = weights.a.dims();
        Self { a: values(&weights.a), b: values(&weights.b), rank, width, scaling }
    }

    /// Reads each row, adds to it and writes it in the type it has.
    pub(super) fn copy(
        &self,
        dtype: Dtype,
        source: &mut impl Read,
        out: &mut impl Write,
        (from, to): (&Path, &Path),
        name: &str,
    ) -> Result<(), AdapterError> {
        let mut bytes = vec![0; self.width * dtype.bitsize() / 8];
        for (row, b) in self.b.chunks_exact(self.rank).enumerate() {
            source.read_exact(&mut bytes).map_err(AdapterError::io(from))?;
            let before = decode(dtype, &bytes);
            let after = encode(dtype, &self.sum(&before, b));
            // What was finite stays so, in the type that is written.
            let lost = before.iter().zip(decode(dtype, &after)).position(|(x, y)| x.is_finite() && !y.is_finite());
            if let Some(column) = lost {
                let reason = format!("row {row}, column {column}: the sum is more than {dtype:?} can hold");
                return Err(AdapterError::tensor(from, name, reason));
            }
            out.write_all(&after).map_err(AdapterError::io(to))?;
        }
        Ok(())
    }

    fn sum(&self, row: &[f32], b: &[f32]) -> Vec<f32> {
        let mut delta = vec![0.0_f32; self.width];
        for (b, a) in b.iter().zip(self.a.chunks_exact(self.width)) {
            delta.iter_mut().zip(a).for_each(|(d, a)| *d += b * a);
        }
        row.iter().zip(delta).map(|(x, d)| (f64::from(*x) + self.scaling * f64::from(d)) as f32).collect()
    }
}
