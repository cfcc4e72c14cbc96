//! h_θ: all tasks × layers × modules (× A and B × ranks) as rows of one batch through one trunk.

use burn::tensor::{Device, Tensor, TensorData};
use t2l_core::{GenerateError, InputDropout, LoraFactors, ModuleFactors, Parameters, ops};

use crate::Hypernet;
use crate::config::{Conditioning, HypernetConfig, Target};
use crate::encode::CodeUse;

/// Seed of one forward pass in training; each dropout in the network derives its own mask from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed(pub u64);

/// What a forward pass gives.
#[derive(Debug, Clone)]
pub struct HypernetOutput {
    /// The factors as the heads emit them, offsets added (SFT).
    pub factors: LoraFactors,
    /// Encoded task embeddings: `[tasks, c]`; `None` without conditioning.
    pub encoded: Option<Tensor<2>>,
    /// Auxiliary loss of the VQ task encoder: `[1]`.
    pub aux_loss: Option<Tensor<1>>,
    /// The codes that a training pass took, for [`Hypernet::learn_codes`]; `None` without a VQ task encoder.
    pub code_use: Option<CodeUse>,
    /// Rows `[modules · tasks · layers, D]` at the trunk's input, after the mixer and after the first block.
    pub trace: [Tensor<2>; 3],
}

const NORM_EPS: f64 = 1e-5;

impl Hypernet {
    /// Generates factors for every task, layer and module.
    ///
    /// `parameters`: [`Hypernet::parameters`], or its tracked twin for gradients. `tasks`: `[n, e]`, embeddings or
    /// one-hot rows as the conditioning asks; without conditioning only their number counts, all adapters are equal.
    /// `dropout` is what makes it a training pass.
    ///
    /// # Errors
    /// No task, or rows of the wrong width.
    pub fn forward(
        &self,
        parameters: &Parameters,
        tasks: Tensor<2>,
        dropout: Option<DropoutSeed>,
    ) -> Result<HypernetOutput, GenerateError> {
        let config = &self.config;
        let [n, width] = tasks.dims();
        let unconditional = config.conditioning == Conditioning::None;
        if n == 0 {
            return Err(GenerateError::NoTasks);
        }
        if !unconditional && width != config.input_width() {
            return Err(GenerateError::Width { expected: config.input_width(), found: width });
        }
        let mut net = Net { config, parameters, buffers: &self.buffers, dropout, place: 0, code_use: None };
        let device = parameters.iter().next().map_or_else(|| tasks.device(), |(_, p)| p.values.device());
        let (read, effects) = (config.read_width(), config.effects_width());
        let effects = config.instructed.map(|instructed| (instructed, tasks.clone().narrow(1, read, effects)));
        let tasks = if effects.is_some() { tasks.narrow(1, 0, read) } else { tasks };
        let (encoded, aux_loss) = net.encode(tasks.clone());
        let made = if unconditional { 1 } else { n };
        let rows = net.rows(encoded.clone(), made, &device);
        let mixed = net.mixer(rows.clone());
        let u = net.block("mlp1", mixed.clone());
        let trace = [rows, mixed, u.clone()];
        let mut modules = net.factors(u, made);
        if config.target == Target::Sft {
            net.add_offsets(&mut modules);
        }
        if let (Some(copying), Some(encoded)) = (config.copying, &encoded) {
            net.copy_words(copying, &mut modules, tasks, encoded.clone());
        }
        if let (Some((instructed, effects)), Some(encoded)) = (effects, &encoded) {
            net.instruct(instructed, &mut modules, effects, encoded.clone());
        }
        if made < n {
            modules = modules.into_iter().map(|m| repeat(m, n)).collect();
        }
        Ok(HypernetOutput {
            factors: LoraFactors { scaling: config.scaling, modules },
            encoded,
            aux_loss,
            code_use: net.code_use,
            trace,
        })
    }
}

/// The factors of one task, for `n` tasks.
fn repeat(m: ModuleFactors, n: usize) -> ModuleFactors {
    let ([_, layers, rank, input], [_, _, output, _]) = (m.a.dims(), m.b.dims());
    ModuleFactors { name: m.name, a: m.a.expand([n, layers, rank, input]), b: m.b.expand([n, layers, output, rank]) }
}

/// One pass through the network.
pub(crate) struct Net<'a> {
    pub config: &'a HypernetConfig,
    pub parameters: &'a Parameters,
    pub buffers: &'a Parameters,
    pub dropout: Option<DropoutSeed>,
    /// Counts the places where something is drawn, so that each has its own stream.
    pub place: u64,
    /// The codes that a training pass took.
    pub code_use: Option<CodeUse>,
}

impl Net<'_> {
    /// A tensor by name. Frozen ones are constants of whatever graph the parameters live in.
    pub(crate) fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        if self.parameters.contains(name) {
            return self.parameters.get(name);
        }
        let buffer = self.buffers.get(name);
        let tracked = self.parameters.iter().next().is_some_and(|(_, p)| p.values.device() != buffer.device());
        if tracked { Tensor::from_inner(buffer) } else { buffer }
    }

    /// `x·Wᵀ + b`; weights are `[out, in]`, as in checkpoints.
    pub(crate) fn linear(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.get::<2>(&format!("{name}.weight")).transpose());
        let bias = format!("{name}.bias");
        if self.parameters.contains(&bias) { y + self.get::<1>(&bias).unsqueeze() } else { y }
    }

    /// LayerNorm over the last dimension.
    pub(crate) fn norm<const D: usize>(&self, name: &str, x: Tensor<D>) -> Tensor<D> {
        let [weight, bias] = ["weight", "bias"].map(|part| self.get::<1>(&format!("{name}.{part}")));
        ops::layer_norm(x, &weight, &bias, NORM_EPS)
    }

    /// Dropout, with the mask of this place.
    pub(crate) fn drop(&mut self, x: Tensor<2>) -> Tensor<2> {
        self.place += 1;
        let Some(DropoutSeed(seed)) = self.dropout.filter(|_| self.config.dropout > 0.0) else { return x };
        let dropout = InputDropout { p: self.config.dropout, seed, first_row: 0 };
        let shape = x.dims();
        let keep = (1.0 / (1.0 - dropout.p)) as f32;
        let mask = (0..(shape[0] * shape[1]) as u64).map(|i| if dropout.drops(self.place, i) { 0.0 } else { keep });
        let device = x.device();
        x * Tensor::from_data(TensorData::new(mask.collect::<Vec<f32>>(), shape), &device)
    }

    /// φ of every (module, task, layer), stacked in that order: `[modules · n · layers, D]`.
    fn rows(&self, task: Option<Tensor<2>>, n: usize, device: &Device) -> Tensor<2> {
        let (layers, modules) = (self.config.layout.layers, self.config.layout.modules.len());
        let place = |part: &str, count: usize| -> Tensor<2> {
            if self.config.one_hot_places() {
                return Tensor::eye(count, device);
            }
            self.norm(&format!("{part}.1"), self.get::<2>(&format!("{part}.0.weight")))
        };
        let depth = place("layer_depth_encoder", layers);
        let kind = place("layer_type_encoder", modules);
        let (d_width, t_width) = (self.config.depth_width(), self.config.type_width());
        let mut parts: Vec<Tensor<4>> = Vec::new();
        if let Some(task) = task {
            let width = task.dims()[1];
            parts.push(task.reshape([1, n, 1, width]).expand([modules, n, layers, width]));
        }
        parts.push(depth.reshape([1, 1, layers, d_width]).expand([modules, n, layers, d_width]));
        parts.push(kind.reshape([modules, 1, 1, t_width]).expand([modules, n, layers, t_width]));
        Tensor::cat(parts, 3).reshape([modules * n * layers, self.config.width()])
    }

    fn mixer(&mut self, x: Tensor<2>) -> Tensor<2> {
        let x = self.drop(x);
        let x = ops::silu(self.linear("mixer.1", x));
        let x = self.drop(x);
        let x = ops::silu(self.linear("mixer.4", x));
        self.drop(x)
    }

    /// `x + MLP(x)`, the residual blocks.
    pub(crate) fn block(&mut self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let y = self.norm(&format!("{name}.mlp.0"), x.clone());
        let y = ops::silu(self.linear(&format!("{name}.mlp.1"), y));
        let y = self.drop(y);
        let y = ops::silu(self.linear(&format!("{name}.mlp.4"), y));
        x + self.drop(y)
    }

    /// The last part of the trunk: `[rows, D]` to `[rows, h]`.
    pub(crate) fn mlp3(&mut self, x: Tensor<2>) -> Tensor<2> {
        let y = self.norm("mlp3.0", x);
        let y = ops::silu(self.linear("mlp3.1", y));
        let y = self.drop(y);
        ops::silu(self.linear("mlp3.4", y))
    }
}
