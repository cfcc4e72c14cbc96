//! From the trunk's rows to factors: the four ways in which heads give A and B.

use std::ops::Range;

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
        self.heads(y, |m, head, y| {
            let (input, output) = (m.in_features, m.out_features);
            let a = self.head(head, y.clone(), 1, 0..rank * input).reshape([n, layers, rank, input]);
            let b = self.head(head, y, 1, rank * input..rank * (input + output));
            (a, b.reshape([n, layers, rank, output]).swap_dims(2, 3))
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
        self.heads(y, |m, head, y| {
            let (input, output) = (m.in_features, m.out_features);
            let a = self.head(head, y.clone(), 1, 0..input).reshape([n, layers, rank, input]);
            let b = self.head(head, y, 1, input..input + output);
            (a, b.reshape([n, layers, rank, output]).swap_dims(2, 3))
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
        // Ranks are groups of the head's outputs (M), or rows (S).
        let groups = if self.config.arch.by_rank() { 1 } else { rank };
        self.heads(y, |m, head, y| {
            let (input, output, half) = (m.in_features, m.out_features, y.dims()[0] / 2);
            let halves = |x: Tensor<2>| (x.clone().narrow(0, 0, half), x.narrow(0, half, half));
            let (a, b) = if input == output {
                halves(self.head(head, y, groups, 0..input))
            } else {
                let (a, b) = halves(y);
                (self.head(head, a, groups, 0..input), self.head(head, b, groups, 0..output))
            };
            let a = a.reshape([n, layers, rank, input]);
            (a, b.reshape([n, layers, rank, output]).swap_dims(2, 3))
        })
    }

    /// A and B of each module from its share of the rows.
    fn heads(
        &self,
        y: Tensor<2>,
        factors: impl Fn(&TargetModule, &str, Tensor<2>) -> (Tensor<4>, Tensor<4>),
    ) -> Vec<ModuleFactors> {
        let modules = &self.config.layout.modules;
        let share = y.dims()[0] / modules.len();
        let of_module = |(i, m): (usize, &TargetModule)| {
            let (a, b) = factors(m, &format!("heads.{}", m.name), y.clone().narrow(0, i * share, share));
            ModuleFactors { name: m.name.clone(), a, b }
        };
        modules.iter().enumerate().map(of_module).collect()
    }

    /// Some of a head's outputs, as one product: of `groups` equal groups, the places `wanted` in each.
    ///
    /// A and B are asked for apart where that makes them contiguous or spares what would be cut off.
    fn head(&self, name: &str, y: Tensor<2>, groups: usize, wanted: Range<usize>) -> Tensor<2> {
        let weight = self.get::<2>(&format!("{name}.weight"));
        let [all, input] = weight.dims();
        let (group, count) = (all / groups, wanted.len());
        let weight = weight.reshape([groups, group, input]).narrow(1, wanted.start, count);
        let out = y.matmul(weight.reshape([groups * count, input]).transpose());
        if !self.config.head_bias {
            return out;
        }
        let bias = self.get::<1>(&format!("{name}.bias")).reshape([groups, group]).narrow(1, wanted.start, count);
        out + bias.reshape([1, groups * count])
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
