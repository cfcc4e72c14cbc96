//! Dequantised tensors of SmolLM2's GGUF file.

use t2l_backbone::gguf::GgufFile;
use t2l_testing::json;

#[test]
fn reference_dequantised_tensors() {
    super::with_smollm2(|area, model| {
        let facts = json(&area.join("vocab_facts.json"));
        let file = GgufFile::open(model).unwrap();
        let checks = facts["dequantised_tensor_checks"].as_object().unwrap();
        for (name, check) in checks {
            let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(tensor.kind.to_string(), check["ggml_type"].as_str().unwrap(), "{name}");
            let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
            assert_eq!(serde_json::json!(shape), check["hf_shape"], "{name}");
            let mut values = file.read_f32(name).unwrap();
            let row = tensor.shape.last().copied().unwrap();
            // The file has the rows of q and k in ggml's order, the facts in the checkpoint's.
            if let Some(heads) = heads(&file, name) {
                values = half_split(&values, row, heads);
            }
            exactly(&values, &check["first8_row0"], name);
            if let Some(second) = values.get(row..) {
                exactly(second, &check["row1_first4"], name);
            }
            let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
            let abs_sum: f64 = values.iter().map(|&x| f64::from(x).abs()).sum();
            let expected = (check["sum"].as_f64().unwrap(), check["abs_sum"].as_f64().unwrap());
            let off = (sum - expected.0).abs().max((abs_sum - expected.1).abs());
            assert!(off <= 1e-9 * expected.1, "{name}: sums {sum} and {abs_sum} instead of {expected:?}");
        }
        checks.len()
    });
}

/// The first numbers, bit for bit; nothing to compare when the facts have none.
fn exactly(values: &[f32], expected: &serde_json::Value, name: &str) {
    for (i, expected) in expected.as_array().into_iter().flatten().enumerate() {
        assert_eq!(values[i], expected.as_f64().unwrap() as f32, "{name}[{i}]");
    }
}

fn heads(file: &GgufFile, tensor: &str) -> Option<usize> {
    if tensor.ends_with("attn_q.weight") {
        Some(file.usize("llama.attention.head_count").unwrap())
    } else if tensor.ends_with("attn_k.weight") {
        Some(file.usize("llama.attention.head_count_kv").unwrap())
    } else {
        None
    }
}

/// Rows `[heads, pairs, 2]` to `[heads, 2, pairs]`.
fn half_split(values: &[f32], row: usize, heads: usize) -> Vec<f32> {
    let pairs = values.len() / row / heads / 2;
    let rows: Vec<&[f32]> = values.chunks_exact(row).collect();
    let order = (0..heads)
        .flat_map(|head| (0..2).flat_map(move |part| (0..pairs).map(move |pair| head * 2 * pairs + 2 * pair + part)));
    order.flat_map(|index| rows[index].iter().copied()).collect()
}
