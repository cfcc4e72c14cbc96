//! Configurations that are none, lie, or ask for other maths.

use super::*;

fn with(key: &str, value: Value) -> Value {
    let mut config = good_config();
    config[key] = value;
    config
}

#[test]
fn a_good_one_is_read() {
    let adapter = load_with(&good_config(), &good()).unwrap();
    assert_eq!((adapter.len(), adapter.use_rslora, adapter.base_model.as_str()), (1, false, ""));
    let weights = adapter.get(0, "q_proj").unwrap();
    assert_eq!((weights.a.dims(), weights.b.dims(), weights.alpha), ([2, 6], [4, 2], 4.0));
}

#[test]
fn what_is_no_json_object_names_the_file() {
    for bytes in [&b""[..], b"{", b"[]", b"3", b"{\"r\": NaN}", b"\xff\xfe{}", b"PK\x03\x04"] {
        let error = load_bytes(bytes, &file_bytes(&good())).unwrap_err();
        assert!(matches!(&error, AdapterError::Config { .. }), "{error}");
        assert!(error.to_string().contains(CONFIG), "{error}");
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = "[".repeat(100_000);
    assert!(matches!(load_bytes(deep.as_bytes(), &file_bytes(&good())), Err(AdapterError::Config { .. })));
}

#[test]
fn an_endless_configuration_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), b"{}", &file_bytes(&good()));
    std::fs::File::options().write(true).open(folder.path().join(CONFIG)).unwrap().set_len(1 << 40).unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("has more than"), "{error}");
}

#[test]
fn settings_with_absurd_values_are_errors() {
    for (key, value) in [
        ("r", json!(0)),
        ("r", json!(-2)),
        ("r", json!(2.5)),
        ("r", json!("2")),
        ("r", json!(u64::MAX)),
        ("r", json!(100_000)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!([])),
        ("use_rslora", json!("yes")),
        ("use_rslora", json!(1)),
        ("base_model_name_or_path", json!(7)),
        ("rank_pattern", json!([1])),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!({"q_proj": "many"})),
        ("alpha_pattern", json!({"q_proj": null})),
        ("alpha_pattern", json!({"q_(proj": 3})),
        ("rank_pattern", json!({"(((a{1000}){1000}){1000})": 3})),
    ] {
        let error = load_with(&with(key, value.clone()), &good()).unwrap_err();
        assert!(matches!(&error, AdapterError::Config { .. }), "{key} {value}: {error}");
        let text = error.to_string();
        assert!(text.contains(CONFIG) && text.contains(key), "{text}");
    }
}

#[test]
fn other_maths_is_refused_by_name() {
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("peft_type", json!(null)),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("use_something_new", json!(true)),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1, 2])),
        ("trainable_token_indices", json!({"embed_tokens": [1]})),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
        ("alora_invocation_tokens", json!([5])),
        ("megatron_config", json!({"a": 1})),
        ("kasa_config", json!({"beta": 1})),
        ("monteclora_config", json!({"samples": 4})),
        ("velora_config", json!({"groups": 32})),
        ("use_bdlora", json!({"nblocks": 2})),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("loftq")),
    ] {
        let error = load_with(&with(key, value.clone()), &good()).unwrap_err();
        assert!(matches!(&error, AdapterError::Unsupported { .. }), "{key} {value}: {error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn what_does_not_change_the_maths_is_let_through() {
    for (key, value) in [
        ("bias", json!("none")),
        ("use_dora", json!(false)),
        ("modules_to_save", json!([])),
        ("modules_to_save", json!(null)),
        ("loftq_config", json!({})),
        ("eva_config", json!({"rho": 2.0})),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!(false)),
        ("fan_in_fan_out", json!(true)),
        ("lora_dropout", json!(0.3)),
        ("target_modules", json!("all-linear")),
        ("exclude_modules", json!(["lm_head"])),
        ("qalora_group_size", json!(16)),
        ("peft_version", json!("0.18.0")),
    ] {
        assert!(load_with(&with(key, value.clone()), &good()).is_ok(), "{key} {value}");
    }
}

#[test]
fn a_rank_that_the_tensors_do_not_have_is_an_error() {
    let error = load_with(&with("r", json!(3)), &good()).unwrap_err();
    assert!(matches!(&error, AdapterError::Tensor { tensor, .. } if tensor == A), "{error}");
    assert!(error.to_string().contains("rank 3"), "{error}");
}
