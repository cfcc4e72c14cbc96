//! A generator's dense output for many tasks at once.

use burn::tensor::Tensor;

use crate::{Adapter, LoraScaling, LoraWeights};

/// The factors of one module type, for every task and layer.
#[derive(Debug, Clone)]
pub struct ModuleFactors {
    /// Module type, e.g. `q_proj`.
    pub name: String,
    /// `A`: `[tasks, layers, rank, in]`.
    pub a: Tensor<4>,
    /// `B`: `[tasks, layers, out, rank]`.
    pub b: Tensor<4>,
}

/// LoRA factors of many tasks: one rank and one scaling, every layer, dense.
///
/// `ΔW = scaling · B · A` (Text-to-LoRA, section 2).
#[derive(Debug, Clone)]
pub struct LoraFactors {
    /// Rank, alpha and the kind of scaling shared by all modules.
    pub scaling: LoraScaling,
    /// One entry per module type, in layout order.
    pub modules: Vec<ModuleFactors>,
}

impl LoraFactors {
    /// Batches of tasks, of one layout and scaling, as one batch. `None` without any.
    pub fn joined(mut batches: Vec<Self>) -> Option<Self> {
        if batches.len() < 2 {
            return batches.pop();
        }
        let scaling = batches.first()?.scaling;
        let mut parts: Vec<(String, Vec<Tensor<4>>, Vec<Tensor<4>>)> = Vec::new();
        for batch in batches {
            for (i, m) in batch.modules.into_iter().enumerate() {
                if let Some((_, a, b)) = parts.get_mut(i) {
                    a.push(m.a);
                    b.push(m.b);
                } else {
                    parts.push((m.name, vec![m.a], vec![m.b]));
                }
            }
        }
        let modules =
            parts.into_iter().map(|(name, a, b)| ModuleFactors { name, a: Tensor::cat(a, 0), b: Tensor::cat(b, 0) });
        Some(Self { scaling, modules: modules.collect() })
    }

    /// Number of tasks in the batch.
    pub fn tasks(&self) -> usize {
        self.modules.first().map_or(0, |m| m.a.dims()[0])
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.modules.first().map_or(0, |m| m.a.dims()[1])
    }

    /// The factors of one module type.
    pub fn module(&self, name: &str) -> Option<&ModuleFactors> {
        self.modules.iter().find(|m| m.name == name)
    }

    /// `ΔW = s·B·A` of one module type: `[tasks, layers, out, in]`.
    ///
    /// Materialises the full matrices; meant for looking at them, not for the forward pass.
    pub fn delta_w(&self, name: &str) -> Option<Tensor<4>> {
        let m = self.module(name)?;
        Some(m.b.clone().matmul(m.a.clone()).mul_scalar(self.scaling.value()))
    }

    /// One task's adapter, as a file would hold it. `None` when `task` is out of range.
    pub fn adapter(&self, task: usize, base_model: &str) -> Option<Adapter> {
        if task >= self.tasks() {
            return None;
        }
        let mut adapter = Adapter::new(base_model, self.scaling.use_rslora);
        for m in &self.modules {
            let a: Tensor<3> = m.a.clone().narrow(0, task, 1).squeeze_dim(0);
            let b: Tensor<3> = m.b.clone().narrow(0, task, 1).squeeze_dim(0);
            for layer in 0..self.layers() {
                adapter.insert(
                    layer,
                    &m.name,
                    LoraWeights {
                        a: a.clone().narrow(0, layer, 1).squeeze_dim(0),
                        b: b.clone().narrow(0, layer, 1).squeeze_dim(0),
                        alpha: self.scaling.alpha,
                    },
                );
            }
        }
        Some(adapter)
    }
}
