//! Initial values of SFT in the published code, from PEFT's initial A.

use std::path::Path;

use serde_json::Value;
use t2l_core::{AdapterLayout, LoraScaling, TargetModule};
use t2l_hypernet::{Arch, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder};
use t2l_testing::{Cases, assert_close, fixtures, json};

use crate::support::{Tensors, device, embeddings, file, number, size, values};

#[test]
fn reference_initial_values() {
    let Some(fixtures) = fixtures() else { return };
    let area = fixtures.join("training");
    Cases::each(&area, "init.safetensors", |case| {
        let (facts, stored) = (json(&case.join("facts.json")), file(case, "init.safetensors"));
        for arch in facts["archs"].as_object().expect("archs").keys() {
            check(case, &facts, arch, &stored);
        }
        Ok(())
    });
}

fn check(case: &Path, facts: &Value, arch: &str, stored: &Tensors) {
    let hidden = size(facts, "hidden");
    let prefix = format!("{arch}.lora_A_layer0.");
    // Widths follow from A and from the biases: L's holds A and B of each rank; the others' tests need out <= in.
    let (rank, layers) = (size(facts, "r"), size(facts, "layers"));
    let head_dim = hidden / size(facts, "heads");
    let out = |module: &str| match module {
        "k_proj" | "v_proj" => head_dim * size(facts, "kv"),
        _ => hidden,
    };
    let names: Vec<&str> = stored.keys().filter_map(|key| key.strip_prefix(&prefix)).collect();
    assert!(!names.is_empty(), "{}: {arch} has no initial A", case.display());
    let config = HypernetConfig {
        arch: serde_json::from_value::<Arch>(Value::String(arch.into())).expect("arch"),
        layout: AdapterLayout {
            base_model: "tiny".into(),
            layers,
            modules: names
                .iter()
                .map(|m| TargetModule::new(*m, stored[&format!("{prefix}{m}")].shape[1], out(m)))
                .collect(),
        },
        scaling: LoraScaling { alpha: number(facts, "alpha"), rank, use_rslora: true },
        conditioning: Conditioning::Text,
        embedding: size(facts, "te"),
        tasks: 0,
        task_encoder: TaskEncoder::Linear,
        latent: size(facts, "latent"),
        head_in: size(facts, "head_in"),
        head_bias: true,
        offset: Offset::None,
        copying: None,
        instructed: None,
        learnable_positions: false,
        target: Target::Sft,
        dropout: 0.05,
    };
    let initial_a: Vec<Vec<f32>> = names.iter().map(|m| stored[&format!("{prefix}{m}")].f32()).collect();
    let hypernet = Hypernet::with_initial_a(config.clone(), Init::Published, 1, &initial_a, &device()).expect("fresh");
    for m in &names {
        let what = format!("{} {arch} {m}", case.display());
        let entry = |kind: &str| hypernet.parameters.entry(&format!("heads.{m}.{kind}")).expect("head").values.clone();
        assert!(values(entry("weight")).iter().all(|&w| w == 0.0), "{what}: weight");
        assert_close(&what, &values(entry("bias")), &stored[&format!("{arch}.heads.{m}.bias")].values, 1e-7, 1e-6);
    }
    let output =
        hypernet.forward(&hypernet.parameters, embeddings(2, config.embedding, 3), None).expect("forward").factors;
    let mut compared = 0;
    for m in &output.modules {
        for (factor, all) in [("A", m.a.clone()), ("B", m.b.clone())] {
            let Some(expected) = stored.get(&format!("{arch}.generated.{factor}.{}", m.name)) else { continue };
            for task in 0..2 {
                let found = values(all.clone().narrow(0, task, 1));
                assert_close(&format!("{} {arch} {factor}", m.name), &found, &expected.values, 1e-7, 1e-6);
            }
            compared += 1;
        }
    }
    assert!(compared > 0, "{}: {arch} has no generated factors", case.display());
}
