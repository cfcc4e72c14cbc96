//! A decoder's last token as an encoder: tiny models, and SmolLM2 where it is.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use t2l_core::{EncodeError, TextEncoder};
use t2l_encoder::{BertEncoder, Encoder, EncoderError, LastTokenEncoder, weights_sha256};
use t2l_testing::{assert_close, fixtures, smollm2};

use crate::tiny::{Tiny, device, values};

/// Words of the vocabulary below.
pub const WORDS: usize = 50;

/// A tiny decoder with a tokenizer of numbered words, the first token of every text its own.
pub fn folder(words: usize) -> tempfile::TempDir {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf-models/qwen2");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    let mut vocabulary: Map<String, Value> = (3..words).map(|i| (format!("w{i}"), json!(i))).collect();
    vocabulary.extend([("<s>".into(), json!(1)), (".".into(), json!(2)), ("?".into(), json!(0))]);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn encoder() -> LastTokenEncoder {
    LastTokenEncoder::load(folder(WORDS).path(), &device()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn alone_as_in_a_batch(texts in prop::collection::vec(prop::collection::vec(3..WORDS, 1..150), 1..8)) {
        let encoder = encoder();
        let text = |words: &Vec<usize>| words.iter().map(|w| format!("w{w}")).collect::<Vec<_>>().join(" ");
        let texts: Vec<String> = texts.iter().map(text).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let together = encoder.encode(&texts).unwrap();
        let rows = values(together.embeddings);
        for ((text, row), cut) in texts.iter().zip(rows.chunks(encoder.width())).zip(together.truncated) {
            let alone = encoder.encode(&[text]).unwrap();
            for (a, b) in row.iter().zip(values(alone.embeddings)) {
                prop_assert!((a - b).abs() <= 1e-5, "{text}: {a} {b}");
            }
            // The first token and the words; the model has 128 positions.
            prop_assert_eq!(alone.truncated, vec![cut]);
            prop_assert_eq!(cut, text.split(' ').count() + 1 > encoder.max_seq_length());
        }
    }
}

#[test]
fn rows_alone_are_rows_in_company_where_rotations_depend_on_the_length() {
    let lists = json!({"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [8, 6, 4, 9],
        "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 9});
    for scaling in [lists, json!({"rope_type": "dynamic", "factor": 8.0, "rope_theta": 1e4})] {
        let folder = folder(WORDS);
        let path = folder.path().join("config.json");
        let mut config = t2l_testing::json(&path);
        if scaling["rope_type"] == "dynamic" {
            config["max_position_embeddings"] = json!(10);
        }
        config["rope_parameters"] = scaling;
        std::fs::write(&path, config.to_string()).unwrap();
        let encoder = LastTokenEncoder::load(folder.path(), &device()).unwrap();
        let (short, long): (Vec<u32>, Vec<u32>) = ((3..11).collect(), (3..20).collect());
        let together = values(encoder.last_states(&[&short, &long, &short[..7]]).unwrap());
        let alone = [&short[..], &long, &short[..7]].map(|row| values(encoder.last_states(&[row]).unwrap())).concat();
        assert_eq!(together, alone);
        // The two lie in one batch, one of them beyond the original length.
        let texts = ["w3 w4 w5 w6 w7 w8 w9 w10", "w3 w4 w5 w6 w7 w8 w9 w10 w11 w12"];
        let together = values(encoder.encode(&texts).unwrap().embeddings);
        let alone = texts.map(|text| values(encoder.encode(&[text]).unwrap().embeddings)).concat();
        assert_eq!(together, alone);
    }
}

#[test]
fn embeddings_tell_texts_apart_and_have_one_length() {
    let encoder = encoder();
    let rows = values(encoder.encode(&["w3 w4", "w4 w3", " w3 w4"]).unwrap().embeddings);
    let [a, b, c] = [0, 1, 2].map(|i| &rows[i * encoder.width()..(i + 1) * encoder.width()]);
    assert_eq!(a, c);
    assert!(a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.1));
    let square: f32 = a.iter().map(|x| x * x).sum();
    assert!((square - encoder.width() as f32).abs() < 1e-3, "{square}");
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let encoder = encoder();
    assert!(matches!(encoder.encode(&["w3", " "]), Err(EncodeError::Empty { index: 1, of: 2 })));
    assert_eq!(encoder.encode(&[]).unwrap().embeddings.dims(), [0, encoder.width()]);
    for rows in [&[][..], &[&[][..]], &[&[3, 64]]] {
        assert!(matches!(encoder.last_states(rows), Err(EncoderError::Batch { .. })));
    }
    // A tokenizer of another model.
    let other = LastTokenEncoder::load(folder(100).path(), &device()).unwrap();
    let error = other.encode(&["w99"]).unwrap_err().to_string();
    assert!(error.contains("token 99") && error.contains("64"), "{error}");
    // Texts of one batch, the second of them at fault.
    let error = other.encode(&["w3", "w99"]).unwrap_err();
    assert!(matches!(error, EncodeError::Tokenize { index: 1, .. }), "{error}");
    let pooled = folder(WORDS);
    std::fs::create_dir(pooled.path().join("1_Pooling")).unwrap();
    std::fs::write(pooled.path().join("1_Pooling/config.json"), r#"{"pooling_mode_mean_tokens": true}"#).unwrap();
    let error = LastTokenEncoder::load(pooled.path(), &device()).unwrap_err().to_string();
    assert!(error.contains("Mean"), "{error}");
}

#[test]
fn either_kind_is_loaded_from_what_is_there() {
    let decoder = folder(WORDS);
    assert!(matches!(Encoder::load(decoder.path(), &device()), Ok(Encoder::LastToken(_))));
    let bert = tempfile::tempdir().unwrap();
    Tiny::bert().write(bert.path());
    let either = Encoder::load(bert.path(), &device()).unwrap().with_id("mine");
    assert!(matches!(either, Encoder::Bert(_)));
    let text = &["add the numbers"];
    let expected = BertEncoder::load(bert.path(), &device()).unwrap().encode(text).unwrap();
    assert_eq!(values(either.encode(text).unwrap().embeddings), values(expected.embeddings));
    assert_eq!((either.id(), either.width()), ("mine", values(either.encode(text).unwrap().embeddings).len()));
    assert!(Encoder::load(decoder.path().join("none"), &device()).is_err());
}

#[test]
fn reference_smollm2_last_token() {
    let Some(root) = fixtures() else { return };
    let path: PathBuf = match smollm2() {
        Ok(path) => path,
        Err(skip) => return println!("0 cases, 1 skipped: smollm2 ({skip})"),
    };
    let encoder = LastTokenEncoder::load(&path, &device()).unwrap();
    assert!(weights_sha256(&path).unwrap().is_some_and(|hash| hash.starts_with("b179c952")));
    let case = t2l_testing::json(&root.join("smollm2/hidden_states.json"));
    let ids: Vec<u32> = case["prompt_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let expected = case["layers"].as_array().unwrap().last().unwrap();
    let expected: Vec<f64> =
        expected["last_pos_first8"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let longer: Vec<u32> = ids.iter().chain(&ids).copied().collect();
    let states = values(encoder.last_states(&[&ids, &longer]).unwrap());
    assert_close("SmolLM2's last state", &states[..8], &expected, 1e-3, 1e-4);
    let texts = ["Translate the sentence into French", "Add the two numbers and answer with the sum alone."];
    let together = values(encoder.encode(&texts).unwrap().embeddings);
    let alone = values(encoder.encode(&texts[..1]).unwrap().embeddings);
    let alone: Vec<f64> = alone.iter().map(|&x| f64::from(x)).collect();
    assert_close("alone as in a batch", &together[..encoder.width()], &alone, 1e-5, 1e-5);
    println!("1 cases, 0 skipped:");
}
