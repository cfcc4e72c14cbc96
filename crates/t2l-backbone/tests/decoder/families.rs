//! Every folder of `backbones`, here and of the reference cases: logits, hidden states, padding, greedy tokens, adapters, per-row adapters.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use t2l_adapter::gguf::BaseShape;
use t2l_adapter::{fused, peft};
use t2l_backbone::{BackboneError, Decoder, DecoderConfig};
use t2l_core::{Adapter, AdapterBatch};
use t2l_testing::{Cases, Skip, Stored, assert_close, fixtures, tensors};

use super::{greedy, ids, rows, starts, values};

const TOLERANCE: f64 = 1e-4;

/// Folders of cases: this repository's own (made by interop/make_backbone_cases.py), and those that lie beside it.
fn areas() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/backbones");
    [own].into_iter().chain(fixtures().map(|f| f.join("backbones"))).collect()
}

fn load(case: &Path) -> Result<Decoder, Skip> {
    match Decoder::load(case, &Device::flex()) {
        Err(BackboneError::UnsupportedFamily { .. }) => Err(Skip::UnsupportedFamily),
        other => Ok(other.unwrap_or_else(|e| panic!("{}: {e}", case.display()))),
    }
}

/// Compares `[rows, tokens, width]` where the mask is 1.
fn compare(what: &str, found: &[f32], expected: &Stored, mask: &[Vec<i64>]) {
    let width = expected.shape.last().copied().unwrap_or(1);
    assert_eq!(found.len(), expected.values.len(), "{what}");
    for (i, &real) in mask.concat().iter().enumerate() {
        if real == 1 {
            let place = i * width..(i + 1) * width;
            assert_close(
                &format!("{what}, position {i}"),
                &found[place.clone()],
                &expected.values[place],
                TOLERANCE,
                TOLERANCE,
            );
        }
    }
}

#[test]
fn reference_families() {
    areas().iter().for_each(|area| check_families(area));
}

fn check_families(area: &Path) {
    let device = Device::flex();
    Cases::each(area, "io.safetensors", |case| {
        let decoder = load(case)?;
        let io = tensors(&case.join("io.safetensors"));
        let (tokens, mask) = (rows(&io["input_ids"]), rows(&io["attention_mask"]));
        let none = AdapterBatch::none(tokens.len());
        let embedded = decoder.embed(ids(&tokens, &device));
        let hidden = decoder.hidden(embedded, &starts(&mask), None, &none).expect("runs");
        let name = case.display();
        compare(&format!("{name}: last hidden state"), &values(hidden.clone()), &io["last_hidden_state"], &mask);
        let logits = values(decoder.logits(hidden));
        compare(&format!("{name}: logits"), &logits, &io["logits"], &mask);

        let first = vec![tokens[0].clone()];
        let one = AdapterBatch::none(1);
        let states = decoder.hidden_states(decoder.embed(ids(&first, &device)), &[0], &one).expect("runs");
        let streams = io.keys().filter(|key| key.starts_with("row0.hidden_states.")).count();
        assert!(streams > 0 && streams <= states.len(), "{name}: {streams} streams for {} layers", states.len() - 1);
        for (i, state) in states.iter().take(streams).enumerate() {
            let expected = &io[&format!("row0.hidden_states.{i}")].values;
            assert_close(&format!("{name}: stream {i}"), &values(state.clone()), expected, TOLERANCE, TOLERANCE);
        }
        let prompt: Vec<u32> = tokens[0].iter().map(|&t| t as u32).collect();
        let expected: Vec<u32> = io["row0.greedy_12"].i64().iter().map(|&t| t as u32).collect();
        assert_eq!(greedy(&decoder, &[prompt], &one, expected.len())[0], expected, "{name}: greedy tokens");

        // Mean loss where the predicting and the predicted token are both real.
        let vocabulary = decoder.config().vocab_size;
        let (mut total, mut count) = (0.0f64, 0);
        for (row, (tokens, mask)) in tokens.iter().zip(&mask).enumerate() {
            for t in 1..tokens.len() {
                if mask[t] == 1 && mask[t - 1] == 1 {
                    let logits = &logits[(row * tokens.len() + t - 1) * vocabulary..][..vocabulary];
                    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = logits.iter().map(|&x| f64::from(x - peak).exp()).sum();
                    total += sum.ln() - f64::from(logits[tokens[t] as usize] - peak);
                    count += 1;
                }
            }
        }
        assert_close(
            &format!("{name}: loss"),
            &[(total / f64::from(count)) as f32],
            &io["labels_loss_real"].values,
            1e-4,
            1e-4,
        );
        Ok(())
    });
}

#[test]
fn reference_adapters() {
    areas().iter().for_each(|area| check_adapters(area));
}

fn check_adapters(area: &Path) {
    let device = Device::flex();
    Cases::each(area, "adapters", |case| {
        let decoder = load(case)?;
        let io = tensors(&case.join("io.safetensors"));
        let (tokens, mask) = (rows(&io["input_ids"]), rows(&io["attention_mask"]));
        Cases::each(&case.join("adapters"), "adapter_config.json", |folder| {
            let adapter = peft::load(folder, &device).unwrap_or_else(|e| panic!("{e}"));
            let expected = &tensors(&folder.join("logits.safetensors"))["logits"];
            for (form, adapter) in forms(&decoder, adapter) {
                let worn = vec![Some(0); tokens.len()];
                let adapters = AdapterBatch::from_adapters(&[&adapter], &worn, &device).expect("fits");
                let embedded = decoder.embed(ids(&tokens, &device));
                let hidden = decoder.hidden(embedded, &starts(&mask), None, &adapters).expect("runs");
                let what = format!("{}, {form}", folder.display());
                compare(&what, &values(decoder.logits(hidden)), expected, &mask);
            }
            Ok(())
        });
        Ok(())
    });
}

/// An adapter as it is; of models that fuse projections also in parts, and those fused again.
fn forms(decoder: &Decoder, adapter: Adapter) -> Vec<(&'static str, Adapter)> {
    let c = decoder.config();
    if !c.fused {
        return vec![("as it is", adapter)];
    }
    let base = BaseShape::new(&c.family, c.heads, c.kv_heads).expect("an architecture");
    let parts = fused::split(&adapter, &base).unwrap_or_else(|e| panic!("{e}"));
    assert!(parts.iter().all(|(_, module, _)| !["qkv_proj", "gate_up_proj"].contains(&module)));
    let again = fused::fuse(&parts, &base).unwrap_or_else(|e| panic!("{e}"));
    vec![("as it is", adapter), ("in parts", parts), ("fused again", again)]
}

#[test]
fn reference_per_row_adapters() {
    areas().iter().for_each(|area| check_per_row_adapters(area));
}

fn check_per_row_adapters(area: &Path) {
    let device = Device::flex();
    Cases::each(area, "per_sample", |case| {
        let decoder = load(case)?;
        let folder = case.join("per_sample");
        let io = tensors(&folder.join("io.safetensors"));
        let adapters =
            ["a0", "a1", "a2"].map(|a| peft::load(&folder.join(a), &device).unwrap_or_else(|e| panic!("{e}")));
        let adapters: Vec<_> = adapters.iter().collect();
        let batch = AdapterBatch::from_adapters(&adapters, &[Some(0), Some(1), Some(2), None], &device).expect("fits");
        let (tokens, mask) = (rows(&io["input_ids"]), rows(&io["attention_mask"]));
        let hidden = decoder.hidden(decoder.embed(ids(&tokens, &device)), &starts(&mask), None, &batch).expect("runs");
        compare(&case.display().to_string(), &values(decoder.logits(hidden)), &io["logits"], &mask);
        Ok(())
    });
}

#[test]
fn earlier_names_of_longrope_mean_the_same() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/backbones/phi3_longrope_long");
    let expected = DecoderConfig::from_json(&case.join("config.json")).expect("reads");
    let text = std::fs::read_to_string(case.join("config.json")).expect("reads");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["su", "yarn"] {
        let path = folder.path().join("config.json");
        std::fs::write(&path, text.replace("\"longrope\"", &format!("\"{name}\""))).expect("writes");
        assert_eq!(DecoderConfig::from_json(&path).expect("reads"), expected, "{name}");
    }
    assert_ne!(text.replace("\"longrope\"", ""), text);
}
