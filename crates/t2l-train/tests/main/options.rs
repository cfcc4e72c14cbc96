//! Every option of `sft` does what it says, on a small random model: each test fails where its option is ignored.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;
use t2l_backbone::decoder::DecoderConfig;
use t2l_backbone::{Decoder, Products};
use t2l_core::{AdapterBatch, AdapterGenerator, LoraFactors, LoraScaling};
use t2l_data::{TokenizedExample, TrainBatch};
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Init, Offset, TaskEncoder};
use t2l_train::{
    LossConfig, Optimizer, OptimizerConfig, PlainLora, StepSeed, Weighting, global_norm, set_from_base, set_offsets,
    sft_step,
};

const TASKS: usize = 3;
const WIDTH: usize = 6;
const SEED: Option<StepSeed> = Some(StepSeed { seed: 5, step: 2, micro: 0 });
const SCALING: LoraScaling = LoraScaling { alpha: 4.0, rank: 2, use_rslora: true };

pub fn decoder() -> Decoder {
    let config = json!({
        "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), config.to_string()).expect("written");
    let config = DecoderConfig::from_json(file.path()).expect("a configuration");
    Decoder::random(config, 7, &Device::flex()).expect("a decoder")
}

/// Rows of different length, with 1, 2 and 5 labels.
fn batch() -> TrainBatch {
    let example = |prompt: u32, labels: u32| TokenizedExample {
        prompt: (1..=prompt).collect(),
        response: (0..labels).map(|i| 7 + 3 * i + prompt).collect(),
    };
    let examples = [example(3, 1), example(6, 2), example(2, 5)];
    TrainBatch::new(&examples.iter().collect::<Vec<_>>(), 8, 0)
}

fn config(decoder: &Decoder, arch: Arch) -> HypernetConfig {
    let layout = decoder.layout("tiny", &["q_proj", "v_proj"]).expect("a layout");
    HypernetConfig { latent: 16, head_in: 8, ..HypernetConfig::new(arch, layout, SCALING, WIDTH) }
}

/// A hypernetwork none of whose factors is zero, so that adapters matter.
fn far_from_start(config: HypernetConfig) -> Hypernet {
    Hypernet::new(config, Init::Reconstruction, 3, &Device::flex()).expect("a hypernetwork")
}

fn conditions(hypernet: &HypernetConfig) -> Tensor<2> {
    let device = Device::flex();
    match hypernet.conditioning {
        Conditioning::Text | Conditioning::Input => {
            let values: Vec<f32> = (0..TASKS * WIDTH).map(|i| (i as f32 * 0.7).sin()).collect();
            Tensor::<1>::from_floats(values.as_slice(), &device).reshape([TASKS, WIDTH])
        }
        Conditioning::OneHot | Conditioning::Learned => Tensor::eye(TASKS, &device),
        Conditioning::None => Tensor::zeros([TASKS, 1], &device),
    }
}

/// The whole loss of a step.
fn loss(decoder: &Decoder, hypernet: &Hypernet, loss: &LossConfig, seed: Option<StepSeed>) -> f64 {
    let decoder = decoder.for_training(Products::F32);
    let out = sft_step(&decoder, hypernet, &batch(), conditions(&hypernet.config), &[], loss, seed).expect("a step");
    assert!(global_norm(&out.gradients).is_finite());
    out.sft_loss + out.l2_loss
}

fn plain() -> LossConfig {
    LossConfig::plain(Weighting::Sample)
}

#[test]
fn every_head_task_encoder_and_conditioning_learns() {
    let decoder = decoder();
    let training = decoder.for_training(Products::F32);
    let combinations = [Arch::L, Arch::M, Arch::S].into_iter().flat_map(|arch| {
        let encoders = [TaskEncoder::Linear, TaskEncoder::Softmax, TaskEncoder::Vq, TaskEncoder::Discrete];
        encoders.into_iter().map(move |encoder| (arch, encoder))
    });
    for (i, (arch, task_encoder)) in combinations.enumerate() {
        let all = [Conditioning::Text, Conditioning::OneHot, Conditioning::Learned, Conditioning::Input];
        let conditioning = all[i % 4];
        let shape = HypernetConfig {
            conditioning,
            task_encoder,
            embedding: if conditioning == Conditioning::OneHot { TASKS } else { WIDTH },
            tasks: if conditioning == Conditioning::Learned { TASKS } else { 0 },
            ..config(&decoder, arch)
        };
        let mut hypernet = Hypernet::new(shape, Init::Ours, 1, &Device::flex()).expect("a hypernetwork");
        let mut optimizer = Optimizer::new(OptimizerConfig::default(), &hypernet.parameters);
        let mut losses = Vec::new();
        for step in 0..8 {
            let seed = Some(StepSeed { seed: 0, step, micro: 0 });
            let told = conditions(&hypernet.config);
            let out = sft_step(&training, &hypernet, &batch(), told, &[], &plain(), seed).expect("a step");
            optimizer.step(&mut hypernet.parameters, &out.gradients, 0.02);
            if let Some(used) = &out.code_use {
                hypernet.learn_codes(used);
            }
            assert_eq!(out.code_use.is_some(), task_encoder == TaskEncoder::Vq);
            losses.push(out.sft_loss);
        }
        // The best of them: a discrete encoder draws its class anew in every step.
        let (first, best) = (losses[0], losses.iter().copied().fold(f64::INFINITY, f64::min));
        assert!(best < first - 0.1, "{arch:?} {task_encoder:?} {conditioning:?}: {losses:?}");
        let encoder = hypernet.parameters.entry("task_encoder.mlp.0.weight").expect("a task encoder");
        let fresh = Hypernet::new(hypernet.config.clone(), Init::Ours, 1, &Device::flex()).expect("a hypernetwork");
        let start = fresh.parameters.entry("task_encoder.mlp.0.weight").expect("a task encoder");
        let moved: f32 = (encoder.values.clone() - start.values.clone()).abs().max().into_scalar();
        assert!(moved > 0.0, "{arch:?} {task_encoder:?}: the task encoder has not moved");
    }
}

#[test]
fn label_smoothing_spreads_a_share_over_the_vocabulary() {
    let decoder = decoder();
    let hypernet = far_from_start(config(&decoder, Arch::L));
    let with = |label_smoothing| loss(&decoder, &hypernet, &LossConfig { label_smoothing, ..plain() }, None);
    // Linear in the share: (1 − ε)·nll + ε·mean over the vocabulary.
    let (none, some, more) = (with(0.0), with(0.1), with(0.2));
    assert!((some - none).abs() > 1e-4, "{none} {some}");
    assert!(((more - none) - 2.0 * (some - none)).abs() < 1e-5, "{none} {some} {more}");
}

#[test]
fn samples_or_tokens_weigh_the_same() {
    let decoder = decoder();
    let hypernet = far_from_start(config(&decoder, Arch::L));
    let factors = hypernet.generate(conditions(&hypernet.config)).expect("generates");
    let adapters = t2l_core::AdapterBatch::from_factors(&factors);
    let losses = t2l_train::label_losses(&decoder, &batch(), &adapters, 0.0, None).expect("losses").to_data();
    let losses: Vec<f64> = losses.iter::<f64>().collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let by_sample = mean(&[mean(&losses[..1]), mean(&losses[1..3]), mean(&losses[3..])]);
    for (weighting, expected) in [(Weighting::Sample, by_sample), (Weighting::Token, mean(&losses))] {
        let found = loss(&decoder, &hypernet, &LossConfig::plain(weighting), None);
        assert!((found - expected).abs() < 1e-5, "{weighting:?}: {found} {expected}");
    }
    assert!((by_sample - mean(&losses)).abs() > 1e-3);
}

#[test]
fn generated_weights_cost_their_mean_squares() {
    let decoder = decoder();
    let hypernet = far_from_start(config(&decoder, Arch::M));
    let LoraFactors { modules, .. } = hypernet.generate(conditions(&hypernet.config)).expect("generates");
    let square = |x: &Tensor<4>| f64::from(x.clone().square().mean().into_scalar::<f32>());
    let squares: f64 = modules.iter().map(|m| square(&m.a) + square(&m.b)).sum();
    let with = |l2_generated| loss(&decoder, &hypernet, &LossConfig { l2_generated, ..plain() }, None);
    let found = with(0.5) - with(0.0);
    assert!((found - 0.5 * squares).abs() < 1e-5 * squares.max(1.0), "{found} {squares}");
}

#[test]
fn noise_and_dropout_follow_the_seed_and_only_where_asked_for() {
    let decoder = decoder();
    let shape = HypernetConfig { dropout: 0.0, ..config(&decoder, Arch::L) };
    let hypernet = far_from_start(shape.clone());
    let still = loss(&decoder, &hypernet, &plain(), SEED);
    assert_eq!(still, loss(&decoder, &hypernet, &plain(), None), "nothing is drawn where nothing is asked for");
    let noisy = [LossConfig { neftune_alpha: 5.0, ..plain() }, LossConfig { lora_dropout: 0.3, ..plain() }];
    for settings in &noisy {
        let drawn = loss(&decoder, &hypernet, settings, SEED);
        assert!((drawn - still).abs() > 1e-5, "{settings:?}: {drawn} {still}");
        assert_eq!(drawn, loss(&decoder, &hypernet, settings, SEED));
        let other = SEED.map(|s| StepSeed { step: 9, ..s });
        assert_ne!(drawn, loss(&decoder, &hypernet, settings, other));
        assert_eq!(still, loss(&decoder, &hypernet, settings, None), "validation draws nothing");
    }
    let dropping = far_from_start(HypernetConfig { dropout: 0.3, ..shape });
    assert!((loss(&decoder, &dropping, &plain(), SEED) - still).abs() > 1e-5);
}

#[test]
fn rank_stabilised_scaling_divides_by_the_root_of_the_rank() {
    let decoder = decoder();
    let with = |alpha, use_rslora| {
        let scaling = LoraScaling { alpha, rank: 2, use_rslora };
        let hypernet = far_from_start(HypernetConfig { scaling, ..config(&decoder, Arch::L) });
        loss(&decoder, &hypernet, &plain(), None)
    };
    let (plain, stabilised) = (with(4.0, false), with(4.0, true));
    assert!((plain - stabilised).abs() > 1e-5, "{plain} {stabilised}");
    assert!((stabilised - with(4.0 * 2f64.sqrt(), false)).abs() < 1e-5);
}

/// A multi-task adapter none of whose factors is zero.
fn multitask(config: &HypernetConfig) -> PlainLora {
    let mut lora = PlainLora::new(&config.layout, config.scaling.rank, 11, "", &Device::flex());
    for (i, (_, p)) in lora.parameters.iter_mut().enumerate() {
        p.values = p.values.clone().add_scalar(0.01 * (1 + i) as f32);
    }
    lora
}

#[test]
fn on_top_of_an_adapter_everything_generated_is_that_adapter_at_first() {
    let decoder = decoder();
    for (arch, offset) in
        [Arch::L, Arch::M, Arch::S].into_iter().flat_map(|a| [(a, Offset::Frozen), (a, Offset::Trainable)])
    {
        let shape = HypernetConfig { head_bias: false, offset, ..config(&decoder, arch) };
        let mut hypernet = Hypernet::new(shape, Init::Zero, 1, &Device::flex()).expect("a hypernetwork");
        let lora = multitask(&hypernet.config);
        set_offsets(&mut hypernet, &lora).expect("fits");
        let factors = hypernet.generate(conditions(&hypernet.config)).expect("generates");
        for m in &factors.modules {
            let same = |found: &Tensor<4>, name: String| {
                let expected: Tensor<4> = lora.parameters.get::<3>(&name).unsqueeze();
                let off: f32 = (found.clone() - expected).abs().max().into_scalar();
                assert_eq!(off, 0.0, "{arch:?} {offset:?} {name}");
            };
            same(&m.a, format!("A.{}", m.name));
            same(&m.b, format!("B.{}", m.name));
        }
        // From there the heads learn; the adapter only where it is to.
        let training = decoder.for_training(Products::F32);
        let told = conditions(&hypernet.config);
        let out = sft_step(&training, &hypernet, &batch(), told, &[], &plain(), None).expect("a step");
        let norm = |wanted: &str| -> Option<f64> {
            let position = hypernet.parameters.iter().position(|(name, _)| name == wanted)?;
            Some(global_norm(&vec![out.gradients[position].clone()]))
        };
        assert!(norm("heads.q_proj.weight").is_some_and(|n| n > 0.0), "{arch:?} {offset:?}");
        assert_eq!(norm("AB_offset.B.v_proj").is_some_and(|n| n > 0.0), offset == Offset::Trainable);
    }
}

#[test]
fn an_adapter_of_another_shape_goes_under_nothing() {
    let decoder = decoder();
    let shape = HypernetConfig { head_bias: false, offset: Offset::Frozen, ..config(&decoder, Arch::L) };
    let mut hypernet = Hypernet::new(shape.clone(), Init::Zero, 1, &Device::flex()).expect("a hypernetwork");
    let other = decoder.layout("tiny", &["q_proj"]).expect("a layout");
    let lora = PlainLora::new(&other, 2, 0, "", &Device::flex());
    assert!(set_offsets(&mut hypernet, &lora).is_err());
    let lora = multitask(&shape);
    let mut without = far_from_start(HypernetConfig { offset: Offset::None, ..shape });
    assert!(set_offsets(&mut without, &lora).is_err());
}

/// What a hypernetwork that copies in the last layer adds to all logits for each of these tokens as the quoted word, at
/// every position of a row: `[tokens, positions, vocabulary]`.
fn copied(decoder: &Decoder, tokens: &[usize]) -> Vec<Vec<Vec<f32>>> {
    let device = Device::flex();
    let shape = HypernetConfig { embedding: 16, ..config(decoder, Arch::L) };
    let mut hypernet = Hypernet::new(shape, Init::Ours, 3, &device).expect("a hypernetwork");
    let example = TokenizedExample { prompt: vec![3, 9, 17, 25], response: vec![30, 38] };
    set_from_base(&mut hypernet, decoder, &[&example], 1, 0).expect("copies");
    let batch = TrainBatch::new(&[&example], 1, 0);
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(batch.ids, [1, batch.width]), &device);
    let table = decoder.lm_head().clone();
    let logits = |words: Tensor<2>| {
        let factors = hypernet.generate(words).expect("an adapter");
        let worn = AdapterBatch::from_factors(&factors);
        let hidden = decoder.hidden(decoder.embed(ids.clone()), &[0], None, &worn).expect("runs");
        decoder.logits(hidden)
    };
    let silent = logits(Tensor::zeros([1, 16], &device));
    let added = |&token: &usize| {
        let word = table.clone().narrow(0, token, 1) - table.clone().mean_dim(0);
        let length: f32 = word.clone().powi_scalar(2).sum().sqrt().into_scalar();
        let change = logits(word.mul_scalar(4.0 / length)) - silent.clone();
        let values: Vec<f32> = change.to_data().iter().collect();
        values.chunks(40).map(<[f32]>::to_vec).collect()
    };
    tokens.iter().map(added).collect()
}

#[test]
fn copied_words_become_likelier_from_the_start() {
    let tokens: Vec<usize> = (0..40).collect();
    let (mut more, mut count) = (0, 0);
    for (token, positions) in tokens.iter().zip(copied(&decoder(), &tokens)) {
        for added in positions {
            more += added.iter().filter(|x| **x > added[*token]).count();
            count += added.len();
        }
    }
    // By chance half of the vocabulary would gain more; a random model's projections keep a direction only roughly.
    let share = more as f64 / count as f64;
    println!("{share:.3} of the vocabulary gain more than the word that is copied");
    assert!(share < 0.2, "{share}");
}

#[test]
fn copying_wants_layers_that_are_there_and_weights_that_can_be_read() {
    let decoder = decoder();
    let example = TokenizedExample { prompt: vec![3, 9], response: vec![30] };
    let refused = |decoder: &Decoder, examples: &[&TokenizedExample], layers| {
        let shape = HypernetConfig { embedding: 16, ..config(decoder, Arch::L) };
        let mut hypernet = Hypernet::new(shape, Init::Ours, 3, &Device::flex()).expect("a hypernetwork");
        set_from_base(&mut hypernet, decoder, examples, layers, 0).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(&decoder, &[&example], 3).contains("more than the base model has"));
    assert!(refused(&decoder, &[], 1).contains("no example"));
    assert_eq!(refused(&decoder, &[&example], 2), "");
}

#[test]
fn effects_of_instructions_are_put_back_at_every_position() {
    let (decoder, device) = (decoder(), Device::flex());
    let mut hypernet = Hypernet::new(config(&decoder, Arch::L), Init::Ours, 3, &device).expect("a hypernetwork");
    let example = TokenizedExample { prompt: vec![3, 9, 17, 25], response: vec![30, 38] };
    set_from_base(&mut hypernet, &decoder, &[&example], 0, 1).expect("takes effects");
    // A fresh hypernetwork writes what changes nothing, so that the base model itself is looked at.
    let worn = hypernet.worn_while_instructed().expect("an adapter");
    assert!(worn.modules.iter().all(|m| m.b.to_data().iter::<f32>().all(|x| x == 0.0)));
    let effect: Vec<f32> = (0..8).map(|i| (i as f32 * 1.3).cos()).collect();
    let told = [vec![0.0; WIDTH], effect.clone()].concat();
    let factors =
        hypernet.generate(Tensor::from_data(TensorData::new(told, [1, WIDTH + 8]), &device)).expect("written");
    let batch = TrainBatch::new(&[&example], 1, 0);
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(batch.ids, [1, batch.width]), &device);
    let outputs = |worn: &AdapterBatch| -> Vec<f32> {
        let mut output = Vec::new();
        decoder
            .attention_outputs(decoder.embed(ids.clone()), worn, 1, |last| output.extend(last.to_data().iter::<f32>()))
            .expect("runs");
        output
    };
    let (bare, worn) = (outputs(&AdapterBatch::none(1)), outputs(&AdapterBatch::from_factors(&factors)));
    // One value head of 8 for two query heads, at each of the tokens that said what is constant.
    assert_eq!(bare.len(), batch.width * 16);
    for (i, (bare, worn)) in bare.iter().zip(&worn).enumerate() {
        let (found, expected) = (worn - bare, 0.35 * effect[i % 8]);
        assert!((found - expected).abs() < 0.1 * expected.abs() + 0.02, "{i}: {found} {expected}");
    }
}

#[test]
fn one_look_at_the_base_model_serves_copying_and_effects() {
    let decoder = decoder();
    let example = TokenizedExample { prompt: vec![3, 9, 17, 25], response: vec![30, 38] };
    let row = |name: &str, copying, instructed| -> Vec<f32> {
        let shape = HypernetConfig { embedding: 16, ..config(&decoder, Arch::L) };
        let mut hypernet = Hypernet::new(shape, Init::Ours, 3, &Device::flex()).expect("a hypernetwork");
        set_from_base(&mut hypernet, &decoder, &[&example], copying, instructed).expect("takes both");
        hypernet.parameters.get::<2>(name).to_data().iter().collect()
    };
    assert_eq!(row("copying.A", 2, 1), row("copying.A", 2, 0));
    assert_eq!(row("instructed.A", 2, 1), row("instructed.A", 0, 1));
}

#[test]
fn effects_want_layers_that_are_there() {
    let decoder = decoder();
    let example = TokenizedExample { prompt: vec![3, 9], response: vec![30] };
    let refused = |examples: &[&TokenizedExample], layers| {
        let mut hypernet =
            Hypernet::new(config(&decoder, Arch::L), Init::Ours, 3, &Device::flex()).expect("a hypernetwork");
        set_from_base(&mut hypernet, &decoder, examples, 0, layers).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(&[&example], 3).contains("more than the base model has"));
    assert!(refused(&[], 1).contains("no example"));
    assert_eq!(refused(&[&example], 2), "");
}
