//! Numbers of the published implementation.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use serde_json::Value;
use t2l_core::TextEncoder;
use t2l_encoder::config::{Naming, Positions};
use t2l_encoder::pooling::normalise;
use t2l_encoder::rope::Rope;
use t2l_encoder::{BertEncoder, BertModel, EncoderError, Pooling, TokenBatch, format_description};

use crate::support::{Io, assert_close, device, fixtures, minilm, values};

const ATOL: f32 = 2e-5;
const RTOL: f32 = 1e-4;

/// What became of a case.
enum Outcome {
    Passed,
    Skipped(String),
}

#[test]
fn reference_encoders() {
    let Some(root) = fixtures() else { return };
    let Ok(entries) = std::fs::read_dir(root.join("encoders")) else {
        println!("no encoders among the reference cases: nothing compared");
        return;
    };
    let mut folders: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    let (mut cases, mut skipped) = (0, vec![]);
    for folder in folders {
        let outcome = if folder.join("texts.json").exists() { sentences(&folder) } else { small_encoder(&folder) };
        match outcome {
            Outcome::Passed => cases += 1,
            Outcome::Skipped(why) => skipped.push(format!("{} ({why})", name(&folder))),
        }
    }
    let colon = if skipped.is_empty() { "" } else { ": " };
    println!("{cases} cases, {} skipped{colon}{}", skipped.len(), skipped.join(", "));
    assert!(cases > 0, "no case in a folder that exists");
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A model small enough to lie beside its numbers: token ids in, states and pooled vectors out.
fn small_encoder(folder: &Path) -> Outcome {
    let case = name(folder);
    let device = device();
    let config = json(&folder.join("config.json"));
    if config["pooling"] == "last_token" {
        return Outcome::Skipped("unsupported family: decoder last token".into());
    }
    let model = match BertModel::load(folder, &device) {
        Err(EncoderError::UnsupportedFamily { model_type, .. }) => {
            return Outcome::Skipped(format!("unsupported family: {model_type}"));
        }
        model => model.unwrap(),
    };
    assert_eq!(matches!(model.config().naming, Naming::Gte { .. }), config["model_type"] == "new", "{case}");
    let io = Io::open(&folder.join("io.safetensors"));
    let (shape, ids) = io.i64("input_ids");
    let length = shape[1];
    let types = if io.has("token_type_ids") { io.i64("token_type_ids").1 } else { vec![0; ids.len()] };
    let real: Vec<bool> = io.i64("attention_mask").1.iter().map(|&m| m != 0).collect();
    let tokens = TokenBatch::new(length, ids, types, real.clone()).unwrap();
    let width = model.config().hidden_size;

    let states = model.hidden_states(&tokens).unwrap();
    let last = states.last().unwrap().clone();
    let (_, expected) = io.f32("last_hidden_state");
    let found = values(last.clone());
    for (token, _) in real.iter().enumerate().filter(|(_, r)| **r) {
        let at = token * width..(token + 1) * width;
        assert_close(&format!("{case} token {token}"), &found[at.clone()], &expected[at], ATOL, RTOL);
    }
    for stream in io.names().iter().filter(|n| n.contains(".hidden_states.")) {
        let (row, layer) = stream.strip_prefix("row").unwrap().split_once(".hidden_states.").unwrap();
        let (row, layer): (usize, usize) = (row.parse().unwrap(), layer.parse().unwrap());
        let (shape, expected) = io.f32(stream);
        let found = states[layer].clone().narrow(0, row, 1).narrow(1, 0, shape[0]);
        assert_close(&format!("{case} {stream}"), &values(found), &expected, ATOL, RTOL);
    }
    if let Positions::Rotary { theta, ntk } = model.config().positions {
        let (shape, expected) = io.f32("rope_cos_first16");
        let (cos, sin) = Rope::new(model.config().head_dim(), theta, ntk, shape[0], &device).tables();
        assert_close(&format!("{case} cos"), &values(cos), &expected, ATOL, RTOL);
        assert_close(&format!("{case} sin"), &values(sin), &io.f32("rope_sin_first16").1, ATOL, RTOL);
    }
    let mut pooled = 0;
    for (pooling, key) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean"), (Pooling::Max, "max")] {
        let vectors = pooling.pool(last.clone(), &tokens);
        let compare = |suffix: &str, found: Tensor<2>| {
            let key = format!("{key}{suffix}");
            if !io.has(&key) {
                return 0;
            }
            assert_close(&format!("{case} {key}"), &values(found), &io.f32(&key).1, ATOL, RTOL);
            1
        };
        pooled += compare("", vectors.clone());
        pooled += compare("_normalised", normalise(vectors.clone()));
        pooled += compare("_t2l", normalise(vectors).mul_scalar((width as f64).sqrt()));
    }
    assert!(pooled > 0, "{case}: no pooled vector to compare");
    Outcome::Passed
}

/// A published model, whose weights are elsewhere: texts in, embeddings out.
fn sentences(folder: &Path) -> Outcome {
    let facts = json(&folder.join("texts.json"));
    match minilm().filter(|_| facts["model"].as_str().unwrap().contains("all-MiniLM-L6-v2")) {
        None => Outcome::Skipped("model not fetched".into()),
        Some(model) => {
            sentence_encoder(folder, &facts, &model);
            let copy = tempfile::tempdir().unwrap();
            without_tokenizer_json(&model, copy.path());
            token_ids(&BertEncoder::load(copy.path(), &device()).unwrap(), &facts);
            Outcome::Passed
        }
    }
}

/// The same model with vocab.txt only.
fn without_tokenizer_json(model: &Path, copy: &Path) {
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "sentence_bert_config.json"]
    {
        std::fs::copy(model.join(file), copy.join(file)).unwrap();
    }
}

fn strings(facts: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(facts[key].clone()).unwrap()
}

fn token_ids(encoder: &BertEncoder, facts: &Value) {
    assert_eq!(encoder.max_seq_length() as u64, facts["max_seq_length"].as_u64().unwrap());
    for (texts, ids) in [("texts", "input_ids"), ("texts_after_add_full_stop", "input_ids_formatted")] {
        let ids: Vec<Vec<u32>> = serde_json::from_value(facts[ids].clone()).unwrap();
        let texts = strings(facts, texts);
        assert_eq!(texts.len(), ids.len());
        for (text, expected) in texts.iter().zip(ids) {
            let (found, truncated) = encoder.tokenize(text).unwrap();
            assert_eq!(found, expected, "{text:?}");
            assert!(!truncated || found.len() == encoder.max_seq_length(), "{text:?}");
        }
    }
}

fn sentence_encoder(folder: &Path, facts: &Value, model: &Path) {
    let encoder = BertEncoder::load(model, &device()).unwrap();
    token_ids(&encoder, facts);
    let texts = strings(facts, "texts");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let formatted: Vec<String> = texts.iter().map(|t| format_description(t)).collect();
    assert_eq!(formatted, strings(facts, "texts_after_add_full_stop"));

    let io = Io::open(&folder.join("embeddings.safetensors"));
    let plain = encoder.sentence_embeddings(&texts).unwrap();
    let encoded = encoder.encode(&texts).unwrap();
    let worst = assert_close("raw", &values(plain.embeddings), &io.f32("raw").1, 1e-5, 0.0);
    // The scaled embedding is sqrt(384) times larger, and so is its noise.
    let expected = io.f32("formatted_t2l").1;
    let found = values(encoded.embeddings);
    let scale = (encoder.width() as f32).sqrt();
    let scaled = assert_close("formatted_t2l", &found, &expected, 1e-5 * scale, 0.0);
    for (found, expected) in found.chunks(encoder.width()).zip(expected.chunks(encoder.width())) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
        assert!(cosine > 0.99999, "cosine {cosine}");
    }
    println!("largest difference: {worst:.2e} plain, {scaled:.2e} scaled");
}
