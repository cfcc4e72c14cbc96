//! SmolLM2-135M-Instruct from its GGUF file: logits, greedy tokens, hidden states, both kinds of padding.

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
    // All at once, left-padded: the same tokens.
    let prompts: Vec<Vec<u32>> = cases.iter().map(|c| tokens(&c["prompt_ids"])).collect();
    let found = greedy(&decoder, &prompts, &AdapterBatch::none(prompts.len()), 48);
    for (found, case) in found.iter().zip(cases) {
        assert_eq!(found, &tokens(&case["greedy_48_ids"]), "{}, in a batch", case["prompt"]);
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
        let first = &at("logits_first64").values;
        assert_close(&format!("prompt {count}, first logits"), &last[..first.len()], first, 1e-3, 0.0);
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
    println!("{} cases, 0 skipped:", top.len());
}

/// Mean loss over all tokens of the prompt.
#[test]
fn reference_smollm2_loss() {
    let Some((folder, decoder)) = decoder() else { return };
    let stored = json(&folder.join("hidden_states.json"));
    let prompt = vec![tokens(&stored["prompt_ids"]).into_iter().map(i64::from).collect::<Vec<_>>()];
    let embedded = decoder.embed(ids(&prompt, &Device::flex()));
    let last = decoder.hidden(embedded, &[0], None, &AdapterBatch::none(1)).expect("runs");
    let logits = values(decoder.logits(last));
    let vocabulary = decoder.config().vocab_size;
    let losses = prompt[0].iter().skip(1).zip(logits.chunks_exact(vocabulary)).map(|(&label, logits)| {
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from(x - peak).exp()).sum();
        sum.ln() - f64::from(logits[label as usize] - peak)
    });
    let loss = losses.sum::<f64>() / (prompt[0].len() - 1) as f64;
    assert_close("loss", &[loss as f32], &[stored["loss_all_tokens"].as_f64().expect("a loss")], 1e-4, 1e-4);
    println!("1 cases, 0 skipped:");
}

/// The end-to-end case without its adapters: right padding, read at each row's last token.
#[test]
fn reference_smollm2_right_padding() {
    let Some((folder, decoder)) = decoder() else { return };
    let device = Device::flex();
    let stored = tensors(&folder.join("pipeline/io.safetensors"));
    let (tokens, mask) = (rows(&stored["input_ids"]), rows(&stored["attention_mask"]));
    let none = AdapterBatch::none(tokens.len());
    let hidden = decoder.hidden(decoder.embed(ids(&tokens, &device)), &starts(&mask), None, &none).expect("runs");
    let (top, expected) = (rows(&stored["base_top50_ids"]), &stored["base_top50_values"].values);
    for (row, top) in top.iter().enumerate() {
        let last = mask[row].iter().rposition(|&m| m == 1).expect("a real token");
        let logits = values(decoder.logits(hidden.clone().narrow(0, row, 1).narrow(1, last, 1)));
        let found: Vec<f32> = top.iter().map(|&i| logits[i as usize]).collect();
        assert_close(&format!("row {row}"), &found, &expected[row * top.len()..][..top.len()], 1e-3, 0.0);
    }
    println!("{} cases, 0 skipped:", top.len());
}

#[test]
fn reference_smollm2_hidden_states() {
    let Some((folder, decoder)) = decoder() else { return };
    let stored = json(&folder.join("hidden_states.json"));
    let prompt: Vec<i64> = tokens(&stored["prompt_ids"]).into_iter().map(i64::from).collect();
    let embedded = decoder.embed(ids(std::slice::from_ref(&prompt), &Device::flex()));
    let states = decoder.hidden_states(embedded, &[0], &AdapterBatch::none(1)).expect("runs");
    let layers = stored["layers"].as_array().expect("layers");
    assert_eq!(states.len(), layers.len());
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    for (i, (state, expected)) in states.into_iter().zip(layers).enumerate() {
        let state = values(state);
        let norm = state.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let l2 = expected["l2"].as_f64().expect("a norm");
        assert!((norm - l2).abs() <= 1e-4 * l2, "layer {i}: L2 norm {norm} instead of {l2}");
        let last = &state[state.len() - decoder.config().hidden_size..];
        for (found, key) in [(&state[..], "first_pos_first4"), (last, "last_pos_first8")] {
            let expected = numbers(&expected[key]);
            assert_close(&format!("layer {i} {key}"), &found[..expected.len()], &expected, 1e-3, 1e-4);
        }
    }
    println!("{} cases, 0 skipped:", layers.len());
}
