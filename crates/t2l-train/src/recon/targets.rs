//! The library as tensors, and its statistics.

use burn::tensor::{Int, Tensor, TensorData};
use t2l_core::{Adapter, AdapterLayout, LoraFactors, LoraScaling, ModuleFactors};
use t2l_hypernet::{Hypernet, Target};

use crate::lora::stacked;
use crate::{PlainLora, TrainError, files};

/// Mean and standard deviation of a library's factors, for one module: A `[layers, rank, in]`, B `[layers, out, rank]`.
#[derive(Debug, Clone)]
struct Statistics {
    mean: [Tensor<3>; 2],
    deviation: [Tensor<3>; 2],
}

/// The adapters of a library, of one shape: task i of the factors is the i-th adapter.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Their names: the tasks'.
    pub names: Vec<String>,
    /// Their factors as the files hold them.
    pub factors: LoraFactors,
}

impl Targets {
    /// Digest of the names and the factors.
    pub(crate) fn digest(&self) -> String {
        let values =
            |factor: &Tensor<4>| -> Vec<u8> { factor.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect() };
        let factors = self.factors.modules.iter().flat_map(|m| [&m.a, &m.b]).map(values);
        let names = self.names.iter().map(|name| format!("{name}\n").into_bytes());
        files::digest(names.chain(factors))
    }

    /// Puts adapters side by side.
    ///
    /// # Errors
    /// No adapter, or one that does not have every place of the layout at the given rank and scaling.
    pub fn new(
        adapters: &[(String, Adapter)],
        layout: &AdapterLayout,
        scaling: LoraScaling,
    ) -> Result<Self, TrainError> {
        if adapters.is_empty() {
            return Err(TrainError::NoData { reason: "the library holds no adapter".into() });
        }
        let all = adapters.iter().map(|(name, adapter)| PlainLora::from_adapter(adapter, layout, scaling, name));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let parameters: Vec<_> = all.iter().map(|p| &p.parameters).collect();
        let names = adapters.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self { names, factors: stacked(&parameters, layout, scaling) })
    }

    /// The factors of some tasks, one row each. Indices count from 0 in the order of the names.
    pub fn of_rows(&self, tasks: &[usize]) -> LoraFactors {
        let index: Vec<i64> = tasks.iter().map(|&t| t as i64).collect();
        let rows = |factor: &Tensor<4>| {
            let index: Tensor<1, Int> =
                Tensor::from_data(TensorData::new(index.clone(), [tasks.len()]), &factor.device());
            factor.clone().select(0, index)
        };
        let modules = self.factors.modules.iter();
        let modules = modules.map(|m| ModuleFactors { name: m.name.clone(), a: rows(&m.a), b: rows(&m.b) });
        LoraFactors { scaling: self.factors.scaling, modules: modules.collect() }
    }

    /// Stores the library's statistics in a hypernetwork whose target is z-scored; others need none.
    ///
    /// # Errors
    /// A single adapter, which has no deviation.
    pub fn describe_to(&self, hypernet: &mut Hypernet) -> Result<(), TrainError> {
        if hypernet.config.target != Target::ZScored {
            return Ok(());
        }
        if self.names.len() < 2 {
            let reason = "z-scores need at least two adapters in the library".into();
            return Err(TrainError::NoData { reason });
        }
        for m in &self.factors.modules {
            let Statistics { mean, deviation } = statistics(m);
            for (kind, values) in [("mean", mean), ("std", deviation)] {
                for (x, values) in ["A", "B"].into_iter().zip(values) {
                    hypernet.buffers.insert(format!("{kind}_recon_target.{x}.{}", m.name), values);
                }
            }
        }
        Ok(())
    }
}

/// Over tasks; the deviation is the unbiased one, as torch computes it.
fn statistics(m: &ModuleFactors) -> Statistics {
    let of = |factor: &Tensor<4>| -> [Tensor<3>; 2] {
        let tasks = factor.dims()[0];
        let mean = factor.clone().mean_dim(0);
        let squares = (factor.clone() - mean.clone()).square().sum_dim(0);
        let deviation = squares.div_scalar(tasks.saturating_sub(1).max(1) as f64).sqrt();
        [mean.squeeze_dim(0), deviation.squeeze_dim(0)]
    };
    let ([mean_a, deviation_a], [mean_b, deviation_b]) = (of(&m.a), of(&m.b));
    Statistics { mean: [mean_a, mean_b], deviation: [deviation_a, deviation_b] }
}
