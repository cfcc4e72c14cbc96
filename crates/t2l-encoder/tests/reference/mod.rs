//! Numbers of the published implementation.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use serde_json::Value;
use t2l_core::TextEncoder;
use t2l_encoder::config::{EncoderConfig, Naming, Positions};
use t2l_encoder::pooling::normalise;
use t2l_encoder::rope::Rope;
use t2l_encoder::{BertEncoder, BertModel, Pooling, TokenBatch, format_description};

use crate::support::{Io, assert_close, device, fixtures, minilm, values};

const ATOL: f32 = 2e-5;
const RTOL: f32 = 1e-4;

/// Sub-folders of encoders/ that hold a file of that name.
fn folders(root: &Path, file: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("encoders")) else { return vec![] };
    let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.join(file).exists()).collect();
    found.sort();
    found
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

fn report(cases: usize, skipped: &[(String, String)]) {
    let list: Vec<String> = skipped.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    let colon = if skipped.is_empty() { "" } else { ": " };
    println!("{cases} cases, {} skipped{colon}{}", skipped.len(), list.join(", "));
    assert!(cases + skipped.len() > 0, "no case in a folder that exists");
}

#[test]
fn reference_small_encoders() {
    let Some(root) = fixtures() else { return };
    let (mut cases, mut skipped) = (0, vec![]);
    for folder in folders(&root, "config.json") {
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        if config.get("model").is_some() && config["pooling"] == "last_token" {
            skipped.push((name(&folder), "unsupported family: decoder last token".into()));
            continue;
        }
        small_encoder(&folder);
        cases += 1;
    }
    report(cases, &skipped);
}

fn small_encoder(folder: &Path) {
    let case = name(folder);
    let device = device();
    let model = BertModel::load(folder, &device).unwrap();
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
    for (pooling, key) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean")] {
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
}

#[test]
fn reference_minilm() {
    let Some(root) = fixtures() else { return };
    let (mut cases, mut skipped) = (0, vec![]);
    for folder in folders(&root, "texts.json") {
        match minilm() {
            None => skipped.push((name(&folder), "model not fetched".to_owned())),
            Some(model) => {
                sentence_encoder(&folder, &model);
                cases += 1;
            }
        }
    }
    report(cases, &skipped);
}

fn sentence_encoder(folder: &Path, model: &Path) {
    let encoder = BertEncoder::load(model, &device()).unwrap();
    let facts: Value = serde_json::from_slice(&std::fs::read(folder.join("texts.json")).unwrap()).unwrap();
    let strings = |key: &str| -> Vec<String> { serde_json::from_value(facts[key].clone()).unwrap() };
    let ids = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(facts[key].clone()).unwrap() };
    assert_eq!(encoder.max_seq_length() as u64, facts["max_seq_length"].as_u64().unwrap());

    let texts = strings("texts");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let formatted: Vec<String> = texts.iter().map(|t| format_description(t)).collect();
    assert_eq!(formatted, strings("texts_after_add_full_stop"));
    for (texts, expected) in [
        (texts.clone(), ids("input_ids")),
        (formatted.iter().map(String::as_str).collect(), ids("input_ids_formatted")),
    ] {
        for (text, expected) in texts.iter().zip(expected) {
            let (found, truncated) = encoder.tokenize(text).unwrap();
            assert_eq!(found, expected, "{text:?}");
            assert!(!truncated || found.len() == encoder.max_seq_length(), "{text:?}");
        }
    }

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

#[test]
fn reference_configs_name_their_family() {
    let Some(root) = fixtures() else { return };
    let mut cases = 0;
    for folder in folders(&root, "model.safetensors") {
        let path = folder.join("config.json");
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let read = EncoderConfig::read(&path).unwrap();
        assert_eq!(matches!(read.naming, Naming::Gte { .. }), config["model_type"] == "new", "{}", name(&folder));
        cases += 1;
    }
    report(cases, &[]);
}
