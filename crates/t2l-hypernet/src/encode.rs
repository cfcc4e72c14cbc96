//! Task encoders: from a task embedding to the task's part of the trunk's input.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};
use t2l_core::{InputDropout, ops};

use crate::Hypernet;
use crate::config::{CODES, Conditioning, TaskEncoder};
use crate::forward::Net;

/// Which codes a training pass took from a VQ task encoder.
#[derive(Debug, Clone)]
pub struct CodeUse {
    /// What was compared with the codes: `[n, c]`, without a gradient graph.
    pub z: Tensor<2>,
    /// Index of each row's code: `[n]`.
    pub codes: Vec<usize>,
}

impl Hypernet {
    /// Lets it read `by` values more behind those that it reads of a task embedding. They mean nothing to it until it is trained further.
    ///
    /// # Panics
    /// For a hypernetwork that is told nothing of tasks.
    pub fn widen(&mut self, by: usize) {
        const FIRST: &str = "task_encoder.mlp.0.weight";
        let weight: Tensor<2> = self.parameters.get(FIRST);
        let none = Tensor::zeros([weight.dims()[0], by], &weight.device());
        self.parameters.insert(FIRST, Tensor::cat(vec![weight, none], 1));
        self.config.embedding += by;
    }

    /// Moves VQ's codes towards what took them: running averages with decay 0.99, counts smoothed by 1e-5.
    ///
    /// A training pass calls it once, after the codes were taken; hypernetworks without codes are left alone.
    pub fn learn_codes(&mut self, used: &CodeUse) {
        const NAMES: [&str; 3] = ["task_encoder.cluster_size", "task_encoder.embed_avg", "task_encoder.embed"];
        const EPSILON: f64 = 1e-5;
        if !NAMES.iter().all(|name| self.buffers.contains(name)) {
            return;
        }
        let device = self.buffers.get::<1>(NAMES[0]).device();
        let rows = used.codes.len();
        let mut taken = vec![0.0f32; rows * CODES];
        for (row, &code) in used.codes.iter().enumerate() {
            taken[row * CODES + code] = 1.0;
        }
        let taken: Tensor<2> = Tensor::from_data(TensorData::new(taken, [rows, CODES]), &device);
        let average = |old: Tensor<2>, new: Tensor<2>| old.mul_scalar(0.99) + new.mul_scalar(0.01);
        let old: Tensor<2> = self.buffers.get::<1>(NAMES[0]).unsqueeze();
        let size = average(old, taken.clone().sum_dim(0));
        let sums = average(self.buffers.get(NAMES[1]), used.z.clone().transpose().matmul(taken));
        let total = f64::from(size.clone().sum().into_scalar::<f32>());
        let smoothed = size.clone().add_scalar(EPSILON).mul_scalar(total / (total + CODES as f64 * EPSILON));
        self.buffers.insert(NAMES[2], sums.clone() / smoothed);
        self.buffers.insert(NAMES[1], sums);
        self.buffers.insert(NAMES[0], size.squeeze_dim::<1>(0));
    }
}

impl Net<'_> {
    /// Encoded task embeddings `[n, c]` of `tasks` `[n, e]`, and VQ's auxiliary loss.
    pub(crate) fn encode(&mut self, tasks: Tensor<2>) -> (Option<Tensor<2>>, Option<Tensor<1>>) {
        let x = match self.config.conditioning {
            Conditioning::None => return (None, None),
            Conditioning::Learned => tasks.matmul(self.get("task_vectors")),
            Conditioning::Text | Conditioning::Input | Conditioning::OneHot => tasks,
        };
        match self.config.task_encoder {
            TaskEncoder::Linear => {
                let c = self.linear("task_encoder.mlp.0", x);
                (Some(self.norm("task_encoder.mlp.1", c)), None)
            }
            TaskEncoder::Softmax => {
                let weights = activation::softmax(self.two_layers(x), 1);
                let mixture = weights.matmul(self.get("task_encoder.embed"));
                (Some(self.norm("task_encoder.ln", mixture)), None)
            }
            TaskEncoder::Vq => {
                let z = self.two_layers(x);
                let codes: Tensor<2> = self.get("task_encoder.embed");
                let nearest = nearest_code(z.clone(), codes.clone());
                if self.dropout.is_some() {
                    let codes = nearest.to_data().iter::<i64>().map(|i| i as usize).collect();
                    self.code_use = Some(CodeUse { z: plain(z.clone()), codes });
                }
                let code = codes.transpose().select(0, nearest);
                let aux = (code.clone().detach() - z.clone()).square().mean().mul_scalar(0.01);
                // The code's value with z's gradient.
                let passed = z.clone() + (code - z).detach();
                (Some(self.norm("task_encoder.ln", passed)), Some(aux))
            }
            TaskEncoder::Discrete => {
                let logits = self.two_layers(x);
                if self.dropout.is_none() {
                    let class = logits.clone().argmax(1);
                    return (Some(one_hot(class, logits)), None);
                }
                let probabilities = activation::softmax(logits, 1);
                let class = self.sample(&probabilities);
                let sampled = one_hot(class, probabilities.clone()).detach();
                (Some(sampled + probabilities.clone() - probabilities.detach()), None)
            }
        }
    }

    fn two_layers(&mut self, x: Tensor<2>) -> Tensor<2> {
        let hidden = ops::silu(self.linear("task_encoder.mlp.0", x));
        let hidden = self.drop(hidden);
        self.linear("task_encoder.mlp.3", hidden)
    }

    /// One class per row, drawn from `probabilities` `[n, classes]` by this pass's seed: `[n, 1]`.
    fn sample(&mut self, probabilities: &Tensor<2>) -> Tensor<2, Int> {
        self.place += 1;
        let seed = self.dropout.map_or(0, |d| d.0);
        let [n, classes] = probabilities.dims();
        let device = probabilities.device();
        let values: Vec<f32> = probabilities.clone().detach().into_data().iter().collect();
        let drawn = values.chunks(classes).zip(0..).map(|(row, i)| {
            let mut left = uniform(seed, self.place, i);
            let class = row.iter().position(|&p| {
                left -= f64::from(p);
                left < 0.0
            });
            class.unwrap_or(classes - 1) as i32
        });
        Tensor::from_data(TensorData::new(drawn.collect(), [n, 1]), &device)
    }
}

/// A number in [0, 1) from the generator that draws the dropout masks: 24 of its bits.
fn uniform(seed: u64, place: u64, index: u64) -> f64 {
    let coin = InputDropout { p: 0.5, seed, first_row: 0 };
    (0..24).map(|bit| f64::from(coin.drops(place, index * 24 + bit)) / f64::from(2u32 << bit)).sum()
}

/// The same values outside any gradient graph.
fn plain(x: Tensor<2>) -> Tensor<2> {
    if x.device().is_autodiff() { x.inner() } else { x }
}

/// Index of the nearest column of `codes` `[c, codes]` to each row of `z` `[n, c]`: `[n]`.
fn nearest_code(z: Tensor<2>, codes: Tensor<2>) -> Tensor<1, Int> {
    let squared: Tensor<2> = codes.clone().square().sum_dim(0);
    let distance = z.clone().square().sum_dim(1) - z.matmul(codes).mul_scalar(2.0) + squared;
    distance.argmin(1).squeeze_dim(1)
}

/// Rows of zeros like `like`, with a one at each row's class.
fn one_hot(class: Tensor<2, Int>, like: Tensor<2>) -> Tensor<2> {
    let (rows, device) = (like.dims()[0], like.device());
    let zeros: Tensor<2> = Tensor::zeros(like.dims(), &device);
    zeros.scatter(1, class, Tensor::ones([rows, 1], &device), IndexingUpdateOp::Add)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use t2l_core::{AdapterLayout, LoraScaling, TargetModule};

    use super::*;
    use crate::{Arch, HypernetConfig, Init};

    #[test]
    fn codes_move_towards_what_took_them() {
        let layout =
            AdapterLayout { base_model: "tiny".into(), layers: 1, modules: vec![TargetModule::new("q_proj", 4, 4)] };
        let scaling = LoraScaling { alpha: 1.0, rank: 1, use_rslora: false };
        let config = HypernetConfig {
            task_encoder: TaskEncoder::Vq,
            latent: 4,
            head_in: 4,
            ..HypernetConfig::new(Arch::L, layout, scaling, 3)
        };
        let mut hypernet = Hypernet::new(config, Init::Ours, 1, &Device::flex()).expect("a hypernetwork");
        let read = |h: &Hypernet, name: &str| -> Vec<f64> {
            let entry = h.buffers.entry(&format!("task_encoder.{name}")).expect("a buffer");
            entry.values.to_data().iter::<f32>().map(f64::from).collect()
        };
        let codes = read(&hypernet, "embed");
        // Two rows took code 3, one took code 5; the published update, spelled out.
        let z = [[1.0f32, -2.0], [3.0, 0.5], [-1.0, 4.0]];
        let used = CodeUse { z: Tensor::from_data(z, &Device::flex()), codes: vec![3, 3, 5] };
        hypernet.learn_codes(&used);
        let mut size = vec![0.0f64; CODES];
        (size[3], size[5]) = (0.02, 0.01);
        let total: f64 = size.iter().sum();
        for dimension in 0..2 {
            for code in 0..CODES {
                let sum: f64 =
                    used.codes.iter().zip(&z).filter(|(c, _)| **c == code).map(|(_, z)| f64::from(z[dimension])).sum();
                let average = 0.99 * codes[dimension * CODES + code] + 0.01 * sum;
                let smoothed = (size[code] + 1e-5) / (total + 32.0 * 1e-5) * total;
                let found =
                    [read(&hypernet, "embed_avg"), read(&hypernet, "embed")].map(|v| v[dimension * CODES + code]);
                for (found, expected) in found.into_iter().zip([average, average / smoothed]) {
                    assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{found} {expected}");
                }
            }
        }
        let found = read(&hypernet, "cluster_size");
        assert!(found.iter().zip(&size).all(|(f, e)| (f - e).abs() < 1e-8), "{found:?}");
    }
}
