//! Numbers of parameters of the published set-ups, by part, from the configuration alone.

use serde_json::Value;
use t2l_core::{AdapterLayout, LoraScaling, TargetModule};
use t2l_hypernet::{Arch, Conditioning, HypernetConfig, Offset, Target, TaskEncoder};
use t2l_testing::{Cases, Skip, fixtures, json};

use crate::support::size;

/// (in, out) of a module by name.
type Widths = fn(&str) -> Option<(usize, usize)>;

/// Layers and widths of the backbones that the reference counts for.
fn backbone(name: &str) -> Option<(usize, Widths)> {
    Some(match name {
        "mistral-7b" | "llama-3.1-8b" => (32, |m| widths(m, 4096, 4096, 1024, 14336)),
        "gemma-2-2b" => (26, |m| widths(m, 2304, 2048, 1024, 9216)),
        "smollm2-135m" => (30, |m| widths(m, 576, 576, 192, 1536)),
        _ => return None,
    })
}

fn widths(module: &str, hidden: usize, query: usize, key: usize, inner: usize) -> Option<(usize, usize)> {
    Some(match module {
        "q_proj" => (hidden, query),
        "k_proj" | "v_proj" => (hidden, key),
        "o_proj" => (query, hidden),
        "gate_proj" | "up_proj" => (hidden, inner),
        "down_proj" => (inner, hidden),
        _ => return None,
    })
}

#[test]
fn reference_parameter_counts() {
    let Some(fixtures) = fixtures() else { return };
    let path = fixtures.join("hypernet/parameter_counts.json");
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let mut cases = Cases::default();
    for (i, case) in json(&path)["counts"].as_array().expect("counts").iter().enumerate() {
        let name = case["backbone"].as_str().expect("backbone");
        let outcome = backbone(name).map(|(layers, widths)| check(case, layers, widths)).ok_or(Skip::UnsupportedFamily);
        cases.record(&format!("{name} {i}"), outcome);
    }
    cases.finish(&path);
}

fn check(case: &Value, layers: usize, widths: Widths) {
    let modules = case["target_modules"].as_array().expect("target_modules").iter().map(|m| {
        let m = m.as_str().expect("module");
        let (input, output) = widths(m).unwrap_or_else(|| panic!("widths of {m} are not known here"));
        TargetModule::new(m, input, output)
    });
    let arch: Arch = serde_json::from_value(case["arch"].clone()).expect("arch");
    let config = HypernetConfig {
        arch,
        layout: AdapterLayout { base_model: case["backbone"].to_string(), layers, modules: modules.collect() },
        scaling: LoraScaling { alpha: 16.0, rank: size(case, "r"), use_rslora: true },
        conditioning: Conditioning::Text,
        embedding: size(case, "task_emb_size"),
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: size(case, "hypernet_latent_size"),
        head_in: size(case, "head_in_size"),
        head_bias: case["head_bias"] == true,
        // The published state dict always holds offsets and both statistics.
        offset: Offset::Frozen,
        copying: None,
        instructed: None,
        learnable_positions: false,
        target: Target::ZScored,
        dropout: 0.05,
    };
    let counts = config.parameter_counts().expect("counts");
    assert_eq!(counts.trainable, size(case, "trainable") as u64, "{case}");
    assert_eq!(counts.frozen, size(case, "frozen_buffers_as_parameters") as u64, "{case}");
    let expected = case["by_part"].as_object().expect("by_part");
    let expected: std::collections::BTreeMap<String, u64> =
        expected.iter().map(|(part, n)| (part.clone(), n.as_u64().expect("a count"))).collect();
    assert_eq!(counts.by_part, expected, "{case}");
}
