//! Task encoders: from a task embedding to the task's part of the trunk's input.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};
use t2l_core::{InputDropout, ops};

use crate::config::{Conditioning, TaskEncoder};
use crate::forward::Net;

impl Net<'_> {
    /// Encoded task embeddings `[n, c]` of `tasks` `[n, e]`, and VQ's auxiliary loss.
    pub(crate) fn encode(&mut self, tasks: Tensor<2>) -> (Option<Tensor<2>>, Option<Tensor<1>>) {
        let x = match self.config.conditioning {
            Conditioning::None => return (None, None),
            Conditioning::Learned => tasks.matmul(self.get("task_vectors")),
            Conditioning::Text | Conditioning::OneHot => tasks,
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
                let code = nearest_code(z.clone(), self.get("task_encoder.embed"));
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

/// The nearest column of `codes` `[c, codes]` to each row of `z` `[n, c]`: `[n, c]`.
fn nearest_code(z: Tensor<2>, codes: Tensor<2>) -> Tensor<2> {
    let squared: Tensor<2> = codes.clone().square().sum_dim(0);
    let distance = z.clone().square().sum_dim(1) - z.matmul(codes.clone()).mul_scalar(2.0) + squared;
    codes.transpose().select(0, distance.argmin(1).squeeze_dim(1))
}

/// Rows of zeros like `like`, with a one at each row's class.
fn one_hot(class: Tensor<2, Int>, like: Tensor<2>) -> Tensor<2> {
    let (rows, device) = (like.dims()[0], like.device());
    let zeros: Tensor<2> = Tensor::zeros(like.dims(), &device);
    zeros.scatter(1, class, Tensor::ones([rows, 1], &device), IndexingUpdateOp::Add)
}
