//! h_θ: all tasks × layers × modules (× A and B × ranks) as rows of one batch through one trunk.

use burn::tensor::{Device, Tensor, TensorData, activation};
use t2l_core::{GenerateError, InputDropout, LoraFactors, ModuleFactors, Parameters};

use crate::Hypernet;
use crate::config::{Arch, Conditioning, HypernetConfig, TaskEncoder};

/// Seed of one forward pass's dropout masks; each place in the network derives its own stream.
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
    /// Rows `[modules · tasks · layers, D]` at the trunk's input, after the mixer and after the first block.
    pub trace: [Tensor<2>; 3],
}

const NORM_EPS: f64 = 1e-5;

impl Hypernet {
    /// Generates factors for every task, layer and module.
    ///
    /// `parameters`: [`Hypernet::parameters`], or its tracked twin for gradients. `tasks`: `[n, e]`, embeddings or
    /// one-hot rows as the conditioning asks; ignored without conditioning, where one adapter is made. Dropout is
    /// off without a seed.
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
        let [mut n, width] = tasks.dims();
        if config.conditioning == Conditioning::None {
            n = 1;
        } else if n == 0 {
            return Err(GenerateError::NoTasks);
        } else if width != config.input_width() {
            return Err(GenerateError::Width { expected: config.input_width(), found: width });
        }
        let mut net = Net { config, parameters, buffers: &self.buffers, dropout, place: 0 };
        let device = tasks.device();
        let (encoded, aux_loss) = net.encode(tasks);
        let rows = net.rows(encoded.clone(), n, &device);
        let mixed = net.mixer(rows.clone());
        let u = net.block("mlp1", mixed.clone());
        let trace = [rows, mixed, u.clone()];
        let mut modules = match config.arch {
            Arch::L => net.together(u, n),
            Arch::M => net.shared(u, n),
            Arch::S => net.shared_by_rank(u, n),
            Arch::LA => net.together_by_rank(u, n),
        };
        if config.target == crate::Target::Sft {
            net.add_offsets(&mut modules);
        }
        Ok(HypernetOutput { factors: LoraFactors { scaling: config.scaling, modules }, encoded, aux_loss, trace })
    }
}

struct Net<'a> {
    config: &'a HypernetConfig,
    parameters: &'a Parameters,
    buffers: &'a Parameters,
    dropout: Option<DropoutSeed>,
    /// Counts dropouts, so that each has its own mask.
    place: u64,
}

impl Net<'_> {
    fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        if self.parameters.contains(name) {
            return self.parameters.get(name);
        }
        // Frozen: a constant of whatever graph the parameters live in.
        let buffer = self.buffers.get(name);
        let tracked = self.parameters.iter().next().is_some_and(|(_, p)| p.values.device() != buffer.device());
        if tracked { Tensor::from_inner(buffer) } else { buffer }
    }

    fn linear(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.get::<2>(&format!("{name}.weight")).transpose());
        let bias = format!("{name}.bias");
        if self.parameters.contains(&bias) { y + self.get::<1>(&bias).unsqueeze() } else { y }
    }

    fn norm<const D: usize>(&self, name: &str, x: Tensor<D>) -> Tensor<D> {
        let centred = x.clone() - x.mean_dim(D - 1);
        let deviation = centred.clone().square().mean_dim(D - 1).add_scalar(NORM_EPS).sqrt();
        let weight = self.get::<1>(&format!("{name}.weight")).unsqueeze();
        centred / deviation * weight + self.get::<1>(&format!("{name}.bias")).unsqueeze()
    }

    fn drop(&mut self, x: Tensor<2>) -> Tensor<2> {
        self.place += 1;
        let Some(DropoutSeed(seed)) = self.dropout.filter(|_| self.config.dropout > 0.0) else { return x };
        let dropout = InputDropout { p: self.config.dropout, seed };
        let shape = x.dims();
        let keep = (1.0 / (1.0 - dropout.p)) as f32;
        let mask = (0..(shape[0] * shape[1]) as u64).map(|i| if dropout.drops(self.place, i) { 0.0 } else { keep });
        let device = x.device();
        x * Tensor::from_data(TensorData::new(mask.collect::<Vec<f32>>(), shape), &device)
    }

    /// Encoded task embeddings, and VQ's auxiliary loss.
    fn encode(&mut self, tasks: Tensor<2>) -> (Option<Tensor<2>>, Option<Tensor<1>>) {
        let x = match self.config.conditioning {
            Conditioning::None => return (None, None),
            Conditioning::Learned => tasks.matmul(self.get("task_vectors")),
            Conditioning::Text | Conditioning::OneHot => tasks,
        };
        if self.config.task_encoder == TaskEncoder::Linear {
            let c = self.linear("task_encoder.mlp.0", x);
            return (Some(self.norm("task_encoder.mlp.1", c)), None);
        }
        let hidden = activation::silu(self.linear("task_encoder.mlp.0", x));
        let hidden = self.drop(hidden);
        let z = self.linear("task_encoder.mlp.3", hidden);
        match self.config.task_encoder {
            TaskEncoder::Linear => unreachable!("handled above"),
            TaskEncoder::Softmax => {
                let mixture = activation::softmax(z, 1).matmul(self.get("task_encoder.embed"));
                (Some(self.norm("task_encoder.ln", mixture)), None)
            }
            TaskEncoder::Vq => {
                let codes: Tensor<2> = self.get("task_encoder.embed");
                let squared: Tensor<2> = codes.clone().square().sum_dim(0);
                let distance =
                    z.clone().square().sum_dim(1) - z.clone().matmul(codes.clone()).mul_scalar(2.0) + squared;
                let nearest = distance.argmin(1).squeeze_dim(1);
                let code = codes.transpose().select(0, nearest);
                let aux = (code.clone().detach() - z.clone()).square().mean().mul_scalar(0.01);
                let passed = z.clone() + (code - z).detach();
                (Some(self.norm("task_encoder.ln", passed)), Some(aux))
            }
            TaskEncoder::Discrete => {
                let class = z.clone().argmax(1);
                let device = z.device();
                let zeros: Tensor<2> = Tensor::zeros(z.dims(), &device);
                let ones: Tensor<2> = Tensor::ones([z.dims()[0], 1], &device);
                (Some(zeros.scatter(1, class, ones, burn::tensor::IndexingUpdateOp::Add)), None)
            }
        }
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
        let x = activation::silu(self.linear("mixer.1", x));
        let x = self.drop(x);
        let x = activation::silu(self.linear("mixer.4", x));
        self.drop(x)
    }

    /// `x + MLP(x)`, the residual blocks.
    fn block(&mut self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let y = self.norm(&format!("{name}.mlp.0"), x.clone());
        let y = activation::silu(self.linear(&format!("{name}.mlp.1"), y));
        let y = self.drop(y);
        let y = activation::silu(self.linear(&format!("{name}.mlp.4"), y));
        x + self.drop(y)
    }

    fn mlp3(&mut self, x: Tensor<2>) -> Tensor<2> {
        let y = self.norm("mlp3.0", x);
        let y = activation::silu(self.linear("mlp3.1", y));
        let y = self.drop(y);
        activation::silu(self.linear("mlp3.4", y))
    }

    /// The head's output for each module's share of the rows.
    fn heads(&self, y: &Tensor<2>) -> Vec<(String, usize, usize, Tensor<2>)> {
        let modules = &self.config.layout.modules;
        let share = y.dims()[0] / modules.len();
        let head = |(i, m): (usize, &t2l_core::TargetModule)| {
            let out = self.linear(&format!("heads.{}", m.name), y.clone().narrow(0, i * share, share));
            (m.name.clone(), m.in_features, m.out_features, out)
        };
        modules.iter().enumerate().map(head).collect()
    }

    fn together(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let y = self.block("mlp2", u);
        let y = self.mlp3(y);
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let split = |(name, input, output, out): (String, usize, usize, Tensor<2>)| {
            let a = out.clone().narrow(1, 0, rank * input).reshape([n, layers, rank, input]);
            let b = out.narrow(1, rank * input, rank * output).reshape([n, layers, rank, output]).swap_dims(2, 3);
            ModuleFactors { name, a, b }
        };
        self.heads(&y).into_iter().map(split).collect()
    }

    fn together_by_rank(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let by_rank = self.ranks(u, true);
        let y = self.block("mlp2", by_rank);
        let y = self.mlp3(y);
        let split = |(name, input, output, out): (String, usize, usize, Tensor<2>)| {
            let out = out.reshape([n, layers, rank, input + output]);
            let (a, b) = (out.clone().narrow(3, 0, input), out.narrow(3, input, output).swap_dims(2, 3));
            ModuleFactors { name, a, b }
        };
        self.heads(&y).into_iter().map(split).collect()
    }

    fn shared(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let asked = self.ask_for_a_and_b(u);
        let y = self.block("mlp2", asked);
        let y = self.mlp3(y);
        let split = |(name, input, output, out): (String, usize, usize, Tensor<2>)| {
            cut(name, input, output, out.reshape([2 * n, layers, rank, input.max(output)]), n)
        };
        self.heads(&y).into_iter().map(split).collect()
    }

    fn shared_by_rank(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let asked = self.ask_for_a_and_b(u);
        let v = self.block("mlp2", asked);
        let by_rank = if self.config.learnable_positions {
            let positions = self.norm("pos_emb.1", self.get::<2>("pos_emb.0.weight"));
            let positions = self.block("mlp2", positions);
            add_positions(v, positions)
        } else {
            let turned = self.ranks(v, true);
            self.block("mlp2", turned)
        };
        let y = self.mlp3(by_rank);
        let split = |(name, input, output, out): (String, usize, usize, Tensor<2>)| {
            cut(name, input, output, out.reshape([2 * n, layers, rank, input.max(output)]), n)
        };
        self.heads(&y).into_iter().map(split).collect()
    }

    /// Rows `[modules, {A, B}, n · layers, D]`, each told which factor of its module is wanted.
    fn ask_for_a_and_b(&self, u: Tensor<2>) -> Tensor<2> {
        let modules = &self.config.layout.modules;
        let [rows, width] = u.dims();
        let share = rows / modules.len();
        let wanted = modules
            .iter()
            .flat_map(|m| ["A", "B"].map(|x| self.get::<1>(&format!("out_emb.{}.{x}", m.name)).unsqueeze()));
        let wanted: Tensor<2> = self.norm("out_emb_norm", Tensor::cat(wanted.collect(), 0));
        let u = u.reshape([modules.len(), 1, share, width]).expand([modules.len(), 2, share, width]);
        let wanted = wanted.reshape([modules.len(), 2, 1, width]);
        (u + wanted).reshape([2 * rows, width])
    }

    /// A copy of every row for each rank, rotated by it (or with its learned position added): `[rows · rank, D]`.
    fn ranks(&self, x: Tensor<2>, rotate: bool) -> Tensor<2> {
        let (rank, [rows, width]) = (self.config.scaling.rank, x.dims());
        if self.config.learnable_positions {
            return add_positions(x, self.norm("pos_emb.1", self.get::<2>("pos_emb.0.weight")));
        }
        let copies: Tensor<3> = x.reshape([rows, 1, width]).expand([rows, rank, width]);
        if !rotate {
            return copies.reshape([rows * rank, width]);
        }
        let half = width / 2;
        let angles =
            (0..rank).flat_map(|p| (0..half).map(move |i| p as f32 / 10_000f32.powf(2.0 * i as f32 / width as f32)));
        let angles: Vec<f32> = angles.collect();
        let device = copies.device();
        let table = |f: fn(f32) -> f32| -> Tensor<3> {
            Tensor::from_data(
                TensorData::new(angles.iter().map(|&a| f(a)).collect::<Vec<_>>(), [1, rank, half]),
                &device,
            )
        };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let (low, high) = (copies.clone().narrow(2, 0, half), copies.narrow(2, half, half));
        let turned = vec![low.clone() * cos.clone() - high.clone() * sin.clone(), high * cos + low * sin];
        Tensor::cat(turned, 2).reshape([rows * rank, width])
    }

    fn add_offsets(&self, modules: &mut [ModuleFactors]) {
        if self.config.offset == crate::Offset::None {
            return;
        }
        for m in modules {
            m.a = m.a.clone() + self.get::<3>(&format!("AB_offset.A.{}", m.name)).unsqueeze();
            m.b = m.b.clone() + self.get::<3>(&format!("AB_offset.B.{}", m.name)).unsqueeze();
        }
    }
}

/// `[rows, D]` and `[rank, D]` to `[rows · rank, D]`.
fn add_positions(x: Tensor<2>, positions: Tensor<2>) -> Tensor<2> {
    let ([rows, width], rank) = (x.dims(), positions.dims()[0]);
    (x.reshape([rows, 1, width]) + positions.reshape([1, rank, width])).reshape([rows * rank, width])
}

/// Shared heads emit `max(in, out)` values per rank, first for A and then for B: `[2·n, layers, rank, max]`.
fn cut(name: String, input: usize, output: usize, out: Tensor<4>, n: usize) -> ModuleFactors {
    let a = out.clone().narrow(0, 0, n).narrow(3, 0, input);
    let b = out.narrow(0, n, n).narrow(3, 0, output).swap_dims(2, 3);
    ModuleFactors { name, a, b }
}
