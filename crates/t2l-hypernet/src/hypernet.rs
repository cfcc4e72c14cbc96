//! The hypernetwork as a value: configuration, trained tensors, frozen tensors.

use burn::tensor::Tensor;
use t2l_core::{AdapterGenerator, AdapterLayout, GenerateError, LoraFactors, ModuleFactors, Parameters};

use crate::config::{HypernetConfig, Target};

/// h_θ.
#[derive(Debug, Clone)]
pub struct Hypernet {
    /// Its shape.
    pub config: HypernetConfig,
    /// Trained tensors, under the published checkpoints' names.
    pub parameters: Parameters,
    /// Tensors that gradients do not train: frozen offsets, statistics of reconstruction targets, VQ codes.
    pub buffers: Parameters,
}

/// Values of generated factors that are worked on at once, at most (512 MB with everything around them).
const BUDGET: usize = 1 << 25;

impl Hypernet {
    /// Turns the heads' output into factors on the adapters' own scale (reconstruction; SFT needs nothing).
    ///
    /// z-scored targets are un-scored; ΔW targets were learned enlarged, so A and B are each divided by the root.
    pub fn to_raw_scale(&self, factors: LoraFactors) -> LoraFactors {
        let raw = |m: ModuleFactors| match self.config.target {
            Target::Sft | Target::Factorized => m,
            Target::DeltaW { scaling } => {
                let root = scaling.sqrt();
                ModuleFactors { a: m.a.div_scalar(root), b: m.b.div_scalar(root), name: m.name }
            }
            Target::ZScored => {
                let statistic = |kind: &str, x: &str| -> Tensor<4> {
                    self.buffers.get::<3>(&format!("{kind}_recon_target.{x}.{}", m.name)).unsqueeze()
                };
                let unscored =
                    |values: Tensor<4>, x: &str| values * (statistic("std", x) + 1e-10) + statistic("mean", x);
                ModuleFactors { a: unscored(m.a.clone(), "A"), b: unscored(m.b.clone(), "B"), name: m.name.clone() }
            }
        };
        LoraFactors { scaling: factors.scaling, modules: factors.modules.into_iter().map(raw).collect() }
    }
}

impl AdapterGenerator for Hypernet {
    fn layout(&self) -> &AdapterLayout {
        &self.config.layout
    }

    fn generate(&self, task_embeddings: Tensor<2>) -> Result<LoraFactors, GenerateError> {
        let tasks = task_embeddings.dims()[0];
        let at_once = (BUDGET / self.config.layout.parameters(self.config.scaling.rank).max(1)).max(1);
        let mut chunks = Vec::new();
        let mut start = 0;
        loop {
            let count = at_once.min(tasks - start);
            let chunk = task_embeddings.clone().narrow(0, start, count);
            chunks.push(self.to_raw_scale(self.forward(&self.parameters, chunk, None)?.factors));
            start += count;
            if start >= tasks {
                break;
            }
        }
        if chunks.len() == 1 {
            return chunks.pop().ok_or(GenerateError::NoTasks);
        }
        let joined = |i: usize| ModuleFactors {
            name: chunks[0].modules[i].name.clone(),
            a: Tensor::cat(chunks.iter().map(|c| c.modules[i].a.clone()).collect(), 0),
            b: Tensor::cat(chunks.iter().map(|c| c.modules[i].b.clone()).collect(), 0),
        };
        Ok(LoraFactors { scaling: self.config.scaling, modules: (0..chunks[0].modules.len()).map(joined).collect() })
    }
}
