//! AdamW over named parameters, with torch's meaning of every setting and clipping by the global norm.

use burn::tensor::{Gradients, Tensor};
use serde::{Deserialize, Serialize};
use t2l_core::Parameters;
use t2l_core::ops::{self, AdamW};

/// Settings of the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Highest learning rate. Published: 2.5e-5 over 1.2 million steps; small models train in fewer, hotter steps. Default 1e-3.
    pub learning_rate: f64,
    /// Share of the run spent warming up. Published: 0.2. Default 0.1.
    pub warmup_share: f64,
    /// Decoupled weight decay on every tensor, biases and norms included. Default 1e-2 (published).
    pub weight_decay: f64,
    /// Decay of the first moment. Default 0.9 (torch).
    pub beta1: f64,
    /// Decay of the second moment. Default 0.999 (torch).
    pub beta2: f64,
    /// Added to the root of the second moment. Default 1e-8 (torch).
    pub epsilon: f64,
    /// Largest global norm of the gradient. Default 1.0 (published).
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            warmup_share: 0.1,
            weight_decay: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
        }
    }
}

/// Gradients of named parameters: `(name, [n])`, in name order, as many as there are parameters.
pub type NamedGradients = Vec<Tensor<1>>;

/// Takes the gradient of every tracked parameter out of a backward pass; zeros where none arrived.
pub fn named_gradients(tracked: &Parameters, gradients: &mut Gradients) -> NamedGradients {
    tracked
        .iter()
        .map(|(_, p)| p.values.grad_remove(gradients).unwrap_or_else(|| p.values.clone().inner().zeros_like()))
        .collect()
}

/// Norm of all gradients together.
pub fn global_norm(gradients: &NamedGradients) -> f64 {
    let squares = gradients.iter().map(|g| f64::from(g.clone().square().sum().into_scalar::<f32>()));
    squares.sum::<f64>().sqrt()
}

/// The optimizer's moments.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Steps taken.
    pub steps: u64,
    /// First moments, under the parameters' names.
    pub first: Parameters,
    /// Second moments, under the parameters' names.
    pub second: Parameters,
}

impl Optimizer {
    /// A fresh optimizer for these parameters.
    pub fn new(config: OptimizerConfig, parameters: &Parameters) -> Self {
        let zeros = || {
            let mut zeros = parameters.clone();
            for (_, p) in zeros.iter_mut() {
                p.values = p.values.zeros_like();
            }
            zeros
        };
        Self { config, steps: 0, first: zeros(), second: zeros() }
    }

    /// Clips by the global norm and steps every parameter. Returns the norm before clipping.
    ///
    /// Nothing is touched when the norm is not finite: the caller sees it in the return value.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &NamedGradients, learning_rate: f64) -> f64 {
        let norm = global_norm(gradients);
        if !norm.is_finite() {
            return norm;
        }
        self.steps += 1;
        let step = AdamW {
            learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            step: self.steps,
            // torch's clip_grad_norm_ adds 1e-6 to the norm.
            clip: (self.config.max_grad_norm / (norm + 1e-6)).min(1.0),
        };
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for (((_, p), ((_, m), (_, v))), g) in parameters.iter_mut().zip(moments).zip(gradients) {
            [p.values, m.values, v.values] = ops::adamw([&p.values, &m.values, &v.values], g, &step);
        }
        norm
    }
}
