//! What the hypernetwork is told of each row: the description that was drawn for it, or its own user turn.

use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData};
use t2l_data::Draw;

use crate::noise::{Noise, Purpose};
use crate::{StepSeed, TrainError};

/// What the adapter of each row is generated from.
#[derive(Debug, Clone)]
pub enum Conditions {
    /// Task embeddings of every training description: per task `[descriptions, e]`.
    Descriptions(Vec<Tensor<2>>),
    /// Embeddings of user turns: a hyperdecoder's.
    Turns(Box<Turns>),
}

/// Embeddings of the user turns of training examples.
#[derive(Debug, Clone)]
pub struct Turns {
    /// Embeddings: `[turns, e]`.
    pub embeddings: Tensor<2>,
    /// Row of each (task, example).
    pub rows: HashMap<(usize, usize), usize>,
}

impl Conditions {
    /// The embeddings that drawn rows are generated from: `[rows, e]`.
    ///
    /// # Errors
    /// An example whose turn was not embedded.
    pub fn of(&self, draws: &[Draw]) -> Result<Tensor<2>, TrainError> {
        match self {
            Self::Descriptions(all) => Ok(drawn_descriptions(all, draws.iter().map(|d| (d.task, d.description)))),
            Self::Turns(turns) => {
                let row = |d: &Draw| turns.rows.get(&(d.task, d.example)).map(|&row| row as i64);
                let missing = || TrainError::NoData { reason: "an example whose turn was not embedded".into() };
                let rows: Vec<i64> = draws.iter().map(row).collect::<Option<_>>().ok_or_else(missing)?;
                let data = TensorData::new(rows, [draws.len()]);
                let rows: Tensor<1, Int> = Tensor::from_data(data, &turns.embeddings.device());
                Ok(turns.embeddings.clone().select(0, rows))
            }
        }
    }
}

/// Task embeddings with noise of a standard deviation, the same in every process: `[rows, e]`. The last `exact` values of
/// each have none.
pub(super) fn with_noise(embeddings: Tensor<2>, exact: usize, deviation: f64, seed: StepSeed) -> Tensor<2> {
    if deviation == 0.0 {
        return embeddings;
    }
    // Uniform values in ±b deviate by b/√3.
    let ([rows, width], device) = (embeddings.dims(), embeddings.device());
    let noise = Noise::of(seed, Purpose::Description).uniform(deviation * 3f64.sqrt(), [rows, width - exact]);
    let noise: Tensor<2> = Tensor::from_data(noise, &device);
    if exact == 0 {
        return embeddings + noise;
    }
    embeddings + Tensor::cat(vec![noise, Tensor::zeros([rows, exact], &device)], 1)
}

/// The embeddings of (task, description) pairs, a row each. `descriptions`: per task `[descriptions, e]`.
pub(crate) fn drawn_descriptions(descriptions: &[Tensor<2>], drawn: impl Iterator<Item = (usize, usize)>) -> Tensor<2> {
    Tensor::cat(drawn.map(|(task, one)| descriptions[task].clone().narrow(0, one, 1)).collect(), 0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use t2l_data::PromptMode;

    use super::*;

    #[test]
    fn noise_deviates_as_much_as_it_is_told() {
        let zeros = Tensor::<2>::zeros([40, 50], &Device::default());
        let seed = StepSeed { seed: 1, step: 2, micro: 0 };
        let values =
            |deviation, seed| with_noise(zeros.clone(), 0, deviation, seed).to_data().iter::<f32>().collect::<Vec<_>>();
        let drawn = values(0.5, seed);
        let deviation = (drawn.iter().map(|x| x * x).sum::<f32>() / drawn.len() as f32).sqrt();
        assert!((deviation - 0.5).abs() < 0.02, "{deviation}");
        assert_eq!(drawn, values(0.5, seed));
        assert_ne!(drawn, values(0.5, StepSeed { step: 3, ..seed }));
        assert!(values(0.0, seed).iter().all(|x| *x == 0.0));
        let half = with_noise(zeros.clone(), 25, 0.5, seed).to_data().iter::<f32>().collect::<Vec<_>>();
        assert!(half.chunks(50).all(|row| row[..25].iter().all(|x| *x != 0.0) && row[25..].iter().all(|x| *x == 0.0)));
    }

    #[test]
    fn turns_follow_the_example_and_descriptions_the_description() {
        let device = Device::default();
        let matrix = |rows: [[f32; 2]; 3]| Tensor::<2>::from_data(rows, &device);
        let draw = |task, example, description| Draw { task, example, description, mode: PromptMode::Input };
        let draws = [draw(1, 7, 0), draw(0, 2, 2)];
        let values = |conditions: &Conditions| -> Vec<f32> {
            conditions.of(&draws).expect("embedded").to_data().iter().collect()
        };
        let turns = Turns {
            embeddings: matrix([[1., 2.], [3., 4.], [5., 6.]]),
            rows: [((0, 2), 0), ((1, 0), 1), ((1, 7), 2)].into(),
        };
        assert_eq!(values(&Conditions::Turns(Box::new(turns.clone()))), [5., 6., 1., 2.]);
        let descriptions = [[[1., 1.], [2., 2.], [3., 3.]], [[4., 4.], [5., 5.], [6., 6.]]].map(matrix);
        assert_eq!(values(&Conditions::Descriptions(descriptions.into())), [4., 4., 3., 3.]);
        assert!(Conditions::Turns(Box::new(turns)).of(&[draw(0, 3, 0)]).is_err());
    }
}
