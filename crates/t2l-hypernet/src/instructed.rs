//! Effects of instructions: what a description does to the base model's attention when it stands in the prompt, done by
//! the adapter.
//!
//! A prompt's instruction changes what attention brings to later positions. How much of that is about the same at all of
//! them is known from the base model itself (`InstructionEffects` of t2l-encoder) and ends a task embedding. In the last
//! layers one rank of `v_proj` puts it back: its A is a row whose product with any input is about constant at the
//! start, its B the effect times a trained gate that the task turns, plus a trained column of every layer that is the
//! same for all tasks. A and the gates are trained; the task encoder does not read the effects.

use burn::tensor::{Tensor, TensorData};
use t2l_core::{LoraFactors, ModuleFactors, TargetModule};

use crate::config::{Instructed, V_PROJ};
use crate::copying::with_rank;
use crate::forward::Net;
use crate::{Hypernet, HypernetError};

const ROWS: &str = "instructed.A";
const GATE: &str = "instructed.gate";
const ALWAYS: &str = "instructed.always";
const SCALE: &str = "instructed.scale";
/// Followed by A or B, and a module.
pub(crate) const WORN: &str = "instructed.worn";

/// What the effects of instructions start from, of the base model.
#[derive(Debug, Clone)]
pub struct InstructedStart {
    /// A's row of each layer: `[layers, in]`.
    pub rows: Tensor<2>,
    /// What an effect is multiplied by in each layer for an update of its size: one over what the row's product and the
    /// adapter's scaling do.
    pub scales: Vec<f32>,
    /// What every gate is at first: the share of an effect that is put back.
    pub gate: f64,
    /// The one adapter that the base model wears while the effects are looked at.
    pub worn: LoraFactors,
}

impl Hypernet {
    /// Gives the first rank of `v_proj` in the last layers, as many as `start` is for, to the effects of descriptions as
    /// instructions, with which task embeddings end from now on; what that rank did there is lost.
    ///
    /// # Errors
    /// A hypernetwork that reads no descriptions or has such effects already, or a start of other sizes.
    pub fn instruct(&mut self, start: InstructedStart) -> Result<(), HypernetError> {
        let [layers, input] = start.rows.dims();
        let mut config = self.config.clone();
        config.instructed = Some(Instructed { layers });
        config.embedding += config.effects_width();
        config.check()?;
        let module = config.values_module().map(|m| &config.layout.modules[m]);
        let worn_fits = |m: &TargetModule| {
            let (rank, depth) = (config.scaling.rank, config.layout.layers);
            let (a, b) = ([1, depth, rank, m.in_features], [1, depth, m.out_features, rank]);
            start.worn.module(&m.name).is_some_and(|worn| worn.a.dims() == a && worn.b.dims() == b)
        };
        let fits = self.config.instructed.is_none()
            && start.scales.len() == layers
            && start.worn.scaling == config.scaling
            && config.layout.modules.iter().all(worn_fits);
        let Some(module) = module.filter(|m| m.in_features == input && fits) else {
            let value = format!("{:?} and {}", start.rows.dims(), start.scales.len());
            return Err(HypernetError::Config { key: "instructed", value, reason: "does not fit the hypernetwork" });
        };
        let device = start.rows.device();
        self.parameters.insert(ROWS, start.rows);
        self.parameters.insert(format!("{GATE}.weight"), Tensor::<2>::zeros([layers, config.task_width()], &device));
        self.parameters.insert(format!("{GATE}.bias"), Tensor::<1>::full([layers], start.gate, &device));
        self.parameters.insert(ALWAYS, Tensor::<2>::zeros([layers, module.out_features], &device));
        for m in start.worn.modules {
            self.buffers.insert(format!("{WORN}.A.{}", m.name), m.a.squeeze_dim::<3>(0));
            self.buffers.insert(format!("{WORN}.B.{}", m.name), m.b.squeeze_dim::<3>(0));
        }
        self.buffers.insert(SCALE, Tensor::<1>::from_data(TensorData::new(start.scales, [layers]), &device));
        self.config = config;
        Ok(())
    }

    /// The one adapter that the base model wears while the effects of descriptions are looked at; `None` where nothing is
    /// made of them.
    pub fn worn_while_instructed(&self) -> Option<LoraFactors> {
        self.config.instructed?;
        let worn = |x: &str, m: &TargetModule| self.buffers.get::<3>(&format!("{WORN}.{x}.{}", m.name)).unsqueeze();
        let of = |m: &TargetModule| ModuleFactors { name: m.name.clone(), a: worn("A", m), b: worn("B", m) };
        Some(LoraFactors { scaling: self.config.scaling, modules: self.config.layout.modules.iter().map(of).collect() })
    }

    /// Puts effects in as another hypernetwork of the same sizes does.
    pub(crate) fn instruct_as(&mut self, other: &Self) {
        self.take(other, "instructed.");
        self.config.instructed = other.config.instructed;
        self.config.embedding += other.config.effects_width();
    }
}

impl Net<'_> {
    /// Puts the effects into the first rank of the last layers. `effects`: `[n, layers · out]`, `encoded`: `[n, c]`.
    pub(crate) fn instruct(
        &self,
        instructed: Instructed,
        modules: &mut [ModuleFactors],
        effects: Tensor<2>,
        encoded: Tensor<2>,
    ) {
        let layers = instructed.layers;
        let Some(m) = modules.iter_mut().find(|m| m.name == V_PROJ) else { return };
        let ([n, all, _, input], output) = (m.a.dims(), m.b.dims()[2]);
        let gates = self.linear(GATE, encoded).reshape([n, layers, 1, 1]);
        let always = self.get::<2>(ALWAYS).reshape([1, layers, output, 1]);
        let scale = self.get::<1>(SCALE).reshape([1, layers, 1, 1]);
        let b = (effects.reshape([n, layers, output, 1]) * gates + always) * scale;
        let a = self.get::<2>(ROWS).reshape([1, layers, 1, input]).expand([n, layers, 1, input]);
        m.a = with_rank(m.a.clone(), a, all - layers, 0, 2);
        m.b = with_rank(m.b.clone(), b, all - layers, 0, 3);
    }
}
