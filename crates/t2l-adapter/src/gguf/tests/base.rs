//! Where the number of heads comes from.

use std::path::Path;

use t2l_gguf::{GgufWriter, Value};

use super::*;

fn config(text: &str) -> Result<BaseShape, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    let named = |e: AdapterError| e.to_string().replace(&path.display().to_string(), "FILE");
    let whole = BaseShape::read(folder.path()).map_err(named);
    assert_eq!(whole, BaseShape::read(&path).map_err(named));
    whole
}

#[test]
fn a_configuration_tells() {
    let heads = r#""num_attention_heads": 9, "num_key_value_heads": 3"#;
    for (kind, architecture) in
        [("llama", "llama"), ("mistral", "llama"), ("qwen3", "qwen3"), ("gemma3_text", "gemma3")]
    {
        let found = config(&format!(r#"{{"model_type": "{kind}", {heads}}}"#)).unwrap();
        assert_eq!(found, BaseShape::new(architecture, 9, 3).unwrap());
    }
    let inside = format!(r#"{{"model_type": "gemma3", "text_config": {{"model_type": "gemma3_text", {heads}}}}}"#);
    assert_eq!(config(&inside).unwrap(), BaseShape::new("gemma3", 9, 3).unwrap());
    let all = r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": null}"#;
    assert_eq!(config(all).unwrap(), BaseShape::new("llama", 4, 4).unwrap());
}

#[test]
fn a_configuration_that_does_not_tell_is_refused() {
    for (text, reason) in [
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{}", "has no model_type"),
        (r#"{"model_type": "mamba"}"#, "model_type \"mamba\" is not supported"),
        (r#"{"model_type": "llama"}"#, "has no num_attention_heads"),
        (r#"{"model_type": "llama", "num_attention_heads": -1}"#, "num_attention_heads must be a whole number"),
        (
            r#"{"model_type": "llama", "num_attention_heads": 0}"#,
            "has 0 heads and 0 key heads; each must be from 1 to 65536",
        ),
        (
            r#"{"model_type": "llama", "num_attention_heads": 9223372036854775808}"#,
            "has 9223372036854775808 heads and 9223372036854775808 key heads; each must be from 1 to 65536",
        ),
        (
            r#"{"model_type": "phi3", "num_attention_heads": 65536, "num_key_value_heads": 1}"#,
            "has 65536 heads and 1 key heads; each key head must serve equally many heads, at most 128",
        ),
        (
            r#"{"model_type": "phi3", "num_attention_heads": 1, "num_key_value_heads": 65536}"#,
            "has 1 heads and 65536 key heads; each key head must serve equally many heads, at most 128",
        ),
        (
            r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 3}"#,
            "has 4 heads and 3 key heads; each key head must serve equally many heads, at most 128",
        ),
    ] {
        assert_eq!(config(text).unwrap_err(), format!("FILE: {reason}"));
    }
    let missing = BaseShape::read(Path::new("/nonexistent/model")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/model"), "{missing}");
}

#[test]
fn a_gguf_model_tells() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let put = |entries: &[(&str, Value)]| {
        let mut writer = GgufWriter::new();
        entries.iter().for_each(|(key, value)| writer.entry(*key, value.clone()));
        let mut bytes = vec![];
        writer.write(&mut bytes, |_| Ok::<_, std::io::Error>(vec![])).unwrap();
        std::fs::write(&path, bytes).unwrap();
        BaseShape::read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
    };
    let architecture = ("general.architecture", Value::String("llama".into()));
    let (heads, kv) = (("llama.attention.head_count", Value::U32(9)), ("llama.attention.head_count_kv", Value::U32(3)));
    assert_eq!(put(&[architecture.clone(), heads.clone(), kv]), Ok(BaseShape::new("llama", 9, 3).unwrap()));
    assert_eq!(put(&[architecture.clone(), heads]), Ok(BaseShape::new("llama", 9, 9).unwrap()));
    assert_eq!(put(&[architecture]), Err("FILE: has no attention.head_count".into()));
    let other = ("general.architecture", Value::String("mamba".into()));
    assert_eq!(put(&[other]), Err("FILE: architecture \"mamba\" is not supported".into()));
}
