//! A text's embedding is its own: not its neighbours', not its file's.

use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;
use t2l_core::{EncodeError, TextEncoder};
use t2l_encoder::{BertEncoder, MAX_DESCRIPTION_BYTES, Pooling};

use crate::tiny::{POSITIONS, Tiny, WIDTH, WORDS, encode, floats, stored, values};

fn with_pooling(mut tiny: Tiny, modes: &[&str]) -> Tiny {
    let modules = json!([
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    let pooling: serde_json::Map<_, _> = modes.iter().map(|m| (format!("pooling_mode_{m}"), json!(true))).collect();
    tiny.files.insert("modules.json", modules.to_string());
    tiny.files.insert("1_Pooling/config.json", serde_json::Value::from(pooling).to_string());
    tiny
}

fn encoders() -> Vec<BertEncoder> {
    let all = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"];
    [Tiny::bert(), Tiny::gte()].map(|tiny| with_pooling(tiny, &all).load().unwrap()).into()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn alone_as_in_a_batch(texts in prop::collection::vec(prop::collection::vec(0..WORDS.len() - 2, 1..30), 1..12)) {
        let texts: Vec<String> =
            texts.iter().map(|words| words.iter().map(|&w| WORDS[w]).collect::<Vec<_>>().join(" ")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for encoder in encoders() {
            let together = encoder.encode(&texts).unwrap();
            let rows = values(together.embeddings);
            for ((text, row), cut) in texts.iter().zip(rows.chunks(encoder.width())).zip(together.truncated) {
                let alone = encoder.encode(&[text]).unwrap();
                prop_assert!(close(row, &values(alone.embeddings), 1e-5), "{text}");
                prop_assert_eq!(alone.truncated, vec![cut]);
                // [CLS], the words, the full stop, [SEP].
                prop_assert_eq!(cut, text.split(' ').count() + 3 > POSITIONS);
            }
        }
    }
}

#[test]
fn embeddings_have_the_length_of_a_gaussian_one() {
    for encoder in encoders() {
        assert_eq!(encoder.width(), 6 * WIDTH);
        let square: f32 = encode(&encoder, &["add the numbers"]).iter().map(|x| x * x).sum();
        assert!((square - 6.0 * WIDTH as f32).abs() < 1e-3, "{square}");
    }
}

#[test]
fn what_follows_the_limit_does_not_matter() {
    let mut tiny = Tiny::bert();
    tiny.files.insert("sentence_bert_config.json", json!({"max_seq_length": 6, "do_lower_case": false}).to_string());
    let encoder = tiny.load().unwrap();
    assert_eq!(encoder.max_seq_length(), 6);
    assert_eq!(encoder.tokenize("add the numbers").unwrap(), (vec![2, 7, 6, 8, 3], false));
    assert_eq!(encoder.tokenize("Add the number numbers").unwrap(), (vec![2, 7, 6, 1, 8, 3], false));
    assert_eq!(encoder.tokenize("add the numbers into text").unwrap(), (vec![2, 7, 6, 8, 10, 3], true));
    let encoded = encoder.encode(&["add the numbers into text", "add the numbers into french"]).unwrap();
    assert_eq!(encoded.truncated, [true, true]);
    let rows = values(encoded.embeddings);
    assert!(close(&rows[..WIDTH], &rows[WIDTH..], 1e-6));
}

#[test]
fn no_file_says_how_to_pool() {
    assert_eq!(Tiny::bert().load().unwrap().pooling(), [Pooling::Mean]);
    assert_eq!(Tiny::gte().load().unwrap().pooling(), [Pooling::Cls]);
    let newer = json!({"pooling_mode": "lasttoken"}).to_string();
    let mut tiny = Tiny::bert();
    tiny.files.insert("1_Pooling/config.json", newer);
    assert_eq!(tiny.load().unwrap().pooling(), [Pooling::LastToken]);
}

#[test]
fn sentence_embeddings_follow_modules_json() {
    let mut tiny = with_pooling(Tiny::bert(), &["mean_tokens"]);
    let length = |encoder: &BertEncoder| {
        values(encoder.sentence_embeddings(&["add text"]).unwrap().embeddings).iter().map(|x| x * x).sum::<f32>().sqrt()
    };
    let plain = length(&tiny.load().unwrap());
    assert!((plain - 1.0).abs() > 1e-2, "{plain}");
    let modules = tiny.files["modules.json"].replace(']', r#", {"path": "2", "type": "a.Normalize"}]"#);
    tiny.files.insert("modules.json", modules);
    assert!((length(&tiny.load().unwrap()) - 1.0).abs() < 1e-5);
}

/// The same numbers under other names and in other types.
#[test]
fn prefixes_and_types_do_not_matter() {
    let texts = ["translate the text into french", "count"];
    for tiny in [Tiny::bert(), Tiny::gte()] {
        let expected = encode(&tiny.load().unwrap(), &texts);
        let mut prefixed = tiny.clone();
        prefixed.tensors = tiny.tensors.iter().map(|(name, t)| (format!("bert.{name}"), t.clone())).collect();
        assert_eq!(encode(&prefixed.load().unwrap(), &texts), expected);
        for (dtype, tolerance) in [(Dtype::F64, 1e-6), (Dtype::F16, 0.05), (Dtype::BF16, 0.3)] {
            let mut converted = tiny.clone();
            for tensor in converted.tensors.values_mut() {
                let bytes = floats(tensor).into_iter().flat_map(|v| match dtype {
                    Dtype::F64 => f64::from(v).to_le_bytes().to_vec(),
                    Dtype::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                    _ => half::bf16::from_f32(v).to_le_bytes().to_vec(),
                });
                *tensor = (dtype, tensor.1.clone(), bytes.collect());
            }
            assert!(close(&encode(&converted.load().unwrap(), &texts), &expected, tolerance), "{dtype:?}");
        }
    }
}

/// GTE with query, key and value in three tensors.
#[test]
fn packed_and_separate_projections_agree() {
    let tiny = Tiny::gte();
    let mut separate = tiny.clone();
    separate.config["pack_qkv"] = json!(false);
    for layer in 0..2 {
        for kind in ["weight", "bias"] {
            let packed =
                floats(&separate.tensors.remove(&format!("encoder.layer.{layer}.attention.qkv_proj.{kind}")).unwrap());
            let shape: &[usize] = if kind == "weight" { &[WIDTH, WIDTH] } else { &[WIDTH] };
            for (part, values) in ["q_proj", "k_proj", "v_proj"].iter().zip(packed.chunks(packed.len() / 3)) {
                let name = format!("encoder.layer.{layer}.attention.{part}.{kind}");
                separate.tensors.insert(name, stored(shape, values));
            }
        }
    }
    let texts = ["translate the text into french", "count"];
    assert!(close(&encode(&tiny.load().unwrap(), &texts), &encode(&separate.load().unwrap(), &texts), 1e-5));
}

/// RoBERTa's table starts after the padding id; the rows before it are never read.
#[test]
fn roberta_reads_positions_after_the_padding_id() {
    let tiny = Tiny::bert();
    let mut roberta = tiny.clone();
    let name = "embeddings.position_embeddings.weight";
    let rows = [vec![9.0; 2 * WIDTH], floats(&tiny.tensors[name])].concat();
    roberta.tensors.insert(name.into(), stored(&[POSITIONS + 2, WIDTH], &rows));
    roberta.config["model_type"] = json!("xlm-roberta");
    roberta.config["pad_token_id"] = json!(1);
    roberta.config["max_position_embeddings"] = json!(POSITIONS + 2);
    let texts = ["translate the text into french", "count", "add numbers"];
    let (bert, roberta) = (tiny.load().unwrap(), roberta.load().unwrap());
    assert_eq!(roberta.max_seq_length(), POSITIONS);
    assert!(close(&encode(&bert, &texts), &encode(&roberta, &texts), 1e-5));
}

#[test]
fn texts_that_are_no_description() {
    let encoder = Tiny::bert().load().unwrap();
    for text in ["", "  \n\t", "\u{1c}\u{3000}"] {
        assert_eq!(encoder.encode(&["add", text]).unwrap_err(), EncodeError::Empty { index: 1, of: 2 }, "{text:?}");
    }
    // Zero-width characters are cleaned away: nothing but special tokens is left, and that is a text.
    assert_eq!(encoder.tokenize("\u{200b}").unwrap().0, [2, 3]);
    let long = "a".repeat(MAX_DESCRIPTION_BYTES);
    assert_eq!(encoder.encode(&[&long]).unwrap().truncated.len(), 1);
    let longer = format!("{long}a");
    let (bytes, limit) = (MAX_DESCRIPTION_BYTES + 1, MAX_DESCRIPTION_BYTES);
    let error = EncodeError::TooLong { index: 0, of: 1, bytes, limit };
    assert_eq!(encoder.encode(&[&longer]).unwrap_err(), error);
    // Who gave one alone need not count.
    assert_eq!(encoder.encode(&[" "]).unwrap_err().to_string(), "the description is empty");
    assert_eq!(encoder.encode(&["add", " "]).unwrap_err().to_string(), "description 2 is empty");
    assert_eq!(encoder.encode(&[]).unwrap().embeddings.dims(), [0, WIDTH]);
}
