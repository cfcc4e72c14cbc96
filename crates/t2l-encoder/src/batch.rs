//! Token ids on their way into the model.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::EncoderError;

/// Rows of token ids of one length, some of them padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    rows: usize,
    length: usize,
    ids: Vec<i64>,
    types: Vec<i64>,
    real: Vec<bool>,
}

impl TokenBatch {
    /// Pads every row on the right to the longest one. Token types are 0.
    ///
    /// # Errors
    /// No row, or a row without tokens.
    pub fn padded(rows: &[&[u32]], padding: u32) -> Result<Self, EncoderError> {
        let length = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        if rows.iter().any(|r| r.is_empty()) || length == 0 {
            return Err(batch("a row without tokens"));
        }
        let fill = |f: &dyn Fn(&[u32], usize) -> i64| {
            rows.iter().flat_map(|r| (0..length).map(move |i| f(r, i))).collect::<Vec<i64>>()
        };
        Ok(Self {
            rows: rows.len(),
            length,
            ids: fill(&|r, i| r.get(i).copied().unwrap_or(padding).into()),
            types: fill(&|_, _| 0),
            real: rows.iter().flat_map(|r| (0..length).map(|i| i < r.len())).collect(),
        })
    }

    /// Rows as other programs hand them over, each `[rows × length]`, row-major; `real` is their attention mask.
    ///
    /// # Errors
    /// Lists of different sizes, or a row in which nothing is real.
    pub fn new(length: usize, ids: Vec<i64>, types: Vec<i64>, real: Vec<bool>) -> Result<Self, EncoderError> {
        let count = ids.len();
        if length == 0 || count == 0 || !count.is_multiple_of(length) || types.len() != count || real.len() != count {
            let reason = format!("{count} ids, {} types, {} mask values, length {length}", types.len(), real.len());
            return Err(batch(&reason));
        }
        if real.chunks(length).any(|row| !row.contains(&true)) {
            return Err(batch("a row without tokens"));
        }
        Ok(Self { rows: count / length, length, ids, types, real })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens in each row, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Which tokens of each row are no padding.
    pub fn real(&self) -> impl Iterator<Item = &[bool]> {
        self.real.chunks(self.length)
    }

    pub(crate) fn check(&self, vocabulary: usize, types: usize, positions: usize) -> Result<(), EncoderError> {
        let outside = |values: &[i64], rows: usize| {
            values.iter().copied().find(|&v| usize::try_from(v).map_or(true, |v| v >= rows))
        };
        if let Some(id) = outside(&self.ids, vocabulary) {
            return Err(batch(&format!("token id {id}, the model has {vocabulary}")));
        }
        // A model without token types has no use for them.
        if let Some(id) = outside(&self.types, types).filter(|_| types > 0) {
            return Err(batch(&format!("token type {id}, the model has {types}")));
        }
        if self.length > positions {
            return Err(batch(&format!("{} tokens, the model takes {positions}", self.length)));
        }
        Ok(())
    }

    pub(crate) fn ids(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.ids.clone(), [self.ids.len()]), device)
    }

    /// Where the last token of every row stands among those of all rows, padding included: `[rows]`.
    pub(crate) fn last(&self, device: &Device) -> Tensor<1, Int> {
        let last = |(row, real): (usize, &[bool])| row * self.length + real.iter().rposition(|&r| r).unwrap_or(0);
        let last: Vec<i64> = self.real().enumerate().map(|row| last(row) as i64).collect();
        Tensor::from_data(TensorData::new(last, [self.rows]), device)
    }

    /// `None` when all are 0.
    pub(crate) fn types(&self, device: &Device) -> Option<Tensor<1, Int>> {
        let any = self.types.iter().any(|&t| t != 0);
        any.then(|| Tensor::from_data(TensorData::new(self.types.clone(), [self.types.len()]), device))
    }

    /// True where a key must not be seen: `[rows, heads, length, length]`; `None` when every token is real.
    pub(crate) fn hidden_keys(&self, heads: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        if self.real.iter().all(|&r| r) {
            return None;
        }
        let hidden: Vec<bool> = self.real.iter().map(|r| !r).collect();
        let hidden: Tensor<4, Bool> =
            Tensor::from_data(TensorData::new(hidden, [self.rows, 1, 1, self.length]), device);
        Some(hidden.expand([self.rows, heads, self.length, self.length]))
    }
}

fn batch(reason: &str) -> EncoderError {
    EncoderError::Batch { reason: reason.to_owned() }
}
