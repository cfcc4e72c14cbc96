use std::fmt::Debug;

use t2l_gguf::testing::Bytes;

use crate::decoder::{DecoderConfig, RopeScaling, Sliding};

/// A key under `<architecture>.` and its value.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Size(&'static str, u32),
    Number(&'static str, f32),
    Text(&'static str, &'static str),
}
use Entry::{Number, Size, Text};

/// What a tiny file of an architecture says of itself; `divisors` are tensors of zeros and their lengths.
fn config(architecture: &str, entries: &[Entry], divisors: &[(&str, u64)]) -> Result<DecoderConfig, String> {
    let sizes = [
        Size("block_count", 2),
        Size("context_length", 4096),
        Size("embedding_length", 32),
        Size("feed_forward_length", 32),
        Size("attention.head_count", 4),
        Number("attention.layer_norm_rms_epsilon", 1e-5),
    ];
    let all: Vec<&Entry> = sizes.iter().chain(entries).collect();
    let mut bytes = Bytes::front(1 + divisors.len() as u64, 1 + all.len() as u64);
    bytes = bytes.entry_str("general.architecture", architecture);
    let key = |name: &str| format!("{architecture}.{name}");
    for entry in all {
        bytes = match entry {
            Size(name, value) => bytes.entry_u32(&key(name), *value),
            // No helper writes a single one: type 6.
            Number(name, value) => bytes.string(&key(name)).u32(6).f32(*value),
            Text(name, value) => bytes.entry_str(&key(name), value),
        };
    }
    bytes = bytes.tensor("token_embd.weight", &[32, 8], 0, 0);
    for (i, (name, length)) in (0..).zip(divisors) {
        bytes = bytes.tensor(name, &[*length], 0, 1024 + 32 * i);
    }
    let file = bytes.pad(32).raw(&[0; 1024 + 128]).open().expect("a file");
    DecoderConfig::from_gguf(&file).map_err(|e| e.to_string())
}

fn refused<T: Debug>(result: Result<T, String>, reason: &str) {
    let error = result.expect_err(reason);
    assert!(error.contains(reason), "{error}");
}

#[test]
fn phi3_slides_where_its_file_says_so() {
    let sliding = |entries: &[Entry]| config("phi3", entries, &[]).map(|c| (c.window, c.sliding, c.fused));
    assert_eq!(sliding(&[]), Ok((None, Sliding::Never, true)));
    assert_eq!(sliding(&[Size("attention.sliding_window", 0)]), Ok((None, Sliding::Never, true)));
    assert_eq!(sliding(&[Size("attention.sliding_window", 2047)]), Ok((Some(2047), Sliding::Always, true)));
}

#[test]
fn a_part_of_a_head_turns_in_phi3_alone() {
    let turned = [Size("rope.dimension_count", 4)];
    assert_eq!(config("phi3", &turned, &[]).map(|c| (c.head_dim, c.rotary_dim)), Ok((8, 4)));
    refused(config("llama", &turned, &[]), "llama.rope.dimension_count is 4; only the head width, 8, is supported");
    for count in [0, 3, 10, u32::MAX] {
        refused(config("phi3", &[Size("rope.dimension_count", count)], &[]), &format!("RoPE turns {count} of the 8"));
    }
}

#[test]
fn yarn_by_its_defaults_and_by_every_key() {
    let yarn = [Text("rope.scaling.type", "yarn"), Number("rope.scaling.factor", 4.0)];
    let scaling = |more: &[Entry]| config("qwen2", &[&yarn[..], more].concat(), &[]).map(|c| c.rope_scaling);
    let attention = |more: &[Entry]| match scaling(more) {
        Ok(RopeScaling::Yarn { attention_factor, .. }) => attention_factor,
        other => panic!("{other:?}"),
    };
    let grown = |multiplier: f64| 0.1 * multiplier * 4f64.ln() + 1.0;
    assert!((attention(&[]) - grown(1.0)).abs() < 1e-9);
    assert!((attention(&[Number("rope.scaling.yarn_log_multiplier", 0.5)]) - grown(1.0) / grown(0.5)).abs() < 1e-9);
    assert!((attention(&[Number("rope.scaling.attn_factor", 0.5)]) - 0.5 * grown(1.0)).abs() < 1e-9);
    assert_eq!(attention(&[Number("rope.scaling.yarn_attn_factor", 0.75)]), 0.75);
    let Ok(RopeScaling::Yarn { original, .. }) = scaling(&[]) else { panic!("not YaRN") };
    assert_eq!(original, 4096.0, "the context length where no other is named");
    let ramp = |more: &[Entry]| match scaling(more) {
        Ok(RopeScaling::Yarn { ramp, .. }) => ramp,
        other => panic!("{other:?}"),
    };
    // The dimension that turns n times within 4096 tokens is 4·ln(4096 / 2πn) / ln(10000).
    assert_eq!(ramp(&[]), (1.0, 3.0));
    assert_eq!(ramp(&[Number("rope.scaling.yarn_beta_fast", 256.0)]), (0.0, 3.0));
    assert_eq!(ramp(&[Number("rope.scaling.yarn_beta_slow", 16.0)]), (1.0, 2.0));
    for key in ["rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"] {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            refused(scaling(&[Number(key, value)]), "not a number of turns");
        }
    }
    refused(scaling(&[Number("rope.scaling.yarn_ext_factor", 0.0)]), "yarn_ext_factor is 0; only 1 is supported");
    refused(scaling(&[Number("rope.scaling.attn_factor", f32::NAN)]), "out of range");
    refused(scaling(&[Size("rope.scaling.original_context_length", 0)]), "out of range");
    refused(config("qwen2", &yarn[..1], &[]), "qwen2.rope.scaling.factor");
}

#[test]
fn scalings_that_do_not_fit_are_refused() {
    let kind = |kind: &'static str| [Text("rope.scaling.type", kind)];
    let freqs = "rope_freqs.weight";
    let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
    refused(config("llama", &kind("longrope"), &[]), "RoPE scaling \"longrope\" of llama is not supported");
    refused(config("phi3", &kind("yarn"), &[]), "RoPE scaling \"yarn\" of phi3 is not supported");
    refused(config("qwen2", &kind("yarn"), &[(freqs, 4)]), "\"yarn\" with rope_freqs.weight of qwen2");
    refused(config("llama", &[], &[(freqs, 3)]), "rope_freqs.weight");
    refused(config("phi3", &kind("longrope"), &[]), "rope_factors_short.weight");
    refused(config("phi3", &[], &[(long, 4)]), "rope_factors_short.weight");
    refused(config("phi3", &[], &[(long, 4), (short, 5)]), "has shape [5], heads of which 8 values turn ask for [4]");
    // The divisors are zeros.
    refused(config("phi3", &[], &[(long, 4), (short, 4)]), "out of range");
}
