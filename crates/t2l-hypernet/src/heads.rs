//! From the trunk's rows to factors: the four ways in which heads give A and B.

use burn::tensor::{Tensor, TensorData};
use t2l_core::{ModuleFactors, TargetModule};

use crate::config::{Arch, Offset};
use crate::forward::Net;

impl Net<'_> {
    /// Factors of every module from the trunk's rows `[modules · n · layers, D]`.
    pub(crate) fn factors(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        match self.config.arch {
            Arch::L => self.together(u, n),
            Arch::M => self.shared(u, n),
            Arch::S => self.shared_by_rank(u, n),
            Arch::LA => self.together_by_rank(u, n),
        }
    }

    fn together(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let y = self.block("mlp2", u);
        let y = self.mlp3(y);
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        self.heads(y, |m, out| {
            let (input, output) = (m.in_features, m.out_features);
            let a = out.clone().narrow(1, 0, rank * input).reshape([n, layers, rank, input]);
            let b = out.narrow(1, rank * input, rank * output).reshape([n, layers, rank, output]).swap_dims(2, 3);
            ModuleFactors { name: m.name.clone(), a, b }
        })
    }

    fn together_by_rank(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let by_rank = if self.config.learnable_positions {
            add_positions(u, self.norm("pos_emb.1", self.get::<2>("pos_emb.0.weight")))
        } else {
            self.rotate(u)
        };
        let y = self.block("mlp2", by_rank);
        let y = self.mlp3(y);
        self.heads(y, |m, out| {
            let (input, output) = (m.in_features, m.out_features);
            let out = out.reshape([n, layers, rank, input + output]);
            let (a, b) = (out.clone().narrow(3, 0, input), out.narrow(3, input, output).swap_dims(2, 3));
            ModuleFactors { name: m.name.clone(), a, b }
        })
    }

    fn shared(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let asked = self.ask_for_a_and_b(u);
        let y = self.block("mlp2", asked);
        self.shared_heads(y, n)
    }

    fn shared_by_rank(&mut self, u: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let asked = self.ask_for_a_and_b(u);
        let v = self.block("mlp2", asked);
        let by_rank = if self.config.learnable_positions {
            let positions = self.norm("pos_emb.1", self.get::<2>("pos_emb.0.weight"));
            let positions = self.block("mlp2", positions);
            add_positions(v, positions)
        } else {
            let turned = self.rotate(v);
            self.block("mlp2", turned)
        };
        self.shared_heads(by_rank, n)
    }

    /// Heads that emit `max(in, out)` values per rank, first for A and then for B: rows `[{A, B}, n, layers(, rank)]`.
    fn shared_heads(&mut self, y: Tensor<2>, n: usize) -> Vec<ModuleFactors> {
        let (layers, rank) = (self.config.layout.layers, self.config.scaling.rank);
        let y = self.mlp3(y);
        self.heads(y, |m, out| {
            let (input, output) = (m.in_features, m.out_features);
            let out = out.reshape([2 * n, layers, rank, input.max(output)]);
            let a = out.clone().narrow(0, 0, n).narrow(3, 0, input);
            let b = out.narrow(0, n, n).narrow(3, 0, output).swap_dims(2, 3);
            ModuleFactors { name: m.name.clone(), a, b }
        })
    }

    /// Each head once, over its module's share of the rows.
    fn heads(&self, y: Tensor<2>, split: impl Fn(&TargetModule, Tensor<2>) -> ModuleFactors) -> Vec<ModuleFactors> {
        let modules = &self.config.layout.modules;
        let share = y.dims()[0] / modules.len();
        let head = |(i, m): (usize, &TargetModule)| {
            split(m, self.linear(&format!("heads.{}", m.name), y.clone().narrow(0, i * share, share)))
        };
        modules.iter().enumerate().map(head).collect()
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

    /// A copy of every row for each rank, rotated by it: `[rows · rank, D]`.
    fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
        let (rank, [rows, width]) = (self.config.scaling.rank, x.dims());
        let half = width / 2;
        let x: Tensor<3> = x.reshape([rows, 1, width]);
        let device = x.device();
        let [cos, sin] = rotary_tables(rank, width)
            .map(|table| -> Tensor<3> { Tensor::from_data(TensorData::new(table, [1, rank, width]), &device) });
        let (low, high) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        let crossed = Tensor::cat(vec![high.neg(), low], 2);
        (x * cos + crossed * sin).reshape([rows * rank, width])
    }

    /// Adds `AB_offset` to every factor.
    pub(crate) fn add_offsets(&self, modules: &mut [ModuleFactors]) {
        if self.config.offset == Offset::None {
            return;
        }
        for m in modules {
            m.a = m.a.clone() + self.get::<3>(&format!("AB_offset.A.{}", m.name)).unsqueeze();
            m.b = m.b.clone() + self.get::<3>(&format!("AB_offset.B.{}", m.name)).unsqueeze();
        }
    }
}

/// Cosines and sines by which the rows of each rank are rotated: `[rank, width]` each, row-major.
///
/// Half-rotation RoPE with base 10,000; both halves of a row hold the same angles.
pub fn rotary_tables(rank: usize, width: usize) -> [Vec<f32>; 2] {
    let half = (width / 2).max(1);
    let angle = |i: usize| {
        let (position, pair) = (i / width.max(1), i % width.max(1) % half);
        position as f32 * 10_000f32.powf(-2.0 * pair as f32 / width as f32)
    };
    [f32::cos, f32::sin].map(|f| (0..rank * width).map(|i| f(angle(i))).collect())
}

/// `[rows, D]` and `[rank, D]` to `[rows · rank, D]`.
fn add_positions(x: Tensor<2>, positions: Tensor<2>) -> Tensor<2> {
    let ([rows, width], rank) = (x.dims(), positions.dims()[0]);
    (x.reshape([rows, 1, width]) + positions.reshape([1, rank, width])).reshape([rows * rank, width])
}
