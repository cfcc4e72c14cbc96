//! SmolLM2-135M-Instruct from its GGUF file: logits, greedy tokens, hidden states, left padding.

use burn::tensor::Device;
use serde_json::Value;
use t2l_backbone::Decoder;
use t2l_core::AdapterBatch;
use t2l_testing::{assert_close, fixtures, json, smollm2, tensors};

use super::{greedy, ids, rows, starts, values};

fn decoder() -> Option<(std::path::PathBuf, Decoder)> {
    let folder = fixtures()?.join("smollm2");
    match smollm2() {
        Ok(path) => Some((folder, Decoder::load(&path, &Device::flex()).expect("loads"))),
        Err(skip) => {
            println!("0 cases, 1 skipped: smollm2 ({skip})");
            None
        }
    }
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|v| v.as_u64().expect("id") as u32).collect()
}

#[test]
fn reference_smollm2_greedy() {
    let Some((folder, decoder)) = decoder() else { return };
    let cases = json(&folder.join("greedy.json"));
    let cases = cases.as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let expected = tokens(&case["greedy_48_ids"]);
        let found = greedy(&decoder, &[tokens(&case["prompt_ids"])], &AdapterBatch::none(1), expected.len());
        assert_eq!(found[0], expected, "{}", case["prompt"]);
    }
    println!("{} cases, 0 skipped:", cases.len());
}

#[test]
fn reference_smollm2_logits() {
    let Some((folder, decoder)) = decoder() else { return };
    let device = Device::flex();
    let stored = tensors(&folder.join("logits.safetensors"));
    let mut count = 0;
    while let Some(prompt) = stored.get(&format!("p{count}.input_ids")) {
        let prompt = vec![prompt.i64()];
        let hidden =
            decoder.hidden(decoder.embed(ids(&prompt, &device)), &[0], None, &AdapterBatch::none(1)).expect("runs");
        let last = values(decoder.logits(hidden.narrow(1, prompt[0].len() - 1, 1)));
        let at = |name: &str| &stored[&format!("p{count}.{name}")];
        let found: Vec<f32> = at("top50_ids").i64().iter().map(|&i| last[i as usize]).collect();
        assert_close(&format!("prompt {count}"), &found, &at("top50_values").values, 1e-3, 0.0);
        count += 1;
    }
    assert!(count > 0);
    println!("{count} cases, 0 skipped:");
}

#[test]
fn reference_smollm2_left_padding() {
    let Some((folder, decoder)) = decoder() else { return };
    let device = Device::flex();
    let stored = tensors(&folder.join("left_padded_batch.safetensors"));
    let (tokens, mask) = (rows(&stored["input_ids"]), rows(&stored["attention_mask"]));
    let none = AdapterBatch::none(tokens.len());
    let hidden = decoder.hidden(decoder.embed(ids(&tokens, &device)), &starts(&mask), None, &none).expect("runs");
    let width = tokens[0].len();
    let last = values(decoder.logits(hidden.narrow(1, width - 1, 1)));
    let vocabulary = decoder.config().vocab_size;
    let (top, expected) = (rows(&stored["top50_ids"]), &stored["top50_values"].values);
    for (row, top) in top.iter().enumerate() {
        let found: Vec<f32> = top.iter().map(|&i| last[row * vocabulary + i as usize]).collect();
        assert_close(&format!("row {row}"), &found, &expected[row * 50..(row + 1) * 50], 1e-3, 0.0);
    }
}
