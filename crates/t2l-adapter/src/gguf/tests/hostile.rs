//! Files that are no LoRA, or lie about being one. What any GGUF file can get wrong is tested where they are read.

use proptest::prelude::*;
use t2l_gguf::{GgufWriter, Value, WrittenType};

use super::*;

/// A file as llama.cpp's converter writes it, to be spoilt.
struct Draft {
    entries: Vec<(&'static str, Value)>,
    tensors: Vec<(&'static str, Vec<usize>, WrittenType, f32)>,
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

impl Draft {
    fn good() -> Self {
        Self {
            entries: vec![
                ("general.architecture", text("llama")),
                ("general.type", text("adapter")),
                ("adapter.type", text("lora")),
                ("adapter.lora.alpha", Value::F32(4.0)),
            ],
            tensors: vec![
                ("blk.0.attn_q.weight.lora_a", vec![2, 6], WrittenType::F32, 1.0),
                ("blk.0.attn_q.weight.lora_b", vec![16, 2], WrittenType::F16, 0.5),
            ],
        }
    }

    fn entry(mut self, key: &'static str, value: Option<Value>) -> Self {
        self.entries.retain(|e| e.0 != key);
        self.entries.extend(value.map(|value| (key, value)));
        self
    }

    fn tensor(mut self, i: usize, name: &'static str, shape: &[usize], value: f32) -> Self {
        self.tensors[i] = (name, shape.to_vec(), WrittenType::F32, value);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        self.entries.iter().for_each(|(key, value)| writer.entry(*key, value.clone()));
        self.tensors.iter().for_each(|(name, shape, kind, _)| writer.tensor(*name, shape, *kind));
        let mut bytes = vec![];
        let values = |i: usize| Ok::<_, std::io::Error>(vec![self.tensors[i].3; self.tensors[i].1.iter().product()]);
        writer.write(&mut bytes, values).unwrap();
        bytes
    }

    fn load(&self, base: Option<&BaseShape>) -> Result<Adapter, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        std::fs::write(&path, self.bytes()).unwrap();
        let read = load(&path, base, &Device::flex());
        read.map(|r| r.adapter).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
    }

    fn refused(&self) -> String {
        self.load(Some(&llama())).unwrap_err()
    }
}

#[test]
fn a_foreign_file_needs_the_base_model() {
    let adapter = Draft::good().load(Some(&llama())).unwrap();
    assert_eq!(adapter.get(0, "q_proj").unwrap().alpha, 4.0);
    let message = Draft::good().load(None).unwrap_err();
    assert_eq!(
        message,
        "FILE: llama models have the rows of q_proj and k_proj in another order in GGUF files; name the base model that has the heads (--model)"
    );
    let other = BaseShape::new("qwen2", 4, 2).unwrap();
    assert_eq!(Draft::good().load(Some(&other)).unwrap_err(), "FILE: is for llama models; the base model is qwen2");
    // Other modules have their rows in order.
    let values = Draft::good().tensor(0, "blk.0.attn_v.weight.lora_a", &[2, 6], 1.0).tensor(
        1,
        "blk.0.attn_v.weight.lora_b",
        &[5, 2],
        1.0,
    );
    assert!(values.load(None).is_ok());
}

#[test]
fn an_alpha_of_nought_means_no_scaling() {
    let adapter = Draft::good().entry("adapter.lora.alpha", Some(Value::F32(0.0))).load(Some(&llama())).unwrap();
    assert_eq!(adapter.scaling(adapter.get(0, "q_proj").unwrap()).value(), 1.0);
}

#[test]
fn other_kinds_of_files_are_refused() {
    for (key, value, message) in [
        (
            "general.type",
            Some(text("model")),
            "FILE: a GGUF file of the kind \"model\", which is no adapter, is not supported",
        ),
        ("general.type", None, "FILE: a GGUF file of the kind \"model\", which is no adapter, is not supported"),
        ("adapter.type", Some(text("dora")), "FILE: adapter.type \"dora\" is not supported"),
        ("adapter.type", None, "FILE: has no metadata \"adapter.type\""),
        ("adapter.lora.alpha", None, "FILE: has no metadata \"adapter.lora.alpha\""),
        ("adapter.lora.alpha", Some(Value::F32(f32::NAN)), "FILE: adapter.lora.alpha is NaN"),
        (
            "adapter.lora.alpha",
            Some(text("16")),
            "FILE: metadata \"adapter.lora.alpha\" is a string; a floating-point number is needed",
        ),
        (
            "adapter.alora.invocation_tokens",
            Some(Value::U32(1)),
            "FILE: adapter.alora.invocation_tokens is not supported",
        ),
        ("general.architecture", Some(text("mamba")), "FILE: architecture \"mamba\" is not supported"),
        (
            "llama.attention.head_count",
            Some(Value::U32(0)),
            "FILE: has 0 heads and 0 key heads; each must be from 1 to 65536",
        ),
    ] {
        assert_eq!(Draft::good().entry(key, value).refused(), message, "{key}");
    }
}

#[test]
fn factors_that_do_not_belong_together_are_refused() {
    const A: &str = "blk.0.attn_q.weight.lora_a";
    const B: &str = "blk.0.attn_q.weight.lora_b";
    let nowhere = "is no LoRA factor of a linear module in a layer of llama models";
    for (i, name, shape, value, reason) in [
        (
            1,
            "blk.1.attn_q.weight.lora_b",
            vec![16, 2],
            1.0,
            "tensor blk.0.attn_q.weight.lora_a: has no lora_b beside it".to_owned(),
        ),
        (0, "blk.1.attn_q.weight.lora_a", vec![2, 6], 1.0, format!("tensor {B}: has no lora_a beside it")),
        (0, "token_embd.weight.lora_a", vec![2, 6], 1.0, format!("tensor token_embd.weight.lora_a: {nowhere}")),
        (0, "blk.0.attn_q.weight", vec![2, 6], 1.0, format!("tensor blk.0.attn_q.weight: {nowhere}")),
        (
            0,
            "blk.99999.attn_q.weight.lora_a",
            vec![2, 6],
            1.0,
            format!("tensor blk.99999.attn_q.weight.lora_a: {nowhere}"),
        ),
        (0, A, vec![2, 3, 2], 1.0, format!("tensor {A}: has shape [2, 3, 2]; a factor is a matrix")),
        (
            0,
            A,
            vec![3, 6],
            1.0,
            format!("tensor {B}: has shape [16, 2]; beside lora_a of [3, 6] its rows have length 3"),
        ),
        (1, B, vec![18, 2], 1.0, format!("tensor {B}: has 18 rows, which are not 4 heads of an even width")),
        (1, B, vec![16, 2], f32::INFINITY, format!("tensor {B}: value 0 is inf")),
        (0, A, vec![2, 6], f32::NAN, format!("tensor {A}: value 0 is NaN")),
    ] {
        assert_eq!(Draft::good().tensor(i, name, &shape, value).refused(), format!("FILE: {reason}"));
    }
    let empty = Draft { tensors: vec![], ..Draft::good() };
    assert_eq!(empty.refused(), "FILE: holds no LoRA factor");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = Draft::good().bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = load(&path, Some(&llama()), &Device::flex()).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}

proptest! {
    #[test]
    fn a_damaged_byte_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Draft::good().bytes();
        let at = place.index(bytes.len());
        bytes[at] = byte;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = load(&path, Some(&llama()), &Device::flex()) {
            prop_assert!(error.to_string().starts_with(&path.display().to_string()), "{}", error);
        }
    }
}
