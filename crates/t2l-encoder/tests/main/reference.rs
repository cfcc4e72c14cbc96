//! Numbers of the published implementation.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use serde_json::Value;
use t2l_backbone::{Decoder, tokenizer::ModelTokenizer};
use t2l_core::{AdapterBatch, TextEncoder};
use t2l_encoder::config::{Naming, Positions};
use t2l_encoder::pooling::normalise;
use t2l_encoder::rope::Rope;
use t2l_encoder::{BertEncoder, BertModel, EncoderError, LastTokenEncoder, Pooling, TokenBatch, format_description};
use t2l_testing::{Cases, Skip, assert_close, fixtures, json, minilm, tensors};
use tokenizers::{Tokenizer, models::bpe::BPE};

use crate::tiny::{device, values};

const ATOL: f64 = 2e-5;
const RTOL: f64 = 1e-4;

#[test]
fn reference_encoders() {
    let Some(root) = fixtures() else { return };
    let area = root.join("encoders");
    if !area.exists() {
        println!("0 cases, 0 skipped: {} is not there", area.display());
        return;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&area).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    let mut cases = Cases::default();
    for folder in folders {
        let outcome = if folder.join("texts.json").exists() { sentences(&folder) } else { small_encoder(&folder) };
        cases.record(&name(&folder), outcome);
    }
    cases.finish(&area);
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// A decoder's last token, from rows padded on either side.
fn last_token(folder: &Path, model: &str) {
    let decoder = Decoder::load(&folder.join(model), &device()).unwrap();
    let nothing = Tokenizer::new(BPE::default()).to_string(false).unwrap();
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tokenizer.json"), nothing).unwrap();
    let tokenizer = ModelTokenizer::from_tokenizer_json(place.path().join("tokenizer.json")).unwrap();
    let encoder = LastTokenEncoder::new("tiny", decoder.clone(), tokenizer);
    let io = tensors(&folder.join("io.safetensors"));
    for side in ["left", "right"] {
        let at = |name: &str| &io[&format!("{side}.{name}")];
        let (ids, mask) = (at("input_ids"), at("attention_mask"));
        let width = ids.shape[1];
        let rows: Vec<Vec<u32>> = ids
            .i64()
            .chunks(width)
            .zip(mask.i64().chunks(width))
            .map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, real)| **real == 1).map(|(&id, _)| id as u32).collect())
            .collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let states = encoder.last_states(&rows).unwrap();
        assert_close(side, &values(states.clone()), &at("last_token_hidden").values, ATOL, RTOL);
        let scaled = normalise(states).mul_scalar((encoder.width() as f64).sqrt());
        assert_close(side, &values(scaled), &at("task_emb").values, ATOL, RTOL);
        // The decoder itself gives the same for rows padded on the left.
        if side == "left" {
            let starts: Vec<usize> = rows.iter().map(|row| width - row.len()).collect();
            let ids = Tensor::from_data(TensorData::new(ids.i64(), [rows.len(), width]), &device());
            let none = AdapterBatch::none(rows.len());
            let all = decoder.hidden(decoder.embed(ids), &starts, None, &none).unwrap();
            let last = values(all.narrow(1, width - 1, 1));
            assert_close("left-padded", &last, &at("last_token_hidden").values, ATOL, RTOL);
        }
    }
}

/// A model small enough to lie beside its numbers: token ids in, states and pooled vectors out.
fn small_encoder(folder: &Path) -> Result<(), Skip> {
    let case = name(folder);
    let device = device();
    let config = json(&folder.join("config.json"));
    if config["pooling"] == "last_token" {
        last_token(folder, config["model"].as_str().expect("a model"));
        return Ok(());
    }
    let model = match BertModel::load(folder, &device) {
        Err(EncoderError::UnsupportedFamily { .. }) => return Err(Skip::UnsupportedFamily),
        model => model.unwrap(),
    };
    assert_eq!(matches!(model.config().naming, Naming::Gte { .. }), config["model_type"] == "new", "{case}");
    let io = tensors(&folder.join("io.safetensors"));
    let ids = &io["input_ids"];
    let types = io.get("token_type_ids").map_or_else(|| vec![0; ids.values.len()], |t| t.i64());
    let real: Vec<bool> = io["attention_mask"].values.iter().map(|&m| m != 0.0).collect();
    let tokens = TokenBatch::new(ids.shape[1], ids.i64(), types, real.clone()).unwrap();
    let width = model.config().hidden_size;

    let states = model.hidden_states(&tokens).unwrap();
    let last = states.last().unwrap().clone();
    let (found, expected) = (values(last.clone()), &io["last_hidden_state"].values);
    assert_eq!(found.len(), expected.len(), "{case}");
    for (token, _) in real.iter().enumerate().filter(|(_, r)| **r) {
        let at = token * width..(token + 1) * width;
        assert_close(&format!("{case} token {token}"), &found[at.clone()], &expected[at], ATOL, RTOL);
    }
    for (stream, expected) in io.iter().filter(|(name, _)| name.contains(".hidden_states.")) {
        let (row, layer) = stream.strip_prefix("row").unwrap().split_once(".hidden_states.").unwrap();
        let (row, layer): (usize, usize) = (row.parse().unwrap(), layer.parse().unwrap());
        let found = states[layer].clone().narrow(0, row, 1).narrow(1, 0, expected.shape[0]);
        assert_close(&format!("{case} {stream}"), &values(found), &expected.values, ATOL, RTOL);
    }
    if let Positions::Rotary { theta, ntk } = model.config().positions {
        let expected = &io["rope_cos_first16"];
        let (cos, sin) = Rope::new(model.config().head_dim(), theta, ntk, expected.shape[0], &device).tables();
        assert_close(&format!("{case} cos"), &values(cos), &expected.values, ATOL, RTOL);
        assert_close(&format!("{case} sin"), &values(sin), &io["rope_sin_first16"].values, ATOL, RTOL);
    }
    let mut pooled = 0;
    for (pooling, key) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean"), (Pooling::Max, "max")] {
        let vectors = pooling.pool(last.clone(), &tokens);
        let mut compare = |suffix: &str, found: Tensor<2>| {
            let key = format!("{key}{suffix}");
            if let Some(expected) = io.get(&key) {
                assert_close(&format!("{case} {key}"), &values(found), &expected.values, ATOL, RTOL);
                pooled += 1;
            }
        };
        compare("", vectors.clone());
        compare("_normalised", normalise(vectors.clone()));
        compare("_t2l", normalise(vectors).mul_scalar((width as f64).sqrt()));
    }
    assert!(pooled > 0, "{case}: no pooled vector to compare");
    Ok(())
}

/// A published model, whose weights are elsewhere: texts in, embeddings out.
fn sentences(folder: &Path) -> Result<(), Skip> {
    let facts = json(&folder.join("texts.json"));
    if !facts["model"].as_str().unwrap().contains("all-MiniLM-L6-v2") {
        return Err(Skip::ModelNotFetched);
    }
    let model = minilm()?;
    sentence_encoder(folder, &facts, &model);
    let copy = tempfile::tempdir().unwrap();
    with_vocabulary_only(&model, copy.path());
    token_ids(&BertEncoder::load(copy.path(), &device()).unwrap(), &facts);
    Ok(())
}

/// The same model with a vocab.txt in place of its tokenizer.json.
fn with_vocabulary_only(model: &Path, copy: &Path) {
    for file in ["config.json", "model.safetensors", "sentence_bert_config.json"] {
        std::fs::copy(model.join(file), copy.join(file)).unwrap();
    }
    let vocab = json(&model.join("tokenizer.json"))["model"]["vocab"].clone();
    let mut tokens: Vec<(u64, &String)> =
        vocab.as_object().unwrap().iter().map(|(t, id)| (id.as_u64().unwrap(), t)).collect();
    tokens.sort();
    let lines: Vec<String> = tokens.into_iter().map(|(_, token)| format!("{token}\n")).collect();
    std::fs::write(copy.join("vocab.txt"), lines.concat()).unwrap();
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

    let expected = tensors(&folder.join("embeddings.safetensors"));
    let plain = encoder.sentence_embeddings(&texts).unwrap();
    assert_close("raw", &values(plain.embeddings), &expected["raw"].values, 1e-5, 0.0);
    let scaled = values(encoder.encode(&texts).unwrap().embeddings);
    // The scaled embedding is sqrt(width) times larger, and so is its noise.
    let scale = (encoder.width() as f64).sqrt();
    assert_close("formatted_t2l", &scaled, &expected["formatted_t2l"].values, 1e-5 * scale, 0.0);
    let unscaled: Vec<f32> = scaled.iter().map(|x| x / scale as f32).collect();
    assert_close("formatted", &unscaled, &expected["formatted"].values, 1e-5, 0.0);
}
