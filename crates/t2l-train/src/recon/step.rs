//! One step of reconstruction: the L1 distance between what the heads emit and the library, and its gradients.

use burn::tensor::Tensor;
use t2l_core::{LoraFactors, ModuleFactors};
use t2l_hypernet::{CodeUse, DropoutSeed, Hypernet, Target};

use crate::noise::{Noise, Purpose};
use crate::optimizer::{NamedGradients, named_gradients};
use crate::{StepSeed, TrainError};

/// What a step computed.
#[derive(Debug, Clone)]
pub struct ReconStepOutput {
    /// The loss.
    pub loss: f64,
    /// The distance on the adapters' own scale.
    pub raw_error: f64,
    /// The codes that were taken, where the task encoder has codes: [`Hypernet::learn_codes`] moves them.
    pub code_use: Option<CodeUse>,
    /// Gradients of the loss for every trainable tensor of the hypernetwork, in name order.
    pub gradients: NamedGradients,
}

/// Computes the loss of some adapters and its gradients.
///
/// `task_embeddings`: `[rows, e]`; `targets`: the library's factors of each row, as its files hold them. The loss is
/// the mean over modules of `½·mean|A − A*| + ½·mean|B − B*|`, on z-scores where the hypernetwork's target says so, or
/// of `mean|B·A − c·B*·A*|` where its target is ΔW.
///
/// # Errors
/// Embeddings of the wrong width.
pub fn recon_step(
    hypernet: &Hypernet,
    task_embeddings: Tensor<2>,
    targets: &LoraFactors,
    seed: Option<StepSeed>,
) -> Result<ReconStepOutput, TrainError> {
    let tracked = hypernet.parameters.tracked();
    let dropout = seed.map(|s| DropoutSeed(Noise::of(s, Purpose::Hypernet).seed()));
    let output = hypernet.forward(&tracked, Tensor::from_inner(task_embeddings), dropout)?;
    let (mut total, mut loss, mut raw_error): (Option<Tensor<1>>, _, _) = (output.aux_loss, 0.0, 0.0);
    let modules = targets.modules.len().max(1) as f64;
    for (made, wanted) in output.factors.modules.into_iter().zip(&targets.modules) {
        let Distance { surrogate, value, raw } = distance(hypernet, made, wanted);
        loss += value / modules;
        raw_error += raw / modules;
        let term = surrogate.div_scalar(modules);
        total = Some(match total {
            None => term,
            Some(total) => total + term,
        });
    }
    let Some(total) = total else {
        return Err(TrainError::NoData { reason: "the hypernetwork writes no module".into() });
    };
    let mut gradients = total.backward();
    let code_use = output.code_use;
    Ok(ReconStepOutput { loss, raw_error, code_use, gradients: named_gradients(&tracked, &mut gradients) })
}

/// How far one module's factors are from the wanted ones.
struct Distance {
    /// Something whose gradient is the distance's: `[1]`.
    surrogate: Tensor<1>,
    value: f64,
    /// On the adapters' own scale.
    raw: f64,
}

fn distance(hypernet: &Hypernet, made: ModuleFactors, wanted: &ModuleFactors) -> Distance {
    let statistic = |kind: &str, x: &str| -> Tensor<4> {
        hypernet.buffers.get::<3>(&format!("{kind}_recon_target.{x}.{}", made.name)).unsqueeze()
    };
    match hypernet.config.target {
        Target::DeltaW { scaling } => delta_w_distance(made, wanted, scaling),
        Target::ZScored => {
            let [mut value, mut raw] = [0.0; 2];
            let mut half = |x: &str, made: Tensor<4>, wanted: &Tensor<4>| {
                let deviation = statistic("std", x) + 1e-10;
                let scored = (wanted.clone() - statistic("mean", x)) / deviation.clone();
                let off = difference(made, scored);
                value += 0.5 * number(off.clone().inner().abs().mean());
                raw += 0.5 * number((off.clone().inner().abs() * deviation).mean());
                off.abs().mean().mul_scalar(0.5)
            };
            let surrogate = half("A", made.a.clone(), &wanted.a) + half("B", made.b.clone(), &wanted.b);
            Distance { surrogate, value, raw }
        }
        Target::Factorized | Target::Sft => {
            let half =
                |made: Tensor<4>, wanted: &Tensor<4>| difference(made, wanted.clone()).abs().mean().mul_scalar(0.5);
            let surrogate = half(made.a, &wanted.a) + half(made.b, &wanted.b);
            let value = number(surrogate.clone().inner());
            Distance { surrogate, value, raw: value }
        }
    }
}

/// `mean|B·A − c·B*·A*|` over tasks, layers, rows and columns.
///
/// The absolute value needs every entry of the difference once, but none has to stay. The difference is one product of
/// twice the rank, `[B, −c·B*]·[A; A*]`, taken one layer of one task at a time; its signs S give the gradients `Bᵀ·S` of
/// A and `S·Aᵀ` of B there and then. So memory holds one module's matrix, and not the graph of all of them.
fn delta_w_distance(made: ModuleFactors, wanted: &ModuleFactors, scaling: f64) -> Distance {
    let (a, b) = (made.a.clone().inner(), made.b.clone().inner());
    let ([tasks, layers, rank, input], output) = (a.dims(), b.dims()[2]);
    let count = (tasks * layers * output * input) as f64;
    let (mut value, mut gradients_a, mut gradients_b) = (0.0, Vec::new(), Vec::new());
    for task in 0..tasks {
        for layer in 0..layers {
            let place = |x: &Tensor<4>| -> Tensor<2> {
                let [_, _, rows, cols] = x.dims();
                x.clone().slice([task..task + 1, layer..layer + 1]).reshape([rows, cols])
            };
            let (a, b) = (place(&a), place(&b));
            let left = Tensor::cat(vec![b.clone(), place(&wanted.b).mul_scalar(-scaling)], 1);
            let off = left.matmul(Tensor::cat(vec![a.clone(), place(&wanted.a)], 0));
            value += number(off.clone().abs().sum()) / count;
            let signs = off.sign();
            gradients_a.push(b.transpose().matmul(signs.clone()));
            gradients_b.push(signs.matmul(a.transpose()));
        }
    }
    let held = |gradients: Vec<Tensor<2>>, shape: [usize; 4]| -> Tensor<4> {
        Tensor::from_inner(Tensor::cat(gradients, 0).div_scalar(count).reshape(shape))
    };
    let gradient_a = held(gradients_a, [tasks, layers, rank, input]);
    let gradient_b = held(gradients_b, [tasks, layers, output, rank]);
    let surrogate = (made.a * gradient_a).sum() + (made.b * gradient_b).sum();
    Distance { surrogate, value, raw: value / scaling }
}

/// What is trained minus a constant.
fn difference(made: Tensor<4>, constant: Tensor<4>) -> Tensor<4> {
    made - Tensor::from_inner(constant)
}

fn number(x: Tensor<1>) -> f64 {
    f64::from(x.into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;

    fn factor(shape: [usize; 4], seed: usize) -> Tensor<4> {
        let value = |i: usize| ((i * 7919 + seed * 104_729 + 13) % 2003) as f32 / 1001.5 - 1.0;
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn values(x: Option<Tensor<4>>) -> Vec<f32> {
        x.expect("a gradient").to_data().iter().collect()
    }

    proptest! {
        /// One layer at a time gives what the whole matrices give.
        #[test]
        fn delta_w_needs_no_whole_matrices(
            tasks in 1usize..3, layers in 1usize..4, rank in 1usize..4, input in 1usize..7, output in 1usize..7,
            scaling in 0.5f64..3.0, seed in 0usize..1000,
        ) {
            let (a, b) = ([tasks, layers, rank, input], [tasks, layers, output, rank]);
            let module = |seed: usize| ModuleFactors {
                name: "q_proj".into(), a: factor(a, seed), b: factor(b, seed + 1),
            };
            let (made, wanted) = (module(seed), module(seed + 2));
            let tracked = || ModuleFactors {
                name: "q_proj".into(),
                a: Tensor::from_inner(made.a.clone()).require_grad(),
                b: Tensor::from_inner(made.b.clone()).require_grad(),
            };
            let whole = tracked();
            let goal = wanted.b.clone().matmul(wanted.a.clone()).mul_scalar(scaling);
            let loss = difference(whole.b.clone().matmul(whole.a.clone()), goal).abs().mean();
            let gradients = loss.backward();

            let parts = tracked();
            let found = delta_w_distance(parts.clone(), &wanted, scaling);
            let found_gradients = found.surrogate.backward();
            let loss = number(loss.inner());
            prop_assert!((found.value - loss).abs() <= 1e-5 * loss.abs().max(1e-3));
            prop_assert!((found.raw * scaling - loss).abs() <= 1e-5 * loss.abs().max(1e-3));
            for (found, expected) in [
                (parts.a.grad(&found_gradients), whole.a.grad(&gradients)),
                (parts.b.grad(&found_gradients), whole.b.grad(&gradients)),
            ] {
                for (x, y) in values(found).into_iter().zip(values(expected)) {
                    prop_assert!((x - y).abs() <= 1e-5, "{} instead of {}", x, y);
                }
            }
        }
    }
}
