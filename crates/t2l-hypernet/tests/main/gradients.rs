//! Training passes: which tensors get gradients, that they are right, and that masks depend on the seed alone.

use burn::tensor::{Tensor, TensorData};
use t2l_core::Parameters;
use t2l_hypernet::{Arch, Conditioning, DropoutSeed, Hypernet, HypernetConfig, Init, Offset, TaskEncoder};

use crate::support::{device, embeddings, irregular, small, values};

const ARCHS: [Arch; 4] = [Arch::L, Arch::M, Arch::S, Arch::LA];

fn fresh(config: HypernetConfig, init: Init) -> Hypernet {
    Hypernet::new(config, init, 5, &device()).expect("fresh")
}

/// A loss to which every factor contributes in its own way.
fn loss(hypernet: &Hypernet, parameters: &Parameters, dropout: Option<DropoutSeed>) -> Tensor<1> {
    let tasks = embeddings(2, hypernet.config.input_width().max(1), 4);
    let (_, first) = parameters.iter().next().expect("a tensor");
    let tasks = if first.values.device() == tasks.device() { tasks } else { Tensor::from_inner(tasks) };
    let output = hypernet.forward(parameters, tasks, dropout).expect("forward");
    let sums = output.factors.modules.into_iter().zip(1u8..).map(|(m, i)| {
        let (a, b) = (m.a.mul_scalar(f32::from(i)), m.b);
        a.clone().sin().mean() + (b.clone() * b.clone()).mean() + (b.matmul(a)).cos().mean()
    });
    let total = sums.reduce(|x, y| x + y).expect("modules");
    output.aux_loss.map_or(total.clone(), |aux| total + aux)
}

/// Gradients by name, zero where there is none.
fn gradients(hypernet: &Hypernet, dropout: Option<DropoutSeed>) -> Vec<(String, Vec<f32>)> {
    let tracked = hypernet.parameters.tracked();
    let all = loss(hypernet, &tracked, dropout).backward();
    let of = |p: &t2l_core::Parameter| match p.values.grad(&all) {
        Some(gradient) => values(gradient),
        None => vec![0.0; p.shape.iter().product()],
    };
    tracked.iter().map(|(name, p)| (name.to_owned(), of(p))).collect()
}

/// The parameters, each moved by `step` times an irregular direction.
fn moved(hypernet: &Hypernet, step: f32) -> Parameters {
    let mut parameters = hypernet.parameters.clone();
    for (i, (_, p)) in parameters.iter_mut().enumerate() {
        let count = p.shape.iter().product();
        let direction: Tensor<1> = Tensor::from_data(TensorData::new(irregular(count, i), [count]), &device());
        p.values = p.values.clone() + direction.mul_scalar(step);
    }
    parameters
}

#[test]
fn gradients_agree_with_differences() {
    for arch in ARCHS {
        for (learnable_positions, task_encoder) in [(false, TaskEncoder::Linear), (true, TaskEncoder::Softmax)] {
            for dropout in [None, Some(DropoutSeed(9))] {
                let config = HypernetConfig {
                    learnable_positions,
                    task_encoder,
                    offset: Offset::Trainable,
                    dropout: 0.3,
                    ..small(arch)
                };
                let hypernet = fresh(config, Init::Reconstruction);
                let at = |step: f32| f64::from(values(loss(&hypernet, &moved(&hypernet, step), dropout))[0]);
                let step = 2e-3;
                let differences = (at(step) - at(-step)) / f64::from(2.0 * step);
                let slopes = gradients(&hypernet, dropout).into_iter().enumerate().map(|(i, (_, gradient))| {
                    let direction = irregular(gradient.len(), i);
                    gradient.iter().zip(direction).map(|(g, d)| f64::from(g * d)).sum::<f64>()
                });
                let slope: f64 = slopes.sum();
                let off = (slope - differences).abs();
                assert!(off < 2e-2 * (0.1 + slope.abs()), "{arch:?} {task_encoder:?}: {slope} is not {differences}");
            }
        }
    }
}

#[test]
fn every_tensor_learns() {
    for arch in ARCHS {
        for task_encoder in [TaskEncoder::Linear, TaskEncoder::Softmax, TaskEncoder::Vq, TaskEncoder::Discrete] {
            for conditioning in [Conditioning::Text, Conditioning::OneHot, Conditioning::Learned, Conditioning::None] {
                let tasks = if conditioning == Conditioning::Learned { 4 } else { 0 };
                // The discrete encoder's trunk is 64 + 3 + 2 wide: odd, so not to be rotated.
                let learnable_positions = task_encoder == TaskEncoder::Discrete;
                let config = HypernetConfig { task_encoder, conditioning, tasks, learnable_positions, ..small(arch) };
                let hypernet = fresh(config, Init::Reconstruction);
                for (name, gradient) in gradients(&hypernet, Some(DropoutSeed(2))) {
                    let what = format!("{arch:?} {task_encoder:?} {conditioning:?} {name}");
                    assert!(gradient.iter().all(|g| g.is_finite()), "{what}");
                    assert!(gradient.iter().any(|&g| g != 0.0), "{what} has no gradient");
                }
            }
        }
    }
}

#[test]
fn our_start_is_the_base_model_and_not_a_dead_point() {
    for arch in ARCHS {
        let hypernet = fresh(HypernetConfig { offset: Offset::Trainable, ..small(arch) }, Init::Ours);
        let output = hypernet.forward(&hypernet.parameters, embeddings(2, 5, 1), None).expect("forward");
        for m in &output.factors.modules {
            assert!(values(m.b.clone()).iter().all(|&b| b == 0.0), "{arch:?}: B");
            let a = values(m.a.clone());
            let input = m.a.dims()[3];
            let bound = 1.0 / (input as f32).sqrt();
            assert!(a.iter().all(|x| x.abs() <= bound), "{arch:?}: A is outside of PEFT's range");
            let different = a.iter().filter(|x| x.abs() > bound / 10.0).count();
            assert!(different > a.len() / 2, "{arch:?}: A is nearly zero");
        }
        let moving: Vec<String> = gradients(&hypernet, None)
            .into_iter()
            .filter(|(_, gradient)| gradient.iter().any(|&g| g != 0.0))
            .map(|(name, _)| name)
            .collect();
        for m in ["q_proj", "v_proj"] {
            assert!(
                moving.contains(&format!("heads.{m}.weight")),
                "{arch:?}: no gradient reaches the head: {moving:?}"
            );
        }
    }
}

#[test]
fn starts_that_never_move_are_refused() {
    let refused = |config: HypernetConfig, init: Init| {
        Hypernet::new(config, init, 1, &device()).expect_err("a dead point").to_string()
    };
    assert!(refused(small(Arch::L), Init::Ours).contains("offset"));
    assert!(refused(small(Arch::L), Init::Zero).contains("offset"));
    let unbiased = HypernetConfig { head_bias: false, ..small(Arch::L) };
    assert!(refused(unbiased, Init::Published).contains("head_bias"));
}

#[test]
fn dropout_depends_on_the_seed_alone() {
    for arch in ARCHS {
        let hypernet = fresh(HypernetConfig { dropout: 0.5, ..small(arch) }, Init::Reconstruction);
        let run = |seed: Option<u64>| {
            let output = hypernet.forward(&hypernet.parameters, embeddings(2, 5, 1), seed.map(DropoutSeed));
            values(output.expect("forward").factors.modules[0].a.clone())
        };
        assert_eq!(run(Some(1)), run(Some(1)), "{arch:?}");
        assert_ne!(run(Some(1)), run(Some(2)), "{arch:?}");
        assert_ne!(run(Some(1)), run(None), "{arch:?}");
    }
}

#[test]
fn discrete_classes_are_drawn_by_their_probabilities() {
    let config = HypernetConfig { task_encoder: TaskEncoder::Discrete, dropout: 0.0, ..small(Arch::L) };
    let mut hypernet = fresh(config, Init::Reconstruction);
    // Logits 0, except that two classes share nearly everything, three to one.
    for (name, p) in hypernet.parameters.iter_mut() {
        if name == "task_encoder.mlp.3.weight" {
            p.values = p.values.zeros_like();
        } else if name == "task_encoder.mlp.3.bias" {
            let mut logits = vec![0.0f32; 64];
            (logits[7], logits[40]) = (30.0 + 3f32.ln(), 30.0);
            p.values = Tensor::from_data(TensorData::new(logits, [64]), &device());
        }
    }
    let draws = 400;
    let output = hypernet.forward(&hypernet.parameters, embeddings(draws, 5, 1), Some(DropoutSeed(3)));
    let encoded = values(output.expect("forward").encoded.expect("conditioned"));
    let count = |class: usize| encoded.chunks(64).filter(|row| row[class] > 0.5).count();
    assert_eq!(count(7) + count(40), draws);
    assert!((260..=340).contains(&count(7)), "{} of {draws} are of a class with probability 3/4", count(7));
    let best = hypernet.forward(&hypernet.parameters, embeddings(2, 5, 1), None).expect("forward").encoded;
    assert!(values(best.expect("conditioned")).chunks(64).all(|row| row[7] == 1.0));
}
