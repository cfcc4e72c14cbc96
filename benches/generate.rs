//! Speed of generating adapters at the shapes of Mistral-7B with hypernetworks of the published sizes, for eight tasks at
//! once, beside eight calls of one task each, and beside the bare products of the heads: the bound.

use std::hint::black_box;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use t2l_core::{AdapterGenerator, AdapterLayout, LoraScaling, TargetModule};
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder};

const TASKS: usize = 8;
const LAYERS: usize = 32;
const RANK: usize = 8;
const HEAD_IN: usize = 512;
/// q and v: input and output width.
const MODULES: [(&str, usize, usize); 2] = [("q_proj", 4096, 4096), ("v_proj", 4096, 1024)];

fn config(arch: Arch) -> HypernetConfig {
    let modules = MODULES.map(|(name, input, output)| TargetModule::new(name, input, output)).to_vec();
    HypernetConfig {
        arch,
        layout: AdapterLayout { base_model: "mistral".into(), layers: LAYERS, modules },
        scaling: LoraScaling { alpha: 16.0, rank: RANK, use_rslora: true },
        conditioning: Conditioning::Text,
        embedding: 1024,
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: 128,
        head_in: HEAD_IN,
        head_bias: true,
        offset: Offset::None,
        copying: None,
        instructed: None,
        learnable_positions: false,
        target: Target::Sft,
        dropout: 0.05,
    }
}

/// Rows and outputs of the products that an architecture's heads consist of.
fn products(arch: Arch) -> Vec<[usize; 2]> {
    let rows = TASKS * LAYERS;
    MODULES
        .iter()
        .flat_map(|&(_, input, output)| match arch {
            Arch::S => [[rows * RANK, input], [rows * RANK, output]],
            _ => [[rows, RANK * input], [rows, RANK * output]],
        })
        .collect()
}

fn generate(criterion: &mut Criterion) {
    let device = Device::flex();
    for arch in [Arch::L, Arch::M, Arch::S] {
        let hypernet = Hypernet::new(config(arch), Init::Reconstruction, 0, &device).expect("a hypernetwork");
        let mut group = criterion.benchmark_group(format!("{arch:?}"));
        group.sample_size(10);
        group.bench_function("eight tasks at once", |bencher| {
            bencher.iter(|| black_box(hypernet.generate(Tensor::ones([TASKS, 1024], &device)).expect("adapters")));
        });
        group.bench_function("eight calls of one task", |bencher| {
            bencher.iter(|| {
                for _ in 0..TASKS {
                    black_box(hypernet.generate(Tensor::ones([1, 1024], &device)).expect("an adapter"));
                }
            });
        });
        let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &device);
        let pairs: Vec<_> =
            products(arch).into_iter().map(|[m, n]| (random([m, HEAD_IN]), random([n, HEAD_IN]))).collect();
        group.bench_function("bare products of the heads", |bencher| {
            bencher.iter(|| {
                for (x, weight) in &pairs {
                    black_box(x.clone().matmul(weight.clone().transpose()));
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, generate);
criterion_main!(benches);
