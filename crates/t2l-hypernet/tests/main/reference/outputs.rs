//! Factors, encoded embeddings, traces, ΔW and raw-scale adapters of every case.

use std::path::Path;

use burn::tensor::Tensor;
use t2l_core::AdapterGenerator;
use t2l_hypernet::{HypernetConfig, HypernetOutput};
use t2l_testing::{Cases, assert_close, fixtures, json};

use crate::support::{Tensors, device, file, load_state, matrix, reference_config, size, values};

const ATOL: f64 = 2e-5;
const RTOL: f64 = 1e-4;

#[test]
fn reference_hypernet_outputs() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("hypernet"), "config.json", |case| {
        check(case);
        Ok(())
    });
}

fn check(case: &Path) {
    let config = json(&case.join("config.json"));
    let (state, io) = (file(case, "state_dict.safetensors"), file(case, "io.safetensors"));
    let widths = |m: &str| (size(&config["in_features"], m), size(&config["out_features"], m));
    let config = reference_config(&config, &state, widths);
    let hypernet = load_state(config.clone(), &state);
    let tasks = io.get("task_embs").map_or_else(|| Tensor::zeros([1, 1], &device()), matrix);

    let output = hypernet.forward(&hypernet.parameters, tasks.clone(), None).expect("forward");
    let name = case.display().to_string();
    let compared = compare(&name, &config, &output, &io);
    assert_eq!(compared, io.len() - usize::from(io.contains_key("task_embs")), "{name}: tensors compared");

    let adapter = case.join("generated_task0.safetensors");
    if adapter.exists() {
        let expected = t2l_testing::tensors(&adapter);
        let generated = hypernet.generate(tasks).expect("generate").adapter(0, "").expect("task 0");
        assert_eq!(2 * generated.len(), expected.len(), "{name}: places of the adapter");
        for (layer, module, weights) in generated.iter() {
            let place = format!(".layers.{layer}.");
            for (factor, found) in [("A", values(weights.a.clone())), ("B", values(weights.b.clone()))] {
                let end = format!(".{module}.lora_{factor}.weight");
                let (key, stored) = expected
                    .iter()
                    .find(|(key, _)| key.contains(&place) && key.ends_with(&end))
                    .unwrap_or_else(|| panic!("{name}: layer {layer} {module} is not in the reference"));
                assert_close(&format!("{name} {key}"), &found, &stored.values, ATOL, RTOL);
            }
        }
    }
}

/// Compares everything that io.safetensors holds; answers how many of its tensors that were.
fn compare(name: &str, config: &HypernetConfig, output: &HypernetOutput, io: &Tensors) -> usize {
    let mut compared = 0;
    let mut check = |key: &str, found: Vec<f32>, atol: f64| {
        let stored = io.get(key).unwrap_or_else(|| panic!("{name}: no {key} in the reference"));
        assert_close(&format!("{name} {key}"), &found, &stored.values, atol, RTOL);
        compared += 1;
    };
    for m in &output.factors.modules {
        check(&format!("A.{}", m.name), values(m.a.clone()), ATOL);
        check(&format!("B.{}", m.name), values(m.b.clone()), ATOL);
        let key = format!("delta_w.{}", m.name);
        let stored = io.get(&key).map_or(0, |stored| stored.shape[0]);
        if stored > 0 {
            let delta = output.factors.delta_w(&m.name).expect("module").narrow(0, 0, stored);
            check(&key, values(delta), 1e-4);
        }
    }
    if let Some(encoded) = &output.encoded {
        check("encoded_task_emb", values(encoded.clone()), ATOL);
    }
    if let Some(loss) = &output.aux_loss {
        check("encoder_aux_loss", values(loss.clone()), ATOL);
    }
    let (tasks, layers) = (output.factors.tasks(), config.layout.layers);
    for (i, module) in config.layout.modules.iter().enumerate() {
        for (part, trace) in ["mixer_in", "mixer_out", "mlp1_out"].iter().zip(&output.trace) {
            let rows = trace.clone().narrow(0, i * tasks * layers, layers);
            check(&format!("trace.{}.{part}", module.name), values(rows), ATOL);
        }
    }
    for (part, table) in ["cos", "sin"].iter().zip(t2l_hypernet::rotary_tables(config.scaling.rank, config.width())) {
        let key = format!("trace.rotary_{part}");
        if io.contains_key(&key) {
            check(&key, table, ATOL);
        }
    }
    compared
}
