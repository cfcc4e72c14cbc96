//! Validation: the loss on examples that are never trained on, under the right description and under another's.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, AdapterGenerator};
use t2l_data::{TokenizedExample, TrainBatch};
use t2l_hypernet::Hypernet;

use crate::TrainError;
use crate::loss::label_losses;

/// Judges a hypernetwork in the middle of a run.
pub trait Validator {
    /// Named numbers; lower is better for names that end in `nll`.
    ///
    /// # Errors
    /// Whatever keeps it from judging.
    fn validate(&mut self, hypernet: &Hypernet) -> Result<BTreeMap<String, f64>, TrainError>;
}

/// The numbers of all validators together.
pub(crate) fn validate_all(
    validators: &mut [Box<dyn Validator>],
    hypernet: &Hypernet,
) -> Result<BTreeMap<String, f64>, TrainError> {
    let mut numbers = BTreeMap::new();
    for validator in validators {
        numbers.extend(validator.validate(hypernet)?);
    }
    Ok(numbers)
}

/// Mean loss per target token of each example, under the adapter of its row.
///
/// `decoder` is a plain one (not for training).
pub(crate) fn example_nll(
    decoder: &Decoder,
    examples: &[&TokenizedExample],
    adapters: &AdapterBatch,
) -> Result<Vec<f64>, TrainError> {
    let batch = TrainBatch::new(examples, 8, 0);
    let losses = label_losses(decoder, &batch, adapters, 0.0, None)?.to_data();
    let mut means = vec![0.0; examples.len()];
    for (loss, &row) in losses.iter::<f64>().zip(&batch.label_rows) {
        means[row] += loss / batch.label_counts[row] as f64;
    }
    Ok(means)
}

/// Rows that are scored at once.
pub(crate) const ROWS: usize = 8;

/// One held-out example with the embeddings it is scored under.
#[derive(Debug, Clone)]
pub struct HeldOutExample {
    /// The example.
    pub example: TokenizedExample,
    /// Embedding of its own task's evaluation description: `[1, e]`.
    pub own: Tensor<2>,
    /// Embedding of another task's evaluation description: `[1, e]`.
    pub other: Tensor<2>,
}

/// Mean loss per target token over held-out examples, under their own description (`own_nll`), under another task's
/// (`other_nll`), and the difference (`listening`, other − own).
pub struct HeldOut {
    group: String,
    decoder: Decoder,
    examples: Vec<HeldOutExample>,
}

impl HeldOut {
    /// A validator whose numbers are named `group/…`. `decoder` is a plain one (not for training).
    pub fn new(group: impl Into<String>, decoder: Decoder, mut examples: Vec<HeldOutExample>) -> Self {
        examples.sort_by_key(|e| e.example.prompt.len() + e.example.response.len());
        Self { group: group.into(), decoder, examples }
    }
}

impl Validator for HeldOut {
    fn validate(&mut self, hypernet: &Hypernet) -> Result<BTreeMap<String, f64>, TrainError> {
        let mut totals = [0.0f64; 2];
        for chunk in self.examples.chunks(ROWS) {
            let examples: Vec<&TokenizedExample> = chunk.iter().map(|e| &e.example).collect();
            for (total, pick) in
                totals.iter_mut().zip([|e: &HeldOutExample| e.own.clone(), |e: &HeldOutExample| e.other.clone()])
            {
                let factors = hypernet.generate(Tensor::cat(chunk.iter().map(pick).collect(), 0))?;
                let nll = example_nll(&self.decoder, &examples, &AdapterBatch::from_factors(&factors))?;
                *total += nll.iter().sum::<f64>();
            }
        }
        let [own, other] = totals.map(|t| t / self.examples.len().max(1) as f64);
        let name = |what: &str| format!("{}/{what}", self.group);
        Ok([(name("own_nll"), own), (name("other_nll"), other), (name("listening"), other - own)].into())
    }
}
