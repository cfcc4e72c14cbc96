//! Files that lie: each is refused with an error that names the file and what is wrong in it.

use serde_json::{Value, json};
use t2l_core::TextEncoder;
use t2l_encoder::{BertModel, EncoderError, TokenBatch};

use crate::tiny::{Tiny, WIDTH, device, floats, stored};

fn refused(what: &str, tiny: &Tiny, file: &str, reason: &str) -> EncoderError {
    let error = tiny.load().map(|encoder| encoder.id().to_owned()).expect_err(what);
    let text = error.to_string();
    assert!(text.contains(file) && text.contains(reason), "{what}: {text}");
    error
}

#[test]
fn sizes_that_cannot_be() {
    for (field, value, file, reason) in [
        ("vocab_size", json!(0), "config.json", "vocab_size"),
        ("vocab_size", json!(u64::MAX), "config.json", "vocab_size"),
        ("vocab_size", json!(1 << 23), "model.safetensors", "embeddings.word_embeddings.weight"),
        ("hidden_size", json!(-8), "config.json", "integer"),
        ("hidden_size", json!(1u64 << 40), "config.json", "hidden_size"),
        ("hidden_size", json!(16), "model.safetensors", "embeddings.word_embeddings.weight"),
        ("hidden_size", json!("8"), "config.json", "string"),
        ("num_hidden_layers", json!(1_000_000), "model.safetensors", "encoder.layer.2."),
        ("num_attention_heads", json!(3), "config.json", "num_attention_heads"),
        ("num_attention_heads", json!(0), "config.json", "num_attention_heads"),
        ("intermediate_size", json!(1 << 20), "model.safetensors", "encoder.layer.0."),
        ("type_vocab_size", json!(1u64 << 60), "config.json", "type_vocab_size"),
        ("layer_norm_eps", json!(-1.0), "config.json", "layer_norm_eps"),
        ("hidden_act", json!("mish"), "config.json", "hidden_act"),
        ("layer_norm_type", json!("rms_norm"), "config.json", "layer_norm_type"),
        ("logn_attention_scale", json!(true), "config.json", "logn_attention_scale"),
        ("position_embedding_type", json!("relative_key"), "config.json", "position_embedding_type"),
        ("model_type", json!("llama"), "config.json", "llama"),
    ] {
        for mut tiny in [Tiny::bert(), Tiny::gte()] {
            tiny.config[field] = value.clone();
            refused(&format!("{field} = {value}"), &tiny, file, reason);
        }
    }
    let mut tiny = Tiny::bert();
    tiny.config["max_position_embeddings"] = json!(1 << 22);
    refused("positions", &tiny, "model.safetensors", "embeddings.position_embeddings.weight");
    tiny.config["max_position_embeddings"] = json!(2);
    tiny.config["model_type"] = json!("roberta");
    refused("padding", &tiny, "config.json", "max_position_embeddings");
    for (field, value, reason) in [
        ("rope_theta", json!(0.0), "rope_theta"),
        ("rope_scaling", json!({"type": "ntk", "factor": -2.0}), "factor"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
        ("num_attention_heads", json!(8), "even"),
    ] {
        let mut tiny = Tiny::gte();
        tiny.config[field] = value;
        refused(field, &tiny, "config.json", reason);
    }
}

#[test]
fn weights_that_lie() {
    for tiny in [Tiny::bert(), Tiny::gte()] {
        for name in tiny.tensors.keys() {
            let mut missing = tiny.clone();
            missing.tensors.remove(name);
            let error = refused(name, &missing, "model.safetensors", name);
            assert!(matches!(error, EncoderError::MissingTensor { .. }), "{error}");

            let mut longer = tiny.clone();
            let values = floats(&tiny.tensors[name]);
            longer.tensors.insert(name.clone(), stored(&[values.len() + 1], &[values.clone(), vec![0.0]].concat()));
            let error = refused(name, &longer, "model.safetensors", name);
            assert!(matches!(error, EncoderError::Shape { .. }), "{error}");

            for bad in [f32::NAN, f32::INFINITY] {
                let mut broken = tiny.clone();
                let mut values = values.clone();
                *values.last_mut().unwrap() = bad;
                broken.tensors.insert(name.clone(), stored(&tiny.tensors[name].1, &values));
                let error = refused(name, &broken, "model.safetensors", name);
                assert!(matches!(error, EncoderError::Tensor { .. }), "{error}");
            }
        }
        let mut twice = tiny.clone();
        let words = "embeddings.word_embeddings.weight";
        twice.tensors.insert(format!("bert.{words}"), tiny.tensors[words].clone());
        refused("two tables", &twice, "model.safetensors", "two tables");
        let mut integers = tiny.clone();
        integers.tensors.get_mut(words).unwrap().0 = safetensors::Dtype::I32;
        refused("integers", &integers, "model.safetensors", words);
    }
}

#[test]
fn cut_and_damaged_weight_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tiny = Tiny::bert();
    tiny.write(folder.path());
    let good = tiny.weights();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for length in (0..header).step_by(37).chain((header..good.len()).step_by(501)) {
        std::fs::write(&path, &good[..length]).unwrap();
        BertModel::load(folder.path(), &device()).unwrap_err();
    }
    for claimed in [u64::MAX, 1 << 62, good.len() as u64, 0] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let error = BertModel::load(folder.path(), &device()).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    for at in (0..header).step_by(11) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        std::fs::write(&path, &bytes).unwrap();
        // No crash; the names that are left may still be all that is needed.
        let _ = BertModel::load(folder.path(), &device());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(BertModel::load(folder.path(), &device()), Err(EncoderError::Io { .. })));
}

#[test]
fn tokenizers_that_do_not_work() {
    let mut tiny = Tiny::bert();
    tiny.files.insert("tokenizer.json", "{".into());
    refused("half a file", &tiny, "tokenizer.json", "EOF");
    let pieces = json!({
        "type": "BPE", "continuing_subword_prefix": "@", "vocab": {"a": 0, "é": 1}, "merges": ["a é"],
    });
    tiny.files.insert("tokenizer.json", json!({ "model": pieces }).to_string());
    refused("a prefix that cuts a letter", &tiny, "tokenizer.json", "is not a consistent tokenizer");

    let words = json!({"type": "WordLevel", "vocab": {"[UNK]": 0, "add": 1}, "unk_token": "[UNK]"});
    let with = |model: &Value, post: Value| {
        let split = json!({"type": "Whitespace"});
        json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "model": model, "post_processor": post})
    };
    let template = |ids: Value| {
        let single = json!([{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
        json!({"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": ids})
    };
    let special = |id: u32| json!({"[CLS]": {"id": "[CLS]", "ids": [id], "tokens": ["[CLS]"]}});

    tiny.files.insert("tokenizer.json", with(&words, template(special(2))).to_string());
    let encoder = tiny.load().unwrap();
    assert_eq!(encoder.tokenize("add it").unwrap().0, [2, 1, 0]);
    tiny.files.insert("tokenizer.json", with(&words, template(special(16))).to_string());
    refused("a special token beyond the table", &tiny, "tokenizer.json", "16");
    tiny.files.insert("tokenizer.json", with(&words, template(json!({}))).to_string());
    refused("a template without its token", &tiny, "tokenizer.json", "");
    let beyond = json!({"type": "WordLevel", "vocab": {"[UNK]": 0, "add": 99}, "unk_token": "[UNK]"});
    tiny.files.insert("tokenizer.json", with(&beyond, Value::Null).to_string());
    refused("a word beyond the table", &tiny, "tokenizer.json", "99");
    let unknown = json!({"type": "WordLevel", "vocab": {"add": 1}, "unk_token": "[UNK]"});
    tiny.files.insert("tokenizer.json", with(&unknown, Value::Null).to_string());
    let encoder = tiny.load().unwrap();
    assert_eq!(encoder.tokenize("add").unwrap().0, [1]);
    let error = encoder.sentence_embeddings(&["add", "subtract"]).unwrap_err();
    assert!(matches!(error, t2l_core::EncodeError::Tokenize { index: 1, .. }), "{error}");

    let mut tiny = Tiny::bert();
    tiny.files.insert("vocab.txt", "add\n[CLS]\n[UNK]\n".into());
    refused("no [SEP]", &tiny, "vocab.txt", "[SEP]");
    tiny.files.insert(
        "vocab.txt",
        ["[CLS]", "[SEP]", "[UNK]"]
            .into_iter()
            .map(String::from)
            .chain((0..14).map(|i| i.to_string()))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    refused("too many words", &tiny, "vocab.txt", "16");
    tiny.files.remove("vocab.txt");
    refused("no tokenizer", &tiny, "tokenizer.json", "");
}

#[test]
fn sentence_files_that_lie() {
    for (file, text, reason) in [
        ("modules.json", r#"[{"path": "../elsewhere", "type": "a.Pooling"}]"#, "out of the folder"),
        ("modules.json", r#"[{"path": "/etc", "type": "a.Transformer"}]"#, "out of the folder"),
        ("modules.json", r#"[{"path": "2_Dense", "type": "a.Dense"}]"#, "Dense"),
        ("modules.json", "[{", "EOF"),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": false}"#, "pooling_mode"),
        ("1_Pooling/config.json", r#"{"pooling_mode": "best"}"#, "best"),
        ("sentence_bert_config.json", r#"{"max_seq_length": -1}"#, "integer"),
    ] {
        let mut tiny = Tiny::bert();
        tiny.files.insert(file, text.into());
        refused(text, &tiny, file, reason);
    }
    for length in [0, 1, 2] {
        let mut tiny = Tiny::bert();
        tiny.files.insert("sentence_bert_config.json", json!({"max_seq_length": length}).to_string());
        refused("no room", &tiny, "vocab.txt", "max_seq_length");
    }
}

#[test]
fn token_batches_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::bert().write(folder.path());
    let model = BertModel::load(folder.path(), &device()).unwrap();
    let forward = |ids: &[i64], kind: i64| {
        let batch = TokenBatch::new(ids.len(), ids.to_vec(), vec![kind; ids.len()], vec![true; ids.len()]);
        model.forward(&batch.unwrap()).map(|states| states.dims())
    };
    assert_eq!(forward(&[1, 2, 15], 1).unwrap(), [1, 3, WIDTH]);
    for (ids, kind, reason) in [
        (vec![16], 0, "token id 16"),
        (vec![-1], 0, "token id -1"),
        (vec![1], 2, "token type 2"),
        (vec![1; 25], 0, "25 tokens"),
    ] {
        assert!(forward(&ids, kind).unwrap_err().to_string().contains(reason));
    }
    TokenBatch::new(0, vec![], vec![], vec![]).unwrap_err();
    TokenBatch::new(2, vec![1; 3], vec![0; 3], vec![true; 3]).unwrap_err();
    TokenBatch::new(2, vec![1; 2], vec![0; 2], vec![false; 2]).unwrap_err();
    TokenBatch::padded(&[&[1], &[]], 0).unwrap_err();
    TokenBatch::padded(&[], 0).unwrap_err();
}
