//! Gradients taken a layer at a time are those taken through the whole graph: with noise, dropout, a margin, any modules.

use burn::tensor::{Device, Tensor, TensorData};
use t2l_backbone::{Decoder, DecoderConfig, Products};
use t2l_core::{AdapterLayout, LoraScaling};
use t2l_data::{TokenizedExample, TrainBatch};
use t2l_hypernet::{Arch, Hypernet, HypernetConfig, Init, Offset};
use t2l_train::{Contrast, LossConfig, NamedGradients, PlainLora, StepSeed, adapter_step, sft_step};

const SEED: StepSeed = StepSeed { seed: 5, step: 3, micro: 1 };
const WIDTH: usize = 6;

fn frozen(family: &str) -> Decoder {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    let config = format!(
        r#"{{"model_type": "{family}", "vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 4, "max_position_embeddings": 64}}"#
    );
    std::fs::write(&path, config).expect("written");
    Decoder::random(DecoderConfig::from_json(&path).expect("parses"), 3, &Device::flex()).expect("a decoder")
}

fn decoder(family: &str) -> Decoder {
    frozen(family).for_training(Products::F32)
}

fn batch(rows: usize, contrasts: &[Contrast]) -> TrainBatch {
    let row = |i: usize| TokenizedExample {
        prompt: (0..3 + i).map(|t| ((t * 37 + i * 11) % 64) as u32).collect(),
        response: (0..4 - i % 3).map(|t| ((t * 53 + i * 7) % 64) as u32).collect(),
    };
    let rows: Vec<TokenizedExample> = (0..rows).chain(contrasts.iter().map(|c| c.own)).map(row).collect();
    TrainBatch::new(&rows.iter().collect::<Vec<_>>(), 8, 0)
}

fn assert_same(what: &str, found: &NamedGradients, expected: &NamedGradients) {
    assert_eq!(found.len(), expected.len());
    let mut largest = 0.0f64;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let found: Vec<f32> = found.to_data().iter().collect();
        let expected: Vec<f64> = expected.to_data().iter().collect();
        let error = t2l_testing::relative_error(&found, &expected);
        assert!(error < 1e-5, "{what}: gradient {i} is off by {error:.1e}");
        largest = largest.max(error);
    }
    let sum: f64 = expected.iter().map(|g| f64::from(g.clone().abs().sum().into_scalar::<f32>())).sum();
    assert!(sum > 1e-3, "{what}: gradients of {sum} prove nothing");
    println!("{what}: off by at most {largest:.1e}");
}

fn layout(decoder: &Decoder, modules: &[&str]) -> AdapterLayout {
    decoder.layout("base", modules).expect("modules")
}

const SCALING: LoraScaling = LoraScaling { alpha: 16.0, rank: 3, use_rslora: true };
const ALL: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[test]
fn a_hypernetworks_gradients_are_the_same() {
    let contrasts = [Contrast { own: 0, other: 2 }, Contrast { own: 3, other: 1 }];
    let noisy =
        LossConfig { lora_dropout: 0.3, margin_weight: 0.7, margin: 30.0, l2_generated: 0.1, ..LossConfig::default() };
    for (family, modules) in [("llama", &["q_proj", "v_proj"][..]), ("gemma2", &ALL), ("qwen3", &["down_proj"])] {
        let decoder = decoder(family);
        for arch in [Arch::L, Arch::S] {
            let config = HypernetConfig {
                latent: 8,
                head_in: 8,
                offset: Offset::Trainable,
                ..HypernetConfig::new(arch, layout(&decoder, modules), SCALING, WIDTH)
            };
            let hypernet = Hypernet::new(config, Init::Published, 1, &Device::flex()).expect("a hypernetwork");
            let values: Vec<f32> = (0..4 * WIDTH).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
            let tasks: Tensor<2> = Tensor::from_data(TensorData::new(values, [4, WIDTH]), &Device::flex());
            for (contrasts, loss, seed) in [
                (&contrasts[..], noisy.clone(), Some(SEED)),
                (&[], LossConfig { l2_generated: 0.0, ..noisy.clone() }, None),
            ] {
                let step = |gradient_checkpointing| {
                    let loss = LossConfig { gradient_checkpointing, ..loss.clone() };
                    let batch = batch(4, contrasts);
                    sft_step(&decoder, &hypernet, &batch, tasks.clone(), contrasts, &loss, seed).expect("a step")
                };
                let (whole, by_layer) = (step(false), step(true));
                assert_eq!(
                    (whole.sft_loss, whole.l2_loss, whole.margin_loss),
                    (by_layer.sft_loss, by_layer.l2_loss, by_layer.margin_loss)
                );
                assert_eq!(whole.margin_loss > 0.0, !contrasts.is_empty());
                assert_same(&format!("{family} {arch:?}"), &by_layer.gradients, &whole.gradients);
            }
        }
    }
}

/// An adapter in the middle of its training: B is not zero.
fn plain(layout: &AdapterLayout, seed: u64) -> PlainLora {
    let mut plain = PlainLora::new(layout, SCALING.rank, seed, "adapter", &Device::flex());
    for (_, p) in plain.parameters.iter_mut() {
        let count = p.values.dims()[0];
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 1.7 + seed as f32).sin() * 0.2).collect();
        p.values = Tensor::from_data(TensorData::new(values, [count]), &Device::flex());
    }
    plain
}

#[test]
fn adapters_gradients_are_the_same() {
    let decoder = decoder("llama");
    let layout = layout(&decoder, &["q_proj", "v_proj"]);
    let plain: Vec<PlainLora> = (0..3).map(|seed| plain(&layout, seed)).collect();
    let parameters: Vec<_> = plain.iter().map(|p| &p.parameters).collect();
    let step = |gradient_checkpointing| {
        let loss = LossConfig { gradient_checkpointing, ..LossConfig::default() };
        let batch = batch(4, &[]);
        adapter_step(&decoder, &parameters, &layout, SCALING, &batch, &[2, 0, 0, 2], &loss, Some(SEED)).expect("a step")
    };
    let (whole, by_layer) = (step(false), step(true));
    assert_eq!(whole.losses, by_layer.losses);
    for (whole, by_layer) in whole.gradients.iter().zip(&by_layer.gradients) {
        match (whole, by_layer) {
            (Some(whole), Some(by_layer)) => assert_same("adapter", by_layer, whole),
            (whole, by_layer) => assert!(whole.is_none() && by_layer.is_none()),
        }
    }
}

/// Products in bf16 round to eight bits: a step through the same weights stays near, and is not the same.
#[test]
fn a_step_in_bf16_is_near_the_one_in_f32() {
    let frozen = frozen("llama");
    let [wide, narrow] = [Products::F32, Products::Bf16].map(|products| frozen.for_training(products));
    if narrow.products() != Products::Bf16 {
        println!("skipped: this processor has no products in bf16");
        return;
    }
    let layout = layout(&frozen, &["q_proj", "v_proj"]);
    let config = HypernetConfig {
        latent: 8,
        head_in: 8,
        offset: Offset::Trainable,
        ..HypernetConfig::new(Arch::L, layout, SCALING, WIDTH)
    };
    let hypernet = Hypernet::new(config, Init::Published, 1, &Device::flex()).expect("a hypernetwork");
    let tasks: Tensor<2> = Tensor::ones([2, WIDTH], &Device::flex());
    let loss = LossConfig { lora_dropout: 0.0, neftune_alpha: 0.0, l2_generated: 0.0, ..LossConfig::default() };
    let [wide, narrow] = [wide, narrow]
        .map(|decoder| sft_step(&decoder, &hypernet, &batch(2, &[]), tasks.clone(), &[], &loss, None).expect("a step"));
    let apart = (wide.sft_loss - narrow.sft_loss).abs();
    assert!(apart > 0.0 && apart < 0.02 * wide.sft_loss, "{} against {}", narrow.sft_loss, wide.sft_loss);
    for (narrow, wide) in narrow.gradients.iter().zip(&wide.gradients) {
        let narrow: Vec<f32> = narrow.to_data().iter().collect();
        let wide: Vec<f64> = wide.to_data().iter().collect();
        let (dot, a, b) = narrow.iter().zip(&wide).fold((0.0, 0.0, 0.0), |(dot, a, b), (&x, &y)| {
            let x = f64::from(x);
            (dot + x * y, a + x * x, b + y * y)
        });
        assert!(b == 0.0 || dot / (a * b).sqrt() > 0.9, "cosine {}", dot / (a * b).sqrt());
    }
}
