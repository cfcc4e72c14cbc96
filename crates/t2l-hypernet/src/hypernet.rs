//! The hypernetwork as a value: configuration, trained tensors, frozen tensors; adapters from it in chunks.

use burn::tensor::Tensor;
use t2l_core::{AdapterGenerator, AdapterLayout, GenerateError, LoraFactors, ModuleFactors, Parameters};

use crate::config::{HypernetConfig, Offset, Target};

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

/// Memory that [`AdapterGenerator::generate`] works in at most, besides what it returns: 512 MiB.
const BUDGET: usize = 512 << 20;

impl Hypernet {
    /// Turns the heads' output into factors on the adapters' own scale (reconstruction; SFT needs nothing).
    ///
    /// z-scored targets are un-scored; ΔW targets were learned enlarged, so A and B are each divided by the root.
    /// Offsets come on top of factorised targets.
    pub fn to_raw_scale(&self, factors: LoraFactors) -> LoraFactors {
        let raw = |m: ModuleFactors| match self.config.target {
            Target::Sft => m,
            Target::Factorized => self.plus_offset(m),
            Target::ZScored => {
                let statistic = |kind: &str, x: &str| -> Tensor<4> {
                    self.buffers.get::<3>(&format!("{kind}_recon_target.{x}.{}", m.name)).unsqueeze()
                };
                let unscored =
                    |values: Tensor<4>, x: &str| values * (statistic("std", x) + 1e-10) + statistic("mean", x);
                let (a, b) = (unscored(m.a.clone(), "A"), unscored(m.b.clone(), "B"));
                self.plus_offset(ModuleFactors { a, b, name: m.name })
            }
            Target::DeltaW { scaling } => {
                let root = scaling.sqrt();
                ModuleFactors { a: m.a.div_scalar(root), b: m.b.div_scalar(root), name: m.name }
            }
        };
        LoraFactors { scaling: factors.scaling, modules: factors.modules.into_iter().map(raw).collect() }
    }

    fn plus_offset(&self, m: ModuleFactors) -> ModuleFactors {
        if self.config.offset == Offset::None {
            return m;
        }
        let offset = |x: &str| -> Tensor<4> {
            let name = format!("AB_offset.{x}.{}", m.name);
            let holder = if self.parameters.contains(&name) { &self.parameters } else { &self.buffers };
            holder.get::<3>(&name).unsqueeze()
        };
        ModuleFactors { a: m.a.clone() + offset("A"), b: m.b.clone() + offset("B"), name: m.name }
    }

    /// Generates adapters a chunk of tasks at a time, for more tasks than fit into memory at once.
    ///
    /// `task_embeddings`: `[tasks, e]`. Each item holds the raw-scale factors of the next tasks, as many as `budget`
    /// bytes of working memory allow, and at least one.
    ///
    /// # Errors
    /// No task, or embeddings of the wrong width.
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// # use burn::tensor::{Device, Tensor};
    /// # use t2l_core::{AdapterLayout, LoraScaling, TargetModule};
    /// # use t2l_hypernet::{Arch, Hypernet, HypernetConfig, Init};
    /// # let layout = AdapterLayout {
    /// #     base_model: "tiny".into(), layers: 2, modules: vec![TargetModule::new("q_proj", 8, 8)],
    /// # };
    /// # let scaling = LoraScaling { alpha: 16.0, rank: 2, use_rslora: true };
    /// # let config = HypernetConfig::new(Arch::L, layout, scaling, 4);
    /// # let hypernet = Hypernet::new(config, Init::Ours, 1, &Device::flex()).unwrap();
    /// let tasks = Tensor::ones([5, 4], &Device::flex());
    /// let mut done = 0;
    /// for chunk in hypernet.generate_in_chunks(tasks, 1 << 14) {
    ///     done += chunk.unwrap().tasks();
    /// }
    /// assert_eq!(done, 5);
    /// # }
    /// ```
    pub fn generate_in_chunks(
        &self,
        task_embeddings: Tensor<2>,
        budget: usize,
    ) -> impl Iterator<Item = Result<LoraFactors, GenerateError>> + '_ {
        let tasks = task_embeddings.dims()[0];
        let at_once = (budget / self.bytes_per_task().max(1)).max(1);
        // No task at all is one empty chunk, so that its error comes out.
        (0..tasks.max(1)).step_by(at_once).map(move |start| {
            if tasks == 0 {
                return Err(GenerateError::NoTasks);
            }
            let chunk = task_embeddings.clone().narrow(0, start, at_once.min(tasks - start));
            Ok(self.to_raw_scale(self.forward(&self.parameters, chunk, None)?.factors))
        })
    }

    /// About what one task takes while it is generated.
    fn bytes_per_task(&self) -> usize {
        usize::try_from(self.config.values_per_task().saturating_mul(4)).unwrap_or(usize::MAX)
    }
}

impl AdapterGenerator for Hypernet {
    fn layout(&self) -> &AdapterLayout {
        &self.config.layout
    }

    fn generate(&self, task_embeddings: Tensor<2>) -> Result<LoraFactors, GenerateError> {
        let chunks = self.generate_in_chunks(task_embeddings, BUDGET).collect::<Result<Vec<_>, _>>()?;
        LoraFactors::joined(chunks).ok_or(GenerateError::NoTasks)
    }
}
