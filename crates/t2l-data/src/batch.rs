//! Rows of different length as one right-padded batch, with the positions that carry loss.

use std::ops::Range;

use crate::TokenizedExample;

/// A right-padded training batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainBatch {
    /// Number of rows.
    pub rows: usize,
    /// Padded length of every row.
    pub width: usize,
    /// Token ids, row-major: `[rows, width]`.
    pub ids: Vec<i32>,
    /// Flat positions (`row · width + token`) whose output predicts a label: `[labels]`.
    pub label_positions: Vec<i32>,
    /// The tokens they should predict: `[labels]`.
    pub labels: Vec<i32>,
    /// The row of each label: `[labels]`.
    pub label_rows: Vec<usize>,
    /// Labels of each row: `[rows]`.
    pub label_counts: Vec<usize>,
    /// Real tokens, padding not counted.
    pub tokens: usize,
}

impl TrainBatch {
    /// Pads rows on the right to a multiple of `multiple`, with `pad`.
    pub fn new(examples: &[&TokenizedExample], multiple: usize, pad: u32) -> Self {
        let length = |e: &TokenizedExample| e.prompt.len() + e.response.len();
        let longest = examples.iter().map(|e| length(e)).max().unwrap_or(0);
        let width = longest.next_multiple_of(multiple.max(1));
        let mut batch = Self {
            rows: examples.len(),
            width,
            ids: Vec::with_capacity(examples.len() * width),
            label_positions: vec![],
            labels: vec![],
            label_rows: vec![],
            label_counts: vec![0; examples.len()],
            tokens: examples.iter().map(|e| length(e)).sum(),
        };
        for (row, example) in examples.iter().enumerate() {
            batch.ids.extend(example.prompt.iter().chain(&example.response).map(|&id| id as i32));
            batch.ids.resize((row + 1) * width, pad as i32);
            for (i, &label) in example.response.iter().enumerate() {
                // The first token of a row is predicted by nothing.
                let Some(position) = (example.prompt.len() + i).checked_sub(1) else { continue };
                batch.label_positions.push((row * width + position) as i32);
                batch.labels.push(label as i32);
                batch.label_rows.push(row);
                batch.label_counts[row] += 1;
            }
        }
        batch
    }

    /// Some of the rows, as wide as all. How many of their tokens are real is not noted by row: `tokens` is their share.
    ///
    /// # Panics
    /// Rows that the batch does not have.
    #[must_use]
    pub fn select(&self, rows: Range<usize>) -> Self {
        let first = rows.start * self.width;
        let labels = || (0..self.labels.len()).filter(|&i| rows.contains(&self.label_rows[i]));
        Self {
            rows: rows.len(),
            width: self.width,
            ids: self.ids[first..rows.end * self.width].to_vec(),
            label_positions: labels().map(|i| self.label_positions[i] - first as i32).collect(),
            labels: labels().map(|i| self.labels[i]).collect(),
            label_rows: labels().map(|i| self.label_rows[i] - rows.start).collect(),
            label_counts: self.label_counts[rows.clone()].to_vec(),
            tokens: self.tokens * rows.len() / self.rows.max(1),
        }
    }

    /// Share of the batch that is padding.
    pub fn padding_share(&self) -> f64 {
        1.0 - self.tokens as f64 / (self.rows * self.width).max(1) as f64
    }
}
