//! Weights files that are cut, lie, or hold what no adapter holds.

use half::f16;
use proptest::prelude::*;

use super::*;

fn raw_file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn load_weights(bytes: &[u8]) -> Result<Adapter, AdapterError> {
    load_bytes(good_config().to_string().as_bytes(), bytes)
}

fn damaged(bytes: &[u8]) -> String {
    let error = load_weights(bytes).unwrap_err();
    assert!(matches!(&error, AdapterError::Weights { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(WEIGHTS), "{text}");
    text
}

fn bad_tensor(tensors: &[Raw], expected: &str) -> String {
    let error = load_with(&good_config(), tensors).unwrap_err();
    assert!(matches!(&error, AdapterError::Tensor { tensor, .. } if tensor == expected), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(WEIGHTS) && text.contains(expected), "{text}");
    text
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = file_bytes(&good());
    assert!(load_weights(&bytes).is_ok());
    for length in 0..bytes.len() {
        damaged(&bytes[..length]);
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let mut bytes = file_bytes(&good());
    bytes.push(0);
    assert!(damaged(&bytes).contains("the file has"));
}

#[test]
fn a_header_longer_than_the_file_is_not_allocated() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 62, 99_999_999, 1000] {
        let mut bytes = file_bytes(&good());
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(damaged(&bytes).contains("header"));
    }
}

#[test]
fn headers_that_lie_are_errors() {
    for header in [
        "",
        "{",
        "[]",
        "null",
        r#"{"a":{"dtype":"F32","shape":[2,6]}}"#,
        r#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2,6],"data_offsets":[0,40]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2,6],"data_offsets":[8,56]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2,6],"data_offsets":[48,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1,4611686018427387903],"data_offsets":[0,18446744073709551612]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}"#,
    ] {
        damaged(&raw_file(header, 48));
    }
}

/// Sums with the header's length would overflow.
#[test]
fn offsets_up_to_the_largest_number_are_errors() {
    let step = 1_u64 << 60;
    let tensor = |i: u64| {
        let end = (i + 1).saturating_mul(step);
        let (start, length) = (i * step, end - i * step);
        format!(r#""{i}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..16).map(tensor).collect::<Vec<_>>().join(","));
    assert!(damaged(&raw_file(&header, 7)).contains(&u64::MAX.to_string()));
}

#[test]
fn a_file_of_holes_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), good_config().to_string().as_bytes(), &file_bytes(&good()));
    std::fs::File::options().write(true).open(folder.path().join(WEIGHTS)).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(load(folder.path(), &Device::flex()), Err(AdapterError::Weights { .. })));
}

#[test]
fn an_empty_adapter_is_an_error() {
    assert!(damaged(&file_bytes(&[])).contains("no LoRA factor"));
}

#[test]
fn files_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err();
    assert!(matches!(&error, AdapterError::Io { path, .. } if path.ends_with(CONFIG)), "{error}");
    std::fs::write(folder.path().join(CONFIG), good_config().to_string()).unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err();
    assert!(matches!(&error, AdapterError::Io { path, .. } if path.ends_with(WEIGHTS)), "{error}");
    std::fs::write(folder.path().join("adapter_model.bin"), "PK").unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err();
    assert!(matches!(&error, AdapterError::Unsupported { path, .. } if path.ends_with("adapter_model.bin")), "{error}");
    std::fs::create_dir(folder.path().join(WEIGHTS)).unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err();
    assert!(matches!(&error, AdapterError::Io { path, .. } if path.ends_with(WEIGHTS)), "{error}");
}

#[test]
fn a_factor_without_its_partner_is_an_error() {
    assert!(bad_tensor(&good()[..1], A).contains("lora_B"));
    assert!(bad_tensor(&good()[1..], B).contains("lora_A"));
}

#[test]
fn factors_that_do_not_fit_each_other_are_errors() {
    bad_tensor(&[f32_tensor(A, &[2, 6], 1.0), f32_tensor(B, &[4, 3], 1.0)], B);
    bad_tensor(&[f32_tensor(A, &[2, 6], 1.0), f32_tensor(B, &[2, 4], 1.0)], B);
    bad_tensor(&[f32_tensor(A, &[6, 2], 1.0), f32_tensor(B, &[4, 2], 1.0)], A);
}

#[test]
fn factors_that_are_no_matrices_are_errors() {
    for shape in [&[12][..], &[2, 6, 1], &[], &[0, 6], &[2, 0]] {
        bad_tensor(&[f32_tensor(A, shape, 1.0), f32_tensor(B, &[4, 2], 1.0)], A);
    }
}

#[test]
fn types_that_are_no_floats_are_errors() {
    for (dtype, bytes) in [(Dtype::I32, 48), (Dtype::U8, 12), (Dtype::F64, 96), (Dtype::F8_E4M3, 12)] {
        let tensors = [(A.to_owned(), dtype, vec![2, 6], vec![0; bytes]), f32_tensor(B, &[4, 2], 1.0)];
        assert!(bad_tensor(&tensors, A).contains("type"));
    }
}

#[test]
fn values_that_are_not_finite_are_errors() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        bad_tensor(&[f32_tensor(A, &[2, 6], 1.0), f32_tensor(B, &[4, 2], value)], B);
    }
    let half = [f16::ONE, f16::NAN].iter().cycle().take(12).flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [(A.to_owned(), Dtype::F16, vec![2, 6], half), f32_tensor(B, &[4, 2], 1.0)];
    assert!(bad_tensor(&tensors, A).contains("value 1 is NaN"));
}

#[test]
fn tensors_of_something_else_are_errors() {
    for name in [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.weight",
        "base_model.model.vision_tower.layers.0.self_attn.k_proj.lora_A.weight",
    ] {
        let mut tensors = good();
        tensors.push(f32_tensor(name, &[2, 6], 1.0));
        bad_tensor(&tensors, name);
    }
}

#[test]
fn a_place_named_twice_is_an_error() {
    for other in [A.replace(".weight", ".default.weight"), A.replace("model.model.model.", "model.model.")] {
        let mut tensors = good();
        tensors.push(f32_tensor(&other, &[2, 6], 2.0));
        let error = load_with(&good_config(), &tensors).unwrap_err();
        assert!(matches!(&error, AdapterError::Tensor { .. }), "{error}");
        assert!(error.to_string().contains("same"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A changed byte gives an error or an adapter, never a panic.
    #[test]
    fn any_changed_byte_is_survived(place in any::<prop::sample::Index>(), byte in any::<u8>(), header in any::<bool>()) {
        let mut bytes = file_bytes(&good());
        let reach = if header { 260.min(bytes.len()) } else { bytes.len() };
        bytes[place.index(reach)] = byte;
        let _ = load_weights(&bytes);
    }

    /// So does a changed byte of the configuration.
    #[test]
    fn any_changed_setting_is_survived(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 2}, "bias": "none"})
            .to_string()
            .into_bytes();
        let at = place.index(config.len());
        config[at] = byte;
        let _ = load_bytes(&config, &file_bytes(&good()));
    }
}
