//! Rows scored a second time under another task's adapter, so that listening to the description pays.

use burn::tensor::{Int, Tensor, TensorData, activation};
use t2l_data::TrainBatch;

use crate::StepSeed;
use crate::loss::{LossConfig, row_means};
use crate::noise::{Noise, Purpose};

/// A row of a batch, and the row whose adapter it is scored under the second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contrast {
    /// The row.
    pub own: usize,
    /// A row of another task.
    pub other: usize,
}

impl Contrast {
    /// Draws up to `loss.margin_rows` rows, each with the next row of another task. `tasks`: the task of every row.
    pub fn draw(tasks: &[usize], loss: &LossConfig, seed: StepSeed) -> Vec<Self> {
        if loss.margin_weight == 0.0 {
            return vec![];
        }
        let rows = tasks.len();
        let other = |own: usize| (own + 1..own + rows).map(|i| i % rows).find(|&i| tasks[i] != tasks[own]);
        let order = Noise::of(seed, Purpose::Contrast).shuffled(rows).into_iter();
        order.filter_map(|own| Some(Self { own, other: other(own)? })).take(loss.margin_rows).collect()
    }
}

/// `mean(max(0, margin − (other − own)))` over the contrasts: `[1]`. Row `rows + i` of the batch is contrast i.
pub(super) fn margin_loss(
    losses: Tensor<1>,
    batch: &TrainBatch,
    rows: usize,
    contrasts: &[Contrast],
    margin: f64,
) -> Tensor<1> {
    let device = losses.device();
    let of_rows = row_means(losses, batch);
    let own: Vec<i64> = contrasts.iter().map(|c| c.own as i64).collect();
    let own: Tensor<1, Int> = Tensor::from_data(TensorData::new(own, [contrasts.len()]), &device);
    let lead = of_rows.clone().narrow(0, rows, contrasts.len()) - of_rows.select(0, own);
    activation::relu(lead.neg().add_scalar(margin)).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use t2l_data::TokenizedExample;

    use super::*;

    const SEED: StepSeed = StepSeed { seed: 1, step: 2, micro: 0 };

    #[test]
    fn rows_meet_another_task() {
        let loss = LossConfig { margin_weight: 1.0, margin_rows: 3, ..LossConfig::default() };
        let tasks = [4, 4, 7, 9, 4];
        let drawn = Contrast::draw(&tasks, &loss, SEED);
        assert_eq!(drawn.len(), 3);
        assert!(drawn.iter().all(|c| tasks[c.own] != tasks[c.other]));
        assert_eq!(drawn, Contrast::draw(&tasks, &loss, SEED));
        assert_ne!(drawn, Contrast::draw(&tasks, &loss, StepSeed { step: 3, ..SEED }));
        assert_eq!(Contrast::draw(&[5, 5], &loss, SEED), []);
        assert_eq!(Contrast::draw(&tasks, &LossConfig::default(), SEED), []);
    }

    #[test]
    fn only_what_falls_short_of_the_margin_costs() {
        let example = |labels: u32| TokenizedExample { prompt: vec![1], response: (0..labels).collect() };
        let examples = [example(2), example(1), example(2), example(1)];
        let batch = TrainBatch::new(&examples.iter().collect::<Vec<_>>(), 1, 0);
        let contrasts = [Contrast { own: 0, other: 1 }, Contrast { own: 1, other: 0 }];
        // Rows 0 and 1 have means 1 and 2; under the other's adapter, 1.25 and 9.
        let losses = Tensor::from_floats([0.5, 1.5, 2.0, 1.0, 1.5, 9.0], &Device::default());
        let loss = margin_loss(losses, &batch, 2, &contrasts, 1.0).into_scalar::<f32>();
        assert!((loss - 0.375).abs() < 1e-6, "{loss}");
    }
}
