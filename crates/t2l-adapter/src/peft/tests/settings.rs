//! Which rank and alpha are in force where.

use super::*;

fn pair(layer: usize, module: &str, rank: usize) -> [Raw; 2] {
    let block = t2l_core::TargetModule::block(module);
    let name = |factor| format!("base_model.model.model.layers.{layer}.{block}.{module}.{factor}.weight");
    [f32_tensor(&name("lora_A"), &[rank, 6], 1.0), f32_tensor(&name("lora_B"), &[4, rank], 1.0)]
}

#[test]
fn the_first_pattern_in_file_order_wins() {
    // Written as text, so that the order is certain.
    let config = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": true,
        "rank_pattern": {"q_proj": 2, "layers.1.self_attn.q_proj": 3, "model.layers.0.self_attn.v_proj": 4},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 5, "q_proj": 6.5, "layers\\.[01]\\..*_proj": 7}}"#;
    let tensors: Vec<Raw> =
        [pair(0, "q_proj", 2), pair(1, "q_proj", 2), pair(0, "v_proj", 4), pair(1, "v_proj", 8), pair(12, "v_proj", 8)]
            .concat();
    let adapter = load_bytes(config.as_bytes(), &file_bytes(&tensors)).unwrap();
    let alpha = |layer, module| adapter.get(layer, module).map(|w| (w.rank(), w.alpha));
    assert_eq!(alpha(0, "q_proj"), Some((2, 6.5)));
    assert_eq!(alpha(1, "q_proj"), Some((2, 5.0)));
    assert_eq!(alpha(0, "v_proj"), Some((4, 7.0)));
    assert_eq!(alpha(1, "v_proj"), Some((8, 7.0)));
    assert_eq!(alpha(12, "v_proj"), Some((8, 16.0)));
    let weights = adapter.get(0, "v_proj").unwrap();
    assert_eq!(adapter.scaling(weights).value(), 7.0 / 2.0);
}

#[test]
fn a_pattern_matches_whole_parts_of_a_name() {
    for (pattern, matches) in [
        ("q_proj", true),
        ("self_attn.q_proj", true),
        (r".*\.0\..*", true),
        (r"\w+\.\d+\..*_proj", true),
        ("proj", false),
        ("q_pro", false),
        ("model.layers.0", false),
        ("q_proj|nothing", true),
        ("k_proj|v_proj", false),
    ] {
        let mut config = good_config();
        config["alpha_pattern"] = json!({pattern: 99});
        let adapter = load_with(&config, &good()).unwrap();
        assert_eq!(adapter.get(0, "q_proj").unwrap().alpha == 99.0, matches, "{pattern}");
    }
}

#[test]
fn missing_rank_and_alpha_are_those_of_peft() {
    let adapter = load_with(&json!({"peft_type": "LORA"}), &pair(2, "down_proj", 8)).unwrap();
    assert_eq!(adapter.get(2, "down_proj").unwrap().alpha, 8.0);
}

#[test]
fn half_precision_is_read_exactly() {
    let numbers = [0.5_f32, -1.25, 3.0, 1e-3];
    let f16: Vec<u8> = numbers.iter().cycle().take(12).flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let bf16: Vec<u8> = numbers.iter().cycle().take(8).flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    let tensors = [(A.to_owned(), Dtype::F16, vec![2, 6], f16), (B.to_owned(), Dtype::BF16, vec![4, 2], bf16)];
    let adapter = load_with(&good_config(), &tensors).unwrap();
    let weights = adapter.get(0, "q_proj").unwrap();
    assert_eq!(values(&weights.a)[..4], numbers.map(|x| half::f16::from_f32(x).to_f32()));
    assert_eq!(values(&weights.b)[..4], numbers.map(|x| half::bf16::from_f32(x).to_f32()));
}
