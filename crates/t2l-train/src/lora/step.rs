//! One step of many adapters: rows of one batch wear different ones in a single pass through the frozen decoder.

use burn::tensor::{Int, Tensor, TensorData};
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, AdapterLayout, LoraFactors, LoraScaling, ModuleFactors, Parameters};
use t2l_data::TrainBatch;

use super::plain::stacked;
use crate::backward::TrainingPass;
use crate::loss::{LossConfig, Weighting};
use crate::optimizer::{NamedGradients, named_gradients};
use crate::{StepSeed, TrainError};

/// What a step computed.
#[derive(Debug, Clone)]
pub struct AdapterStepOutput {
    /// Loss of each adapter over its own rows; `None` for one without a row.
    pub losses: Vec<Option<f64>>,
    /// Gradients of each adapter's own loss, in name order.
    pub gradients: Vec<Option<NamedGradients>>,
}

/// Computes the loss of every adapter over its own rows of a batch, and its gradients.
///
/// `decoder` must be [`Decoder::for_training`]; row i of the batch wears `adapters[wears[i]]`. An adapter's loss and
/// gradients are what they would be if its rows were the whole batch.
///
/// # Errors
/// Adapters that do not fit the decoder, or rows for an adapter that is not there.
#[allow(clippy::too_many_arguments)]
pub fn adapter_step(
    decoder: &Decoder,
    adapters: &[&Parameters],
    layout: &AdapterLayout,
    scaling: LoraScaling,
    batch: &TrainBatch,
    wears: &[usize],
    loss: &LossConfig,
    seed: Option<StepSeed>,
) -> Result<AdapterStepOutput, TrainError> {
    check_rows(batch, wears, adapters.len())?;
    // Only adapters with a row take part; `seats` are their places in the pass.
    let mut present: Vec<usize> = wears.to_vec();
    present.sort_unstable();
    present.dedup();
    let seats: Vec<usize> = wears.iter().map(|w| present.partition_point(|p| p < w)).collect();

    let tracked: Vec<Parameters> = present.iter().map(|&i| adapters[i].tracked()).collect();
    let factors = stacked(&tracked.iter().collect::<Vec<_>>(), layout, scaling);
    let weights = own_weights(batch, &seats, present.len(), loss.weighting);
    let mut output = AdapterStepOutput { losses: vec![None; adapters.len()], gradients: vec![None; adapters.len()] };
    let mut own = vec![0.0; present.len()];
    let pass = TrainingPass { decoder, batch, loss, seed, first_row: 0 };
    let mut gradients = pass.gradients(AdapterBatch::from_factors(&of_rows(factors, &seats)), None, |losses| {
        let device = losses.device();
        let weights: Tensor<1> = Tensor::from_data(TensorData::new(weights, [batch.labels.len()]), &device);
        let weighted = losses.mul(weights);
        for (loss, &row) in weighted.clone().inner().to_data().iter::<f32>().zip(&batch.label_rows) {
            own[seats[row]] += f64::from(loss);
        }
        weighted.sum()
    })?;
    for ((&adapter, tracked), own) in present.iter().zip(&tracked).zip(own) {
        output.losses[adapter] = Some(own);
        output.gradients[adapter] = Some(named_gradients(tracked, &mut gradients));
    }
    Ok(output)
}

fn check_rows(batch: &TrainBatch, wears: &[usize], adapters: usize) -> Result<(), TrainError> {
    if batch.rows != wears.len() {
        return Err(t2l_core::FitError::Rows { expected: batch.rows, found: wears.len() }.into());
    }
    match wears.iter().position(|&w| w >= adapters) {
        None => Ok(()),
        Some(row) => Err(t2l_core::FitError::NoSuchAdapter { row, adapter: wears[row], given: adapters }.into()),
    }
}

/// The factors that each row wears: a gather, whose gradients add up per adapter.
pub(crate) fn of_rows(factors: LoraFactors, seats: &[usize]) -> LoraFactors {
    let index: Vec<i64> = seats.iter().map(|&s| s as i64).collect();
    let gather = |factor: Tensor<4>| {
        let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index.clone(), [seats.len()]), &factor.device());
        factor.select(0, index)
    };
    let modules = factors.modules.into_iter();
    let modules = modules.map(|m| ModuleFactors { name: m.name, a: gather(m.a), b: gather(m.b) });
    LoraFactors { scaling: factors.scaling, modules: modules.collect() }
}

/// Weight of every label in the loss of the adapter that its row wears.
fn own_weights(batch: &TrainBatch, seats: &[usize], adapters: usize, weighting: Weighting) -> Vec<f32> {
    let (mut rows, mut labels) = (vec![0usize; adapters], vec![0usize; adapters]);
    for (row, &seat) in seats.iter().enumerate() {
        rows[seat] += 1;
        labels[seat] += batch.label_counts[row];
    }
    let weight = |&row: &usize| {
        let divisor = match weighting {
            Weighting::Token => labels[seats[row]],
            Weighting::Sample => rows[seats[row]] * batch.label_counts[row],
        };
        1.0 / divisor.max(1) as f32
    };
    batch.label_rows.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_adapter_weighs_its_own_rows_as_if_they_were_the_batch() {
        let batch = TrainBatch {
            rows: 3,
            width: 4,
            ids: vec![0; 12],
            label_positions: vec![0, 1, 4, 8, 9, 10],
            labels: vec![1; 6],
            label_rows: vec![0, 0, 1, 2, 2, 2],
            label_counts: vec![2, 1, 3],
            tokens: 12,
        };
        let weights = |weighting| own_weights(&batch, &[0, 1, 0], 2, weighting);
        assert_eq!(weights(Weighting::Token), [0.2, 0.2, 1.0, 0.2, 0.2, 0.2]);
        assert_eq!(weights(Weighting::Sample), [0.25, 0.25, 1.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0]);
    }
}
