//! What micro-batches, and the processes that share them, computed: added up.

use burn::tensor::{Tensor, TensorData};

use super::ranks::Ranks;
use super::trainee::Outcome;
use crate::TrainError;

impl Outcome {
    pub(super) fn plus(mut self, other: Self) -> Self {
        self.loss += other.loss;
        for ((_, number), (_, more)) in self.numbers.iter_mut().zip(other.numbers) {
            *number += more;
        }
        self.tokens += other.tokens;
        self.examples = format!("{}, {}", self.examples, other.examples);
        let both = self.gradients.into_iter().zip(other.gradients);
        self.gradients = both
            .map(|pair| match pair {
                (Some(a), Some(b)) => Some(a.into_iter().zip(b).map(|(a, b)| a + b).collect()),
                (a, b) => a.or(b),
            })
            .collect();
        self
    }

    /// Means instead of sums; tokens stay a count.
    pub(super) fn scaled(mut self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        self.loss *= factor;
        self.numbers.iter_mut().for_each(|(_, number)| *number *= factor);
        let scaled = |part: Vec<_>| part.into_iter().map(|g| g * factor).collect();
        self.gradients = self.gradients.into_iter().map(|part| part.map(scaled)).collect();
        self
    }

    /// What all processes computed together.
    pub(super) fn summed(mut self, ranks: &dyn Ranks) -> Result<Self, TrainError> {
        if ranks.size() == 1 {
            return Ok(self);
        }
        let mut numbers = vec![self.loss, self.tokens as f64];
        numbers.extend(self.numbers.iter().map(|(_, number)| number));
        ranks.sum_numbers(&mut numbers)?;
        self.loss = numbers[0];
        self.tokens = numbers[1] as usize;
        self.numbers.iter_mut().zip(&numbers[2..]).for_each(|((_, number), sum)| *number = *sum);

        let tensors = || self.gradients.iter().flatten().flatten();
        let mut values: Vec<f32> = Vec::with_capacity(tensors().map(|g| g.dims()[0]).sum());
        tensors().for_each(|gradient| values.extend(gradient.to_data().iter::<f32>()));
        ranks.sum_gradients(&mut values)?;
        let mut rest = &values[..];
        for gradient in self.gradients.iter_mut().flatten().flatten() {
            let (sum, after) = rest.split_at(gradient.dims()[0]);
            *gradient = Tensor::from_data(TensorData::new(sum.to_vec(), [sum.len()]), &gradient.device());
            rest = after;
        }
        Ok(self)
    }
}
