//! Whatever the family and the shape: adapters act as if merged, rows as if alone, cached tokens as if seen at once.

use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use serde_json::json;
use t2l_backbone::{Decoder, GenerateOptions, KvCache, Sampling, WeightType};
use t2l_core::{Adapter, AdapterBatch, LoraWeights};

use super::tiny::{Shape, Tiny, any_shape};
use super::{greedy, ids, values};

/// Share of the largest entry that two ways of adding up the same numbers may be apart, after up to eight layers whose
/// norms divide by what little a few columns hold.
const TOLERANCE: f32 = 3e-4;

/// Fails where two tensors differ by more than `share` of the largest entry.
fn same(what: &str, found: &[f32], expected: &[f32], share: f32) {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() <= share * largest, "{what}: {x} is not {y}, the largest is {largest}");
    }
}

fn tokens(count: usize, vocabulary: usize, salt: u64) -> Vec<i64> {
    (0..count as u64).map(|i| ((i * 7919 + salt * 104_729) % vocabulary as u64) as i64).collect()
}

/// Rows padded on the left to one width, with the number of padding positions of each.
fn padded(rows: &[Vec<i64>]) -> (Vec<Vec<i64>>, Vec<usize>) {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let starts: Vec<usize> = rows.iter().map(|r| width - r.len()).collect();
    let rows = rows.iter().zip(&starts).map(|(r, &s)| [vec![0; s], r.clone()].concat()).collect();
    (rows, starts)
}

fn logits(decoder: &Decoder, rows: &[Vec<i64>], starts: &[usize], adapters: &AdapterBatch) -> Tensor<3> {
    let embedded = decoder.embed(ids(rows, &Device::flex()));
    decoder.logits(decoder.hidden(embedded, starts, None, adapters).expect("runs"))
}

fn wearing(adapters: &[Adapter], rows: &[Option<usize>]) -> AdapterBatch {
    AdapterBatch::from_adapters(&adapters.iter().collect::<Vec<_>>(), rows, &Device::flex()).expect("fits")
}

/// So many cases, or as many as the variable `PROPTEST_CASES` asks for.
fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|asked| asked.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(count))
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn weights_held_in_two_bytes_are_rounded_weights(shape in any_shape(), count in 1usize..24, seed in any::<u64>()) {
        let model = Tiny::new(shape);
        let adapter = model.adapter(seed);
        for held in [WeightType::F16, WeightType::Bf16] {
            let (half, wide) = (model.load_as(held).expect("loads"), model.rounded(held).load().expect("loads"));
            let rows = vec![tokens(count, wide.config().vocab_size, seed)];
            let worn = wearing(std::slice::from_ref(&adapter), &[Some(0)]);
            let [half, wide] = [half, wide].map(|decoder| values(logits(&decoder, &rows, &[0], &worn)));
            same("held in two bytes", &half, &wide, TOLERANCE);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn adapted_is_merged(shape in any_shape(), rows in 1usize..4, count in 1usize..10, seed in any::<u64>()) {
        let model = Tiny::new(shape);
        let adapter = model.adapter(seed);
        let decoder = model.load().expect("loads");
        let merged = model.merged(&adapter).load().expect("loads");
        let vocabulary = decoder.config().vocab_size;
        let rows: Vec<Vec<i64>> = (0..rows as u64).map(|r| tokens(count, vocabulary, r)).collect();
        let starts = vec![0; rows.len()];
        let adapted = logits(&decoder, &rows, &starts, &wearing(&[adapter], &vec![Some(0); rows.len()]));
        let merged = logits(&merged, &rows, &starts, &AdapterBatch::none(rows.len()));
        same("adapted", &values(adapted), &values(merged), TOLERANCE);
    }

    #[test]
    fn what_attention_hands_on_at_the_first_token_is_its_value(shape in any_shape(), count in 1usize..6, seed in any::<u64>()) {
        let decoder = Tiny::new(shape).load().expect("loads");
        let (config, device) = (decoder.config(), Device::flex());
        let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
        let embedded = decoder.embed(ids(&[tokens(count, config.vocab_size, seed)], &device));
        let wave = |rows: usize, columns: usize| -> Tensor<2> {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin()).collect();
            Tensor::from_data(TensorData::new(values, [rows, columns]), &device)
        };
        let (a, b) = (wave(2, config.hidden_size), wave(config.kv_heads * dim, 2));
        let mut adapter = Adapter::new("tiny", false);
        adapter.insert(0, "v_proj", LoraWeights { a: a.clone(), b: b.clone(), alpha: 2.0 });
        let outputs = |adapters: &AdapterBatch| -> Vec<f32> {
            let mut outputs = Vec::new();
            decoder.attention_outputs(embedded.clone(), adapters, 0, |output| outputs.push(output)).expect("runs");
            assert_eq!(outputs.len(), config.layers);
            assert!(outputs.iter().all(|output| output.dims() == [1, count, config.heads * dim]));
            values(outputs[0].clone().narrow(1, 0, 1))
        };
        let (bare, worn) = (outputs(&AdapterBatch::none(1)), outputs(&wearing(&[adapter], &[Some(0)])));
        // One token sees itself alone, so that an update of its value comes out of every query head as it is.
        let first = decoder.attention_inputs(embedded.clone(), &[0]).expect("runs")[0].clone().narrow(1, 0, 1);
        let value = values(first.reshape([1, config.hidden_size]).matmul(a.transpose()).matmul(b.transpose()));
        let added: Vec<f32> = worn.iter().zip(&bare).map(|(worn, bare)| worn - bare).collect();
        let expected: Vec<f32> = (0..config.heads)
            .flat_map(|head| value[head / group * dim..][..dim].iter().copied())
            .collect();
        same("an update of a value", &added, &expected, TOLERANCE);
    }

    #[test]
    fn rows_alone_are_rows_in_company(
        shape in any_shape(),
        rows in prop::collection::vec((1usize..14, prop::option::of(0usize..3)), 1..6),
        seed in any::<u64>(),
    ) {
        let model = Tiny::new(shape);
        let decoder = model.load().expect("loads");
        let adapters: Vec<Adapter> = (0..3).map(|i| model.adapter(seed ^ i)).collect();
        let worn: Vec<Option<usize>> = rows.iter().map(|r| r.1).collect();
        let vocabulary = decoder.config().vocab_size;
        let rows: Vec<Vec<i64>> = rows.iter().zip(0..).map(|(r, salt)| tokens(r.0, vocabulary, salt)).collect();
        let (batch, starts) = padded(&rows);
        let together = logits(&decoder, &batch, &starts, &wearing(&adapters, &worn));
        for (i, row) in rows.iter().enumerate() {
            let alone = logits(&decoder, std::slice::from_ref(row), &[0], &wearing(&adapters, &worn[i..=i]));
            let found = together.clone().narrow(0, i, 1).narrow(1, starts[i], row.len());
            same("row", &values(found), &values(alone), TOLERANCE);
        }
    }

    #[test]
    fn label_losses_are_those_of_the_logits(shape in any_shape(), count in 1usize..10, salt in any::<u64>()) {
        let decoder = Tiny::new(shape).load().expect("loads");
        let vocabulary = decoder.config().vocab_size;
        let row = tokens(count, vocabulary, salt);
        let device = Device::flex();
        let hidden = decoder.hidden(decoder.embed(ids(std::slice::from_ref(&row), &device)), &[0], None, &AdapterBatch::none(1));
        let hidden = hidden.expect("runs");
        let logits = values(decoder.logits(hidden.clone()));
        let width = decoder.config().hidden_size;
        let labels: Tensor<1, Int> = Tensor::from_data(TensorData::new(row.clone(), [count]), &device);
        let found = values(decoder.label_nll(hidden.reshape([count, width]), labels, 0.0));
        let expected = logits.chunks_exact(vocabulary).zip(&row).map(|(logits, &label)| {
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            (sum.ln() - f64::from(logits[label as usize])) as f32
        });
        same("losses", &found, &expected.collect::<Vec<_>>(), TOLERANCE);
    }

    #[test]
    fn cached_is_all_at_once(
        shape in any_shape(),
        lengths in prop::collection::vec(1usize..14, 1..4),
        steps in prop::collection::vec(1usize..5, 1..8),
        seed in any::<u64>(),
    ) {
        let model = Tiny::new(shape);
        let decoder = model.load().expect("loads");
        let device = Device::flex();
        let vocabulary = decoder.config().vocab_size;
        let rows: Vec<Vec<i64>> = lengths.iter().zip(0..).map(|(&n, salt)| tokens(n, vocabulary, salt)).collect();
        let (batch, starts) = padded(&rows);
        let worn: Vec<Option<usize>> = (0..rows.len()).map(|i| (i % 2 == 0).then_some(0)).collect();
        let adapters = wearing(&[model.adapter(seed)], &worn);
        let embedded = decoder.embed(ids(&batch, &device));
        let full = decoder.hidden(embedded.clone(), &starts, None, &adapters).expect("runs");
        let width = batch[0].len();
        let mut cache = KvCache::new(decoder.config(), rows.len(), width, &device);
        let mut parts = vec![];
        let mut steps = steps.into_iter().cycle();
        while cache.len() < width {
            let count = steps.next().unwrap_or(1).min(width - cache.len());
            let part = embedded.clone().narrow(1, cache.len(), count);
            parts.push(decoder.hidden(part, &starts, Some(&mut cache), &adapters).expect("fits"));
        }
        let found = Tensor::cat(parts, 1);
        for (i, row) in rows.iter().enumerate() {
            let real = |x: &Tensor<3>| values(x.clone().narrow(0, i, 1).narrow(1, starts[i], row.len()));
            same("cached", &real(&found), &real(&full), TOLERANCE);
        }
    }

    #[test]
    fn every_greedy_token_is_the_likeliest_of_a_full_pass(
        shape in any_shape(),
        lengths in prop::collection::vec(1usize..10, 1..5),
        limits in prop::collection::vec(0usize..8, 1..5),
        stop in 0u32..4,
        seed in any::<u64>(),
    ) {
        let model = Tiny::new(shape);
        let decoder = model.load().expect("loads");
        let vocabulary = decoder.config().vocab_size;
        let rows: Vec<Vec<i64>> = lengths.iter().zip(0..).map(|(&n, salt)| tokens(n, vocabulary, salt)).collect();
        let worn: Vec<Option<usize>> = (0..rows.len()).map(|i| (i % 3 != 1).then_some(0)).collect();
        let adapter = [model.adapter(seed)];
        let prompts: Vec<Vec<u32>> = rows.iter().map(|r| r.iter().map(|&t| t as u32).collect()).collect();
        let options =
            GenerateOptions { max_new_tokens: limits.clone(), sampling: Sampling::GREEDY, stops: vec![stop] };
        let mut heard = vec![vec![]; rows.len()];
        let answers = decoder
            .generate(&prompts, &wearing(&adapter, &worn), &options, |row, token| heard[row].push(token))
            .expect("generates");
        for (i, answer) in answers.iter().enumerate() {
            prop_assert_eq!(&answer.ids, &heard[i]);
            prop_assert!(!answer.ids.contains(&stop));
            let limit = limits.get(i).or(limits.last()).copied().unwrap_or(0);
            let ended = if answer.stopped { answer.ids.len() < limit } else { answer.ids.len() == limit };
            prop_assert!(ended);
            // The answer again, in one pass over the prompt and itself.
            let mut chosen = answer.ids.clone();
            chosen.extend(answer.stopped.then_some(stop));
            let all: Vec<i64> = rows[i].iter().copied().chain(chosen.iter().map(|&t| i64::from(t))).collect();
            let logits = values(logits(&decoder, &[all], &[0], &wearing(&adapter, &worn[i..=i])));
            for (step, &token) in chosen.iter().enumerate() {
                let row = &logits[(rows[i].len() + step - 1) * vocabulary..][..vocabulary];
                let largest = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
                let scale = row.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                prop_assert!(row[token as usize] >= largest - 1e-4 * scale, "token {} of row {}", step, i);
            }
        }
    }

    #[test]
    fn a_gguf_file_is_the_same_model(shape in any_shape(), count in 1usize..10) {
        let shape = Shape { family: "llama", window: None, ..shape };
        let model = Tiny::new(shape);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, model.gguf()).expect("writes");
        let gguf = Decoder::load(&path, &Device::flex()).expect("loads");
        let decoder = model.load().expect("loads");
        let rows = [tokens(count, decoder.config().vocab_size, 3)];
        let none = AdapterBatch::none(1);
        same("gguf", &values(logits(&gguf, &rows, &[0], &none)), &values(logits(&decoder, &rows, &[0], &none)), 0.0);
    }
}

#[test]
fn a_seed_gives_the_same_answer_again_and_another_seed_another() {
    let shape = Shape::small();
    let decoder = Tiny::new(shape).load().expect("loads");
    let answer = |seed: u64| {
        let sampling = Sampling { temperature: 1.0, top_p: 0.95, seed };
        let options = GenerateOptions { max_new_tokens: vec![20], sampling, stops: vec![] };
        let answers = decoder.generate(&[vec![1, 2, 3]], &AdapterBatch::none(1), &options, |_, _| ());
        answers.expect("generates")[0].ids.clone()
    };
    assert_eq!(answer(7), answer(7));
    assert_ne!(answer(7), answer(8));
    assert_ne!(answer(7), greedy(&decoder, &[vec![1, 2, 3]], &AdapterBatch::none(1), 20)[0]);
}

#[test]
fn rows_keep_the_frequencies_of_a_longer_one_that_ends_first() {
    let shape = Shape::small();
    for scaling in [
        json!({"rope_type": "longrope", "factor": 4.0, "short_factor": [1, 1, 1, 1], "long_factor": [8, 6, 4, 9]}),
        json!({"rope_type": "dynamic", "factor": 8.0}),
    ] {
        let mut model = Tiny::new(shape.clone());
        let dynamic = scaling["rope_type"] == "dynamic";
        model.config.insert("rope_scaling".into(), scaling.clone());
        if dynamic {
            // Dynamic scaling takes this for the original length.
            model.config.insert("max_position_embeddings".into(), json!(8));
        } else {
            model.config.insert("original_max_position_embeddings".into(), json!(8));
        }
        let decoder = model.load().expect("loads");
        let prompts = [(0..14).map(|i| i * 4 + 1).collect::<Vec<u32>>(), vec![7, 9, 40]];
        let answers = |prompts: &[Vec<u32>], limits: Vec<usize>| -> Vec<Vec<u32>> {
            let options = GenerateOptions { max_new_tokens: limits, sampling: Sampling::GREEDY, stops: vec![] };
            let none = AdapterBatch::none(prompts.len());
            let answers = decoder.generate(prompts, &none, &options, |_, _| ()).expect("generates");
            answers.into_iter().map(|answer| answer.ids).collect()
        };
        // The longer row leaves after one token. Up to there and on, the other goes by its length.
        let left = answers(&prompts, vec![1, 24]);
        let device = Device::flex();
        let (rows, starts) = padded(&prompts.clone().map(|p| p.iter().map(|&t| i64::from(t)).collect()));
        let none = AdapterBatch::none(2);
        let mut cache = KvCache::new(decoder.config(), 2, 64, &device);
        decoder.hidden(decoder.embed(ids(&rows, &device)), &starts, Some(&mut cache), &none).expect("runs");
        let mut cache = cache.select(&[1], 40);
        assert_eq!(cache.reach(), 14);
        let none = AdapterBatch::none(1);
        for (step, pair) in left[1].windows(2).enumerate() {
            let next = decoder.embed(ids(&[vec![i64::from(pair[0])]], &device));
            let hidden = decoder.hidden(next, &starts[1..], Some(&mut cache), &none).expect("runs");
            let logits = values(decoder.logits(hidden));
            let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            assert!(logits[pair[1] as usize] >= largest - 1e-4 * largest.abs(), "{scaling}: token {step}");
        }
        if !dynamic {
            // LongRoPE has but two sets of factors: the row is the one that it is beside a row that stays.
            assert_eq!(left[1], answers(&prompts, vec![24, 24])[1]);
            assert_ne!(left[1], answers(&prompts[1..], vec![24])[0]);
        }
    }
}
