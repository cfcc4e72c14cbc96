//! Whatever the shape: sizes of the factors, ΔW = s·B·A, a task alone and in company, a checkpoint's round trip.

use burn::tensor::Tensor;
use proptest::prelude::*;
use t2l_core::{AdapterGenerator, AdapterLayout, GenerateError, LoraFactors, LoraScaling, TargetModule};
use t2l_hypernet::{
    Arch, Checkpoint, Conditioning, Dtype, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder,
};

use crate::checkpoint::checkpoint;
use crate::support::{device, embeddings, small, values};

fn any_config() -> impl Strategy<Value = HypernetConfig> {
    let arch = prop_oneof![Just(Arch::L), Just(Arch::M), Just(Arch::S), Just(Arch::LA)];
    let conditioning = prop_oneof![
        3 => Just(Conditioning::Text),
        1 => Just(Conditioning::OneHot),
        1 => Just(Conditioning::Learned),
        1 => Just(Conditioning::None),
    ];
    let encoder = prop_oneof![
        3 => Just(TaskEncoder::Linear),
        1 => Just(TaskEncoder::Softmax),
        1 => Just(TaskEncoder::Vq),
        1 => Just(TaskEncoder::Discrete),
    ];
    let target = prop_oneof![
        3 => Just(Target::Sft),
        1 => Just(Target::Factorized),
        1 => Just(Target::ZScored),
        1 => Just(Target::DeltaW { scaling: 100.0 }),
    ];
    let offset = prop_oneof![Just(Offset::None), Just(Offset::Frozen), Just(Offset::Trainable)];
    let modules = prop::collection::vec((1usize..40, 1usize..40), 1..=7);
    let places = (1usize..=8, modules, 1usize..=32, any::<bool>());
    let sizes = (2usize..10, 1usize..12, 1usize..24);
    let switches = (any::<bool>(), any::<bool>());
    (arch, conditioning, encoder, target, offset, places, sizes, switches).prop_map(
        |(arch, conditioning, task_encoder, target, offset, places, (half, embedding, head_in), switches)| {
            let (layers, modules, rank, use_rslora) = places;
            let module =
                |(i, (input, output)): (usize, (usize, usize))| TargetModule::new(format!("m{i}_proj"), input, output);
            let modules: Vec<TargetModule> = modules.into_iter().enumerate().map(module).collect();
            // The discrete encoder's trunk has 64 + layers + modules columns: even only sometimes.
            let odd = task_encoder == TaskEncoder::Discrete
                && conditioning != Conditioning::None
                && (layers + modules.len()) % 2 == 1;
            HypernetConfig {
                arch,
                layout: AdapterLayout { base_model: "any".into(), layers, modules },
                scaling: LoraScaling { alpha: 12.0, rank, use_rslora },
                conditioning,
                embedding: if conditioning == Conditioning::None { 0 } else { embedding },
                tasks: if conditioning == Conditioning::Learned { 6 } else { 0 },
                task_encoder,
                latent: 4 * half,
                head_in,
                head_bias: switches.0,
                offset,
                copying: None,
                instructed: None,
                learnable_positions: switches.1 || odd,
                target,
                dropout: 0.05,
            }
        },
    )
}

fn generate(hypernet: &Hypernet, first: usize, tasks: usize) -> LoraFactors {
    let all = embeddings(first + tasks, hypernet.config.input_width().max(1), 8);
    hypernet.generate(all.narrow(0, first, tasks)).expect("adapters")
}

/// Fails where two tensors differ by more than 1e-5 of the largest entry.
fn same(what: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() <= 1e-5 * largest, "{what}: {x} is not {y}, the largest is {largest}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_widened_one_is_deaf_to_what_stands_behind(config in any_config(), by in 1usize..9, seed in 0u64..9) {
        prop_assume!(config.conditioning == Conditioning::Text);
        let plain = Hypernet::new(config, Init::Reconstruction, seed, &device()).expect("fresh");
        let mut wider = plain.clone();
        wider.widen(by);
        let read = embeddings(2, plain.config.embedding, 1);
        let behind = Tensor::cat(vec![read.clone(), embeddings(2, by, 2)], 1);
        let (expected, found) = (plain.generate(read).expect("fits"), wider.generate(behind).expect("fits"));
        for (expected, found) in expected.modules.into_iter().zip(found.modules) {
            prop_assert_eq!(values(expected.a), values(found.a));
            prop_assert_eq!(values(expected.b), values(found.b));
        }
        prop_assert_eq!(wider.config.embedding, plain.config.embedding + by);
    }
}

#[test]
fn embeddings_that_do_not_fit_are_refused() {
    let hypernet = Hypernet::new(small(Arch::S), Init::Reconstruction, 1, &device()).expect("fresh");
    let error = hypernet.generate(embeddings(2, 7, 1)).expect_err("another encoder's embeddings");
    assert_eq!(error, GenerateError::Width { expected: 5, found: 7 });
    let none = Tensor::<2>::zeros([0, 5], &device());
    assert_eq!(hypernet.generate(none.clone()).expect_err("no task"), GenerateError::NoTasks);
    let chunks: Vec<_> = hypernet.generate_in_chunks(none, 0).collect();
    assert!(matches!(chunks[..], [Err(GenerateError::NoTasks)]));
}

#[test]
fn without_conditioning_all_adapters_are_one() {
    let config = HypernetConfig { conditioning: Conditioning::None, embedding: 0, ..small(Arch::M) };
    let hypernet = Hypernet::new(config, Init::Reconstruction, 1, &device()).expect("fresh");
    let factors = hypernet.generate(embeddings(3, 1, 1)).expect("adapters");
    for m in &factors.modules {
        assert_eq!((m.a.dims()[0], m.b.dims()[0]), (3, 3));
        let a = values(m.a.clone());
        let (first, rest) = a.split_at(a.len() / 3);
        assert!(rest.chunks(first.len()).all(|other| other == first));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shapes_and_delta_w(config in any_config(), tasks in 1usize..5) {
        let hypernet = Hypernet::new(config.clone(), Init::Reconstruction, 1, &device()).expect("fresh");
        let counts = config.parameter_counts().expect("counts");
        prop_assert_eq!(counts.trainable, hypernet.parameters.count() as u64);
        prop_assert_eq!(counts.frozen, hypernet.buffers.count() as u64);
        let factors = generate(&hypernet, 0, tasks);
        let (layers, rank) = (config.layout.layers, config.scaling.rank);
        prop_assert_eq!(factors.modules.len(), config.layout.modules.len());
        for (m, target) in factors.modules.iter().zip(&config.layout.modules) {
            let (input, output) = (target.in_features, target.out_features);
            prop_assert_eq!(&m.name, &target.name);
            prop_assert_eq!(m.a.dims(), [tasks, layers, rank, input]);
            prop_assert_eq!(m.b.dims(), [tasks, layers, output, rank]);
            let (a, b) = (values(m.a.clone()), values(m.b.clone()));
            prop_assert!(a.iter().chain(&b).all(|x| x.is_finite()));
            let scale = if config.scaling.use_rslora { 12.0 / (rank as f64).sqrt() } else { 12.0 / rank as f64 };
            let product = |place: usize, o: usize, i: usize| -> f32 {
                let entry = |q: usize| -> f64 {
                    f64::from(b[(place * output + o) * rank + q]) * f64::from(a[(place * rank + q) * input + i])
                };
                (scale * (0..rank).map(entry).sum::<f64>()) as f32
            };
            let places = (0..tasks * layers).flat_map(|p| (0..output).map(move |o| (p, o)));
            let expected: Vec<f32> = places.flat_map(|(p, o)| (0..input).map(move |i| (p, o, i)))
                .map(|(p, o, i)| product(p, o, i)).collect();
            same("ΔW", &values(factors.delta_w(&m.name).expect("module")), &expected);
        }
    }

    #[test]
    fn alone_and_in_company(config in any_config(), tasks in 2usize..7, split in 1usize..6, budget in 1usize..1 << 20) {
        let hypernet = Hypernet::new(config, Init::Reconstruction, 2, &device()).expect("fresh");
        let together = generate(&hypernet, 0, tasks);
        let split = split.min(tasks - 1);
        let parts = [generate(&hypernet, 0, split), generate(&hypernet, split, tasks - split)];
        let all = embeddings(tasks, hypernet.config.input_width().max(1), 8);
        let chunks: Vec<_> = hypernet.generate_in_chunks(all, budget).collect::<Result<_, _>>().expect("chunks");
        for (i, m) in together.modules.iter().enumerate() {
            for (what, pieces) in [("split", &parts[..]), ("chunks", &chunks[..])] {
                let (a, b) = pieces.iter().fold((vec![], vec![]), |(mut a, mut b), piece| {
                    a.extend(values(piece.modules[i].a.clone()));
                    b.extend(values(piece.modules[i].b.clone()));
                    (a, b)
                });
                same(what, &a, &values(m.a.clone()));
                same(what, &b, &values(m.b.clone()));
            }
        }
    }

    #[test]
    fn stored_and_loaded(config in any_config(), seed in any::<u64>()) {
        let made = checkpoint(Hypernet::new(config, Init::Reconstruction, seed, &device()).expect("fresh"));
        let folder = tempfile::TempDir::new().expect("a folder");
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let path = folder.path().join("c");
            made.save(&path, dtype).expect("saved");
            let loaded = Checkpoint::load(&path, &device()).expect("loaded");
            prop_assert_eq!(&loaded.manifest.config, &made.manifest.config);
            let pairs = [
                (&made.hypernet.parameters, &loaded.hypernet.parameters),
                (&made.hypernet.buffers, &loaded.hypernet.buffers),
            ];
            for (before, after) in pairs {
                prop_assert_eq!(before.iter().count(), after.iter().count());
                for ((name, x), (other, y)) in before.iter().zip(after.iter()) {
                    prop_assert_eq!((name, &x.shape), (other, &y.shape));
                    for (x, y) in values(x.values.clone()).into_iter().zip(values(y.values.clone())) {
                        match dtype {
                            Dtype::F32 => prop_assert_eq!(x.to_bits(), y.to_bits()),
                            // Eight bits of mantissa, rounded to nearest.
                            Dtype::Bf16 => prop_assert!((x - y).abs() <= x.abs() / 256.0 + f32::MIN_POSITIVE),
                        }
                    }
                }
            }
        }
    }
}
