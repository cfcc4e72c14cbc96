//! Adapters of the end-to-end case: its embeddings through its hypernetwork.

use std::path::Path;

use t2l_core::{AdapterGenerator, TargetModule};
use t2l_testing::{Cases, assert_close, fixtures, json};

use crate::support::{file, load_state, matrix, reference_config, values};

#[test]
fn reference_pipeline_adapters() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("smollm2"), "hypernet.safetensors", |case| {
        check(case);
        Ok(())
    });
}

fn check(case: &Path) {
    let config = json(&case.join("config.json"));
    let (state, io) = (file(case, "hypernet.safetensors"), file(case, "io.safetensors"));
    let stored = |module: &str, factor: &str| {
        let end = format!(".{module}.lora_{factor}.weight");
        io.iter().find(|(key, _)| key.starts_with("task0.") && key.ends_with(&end)).expect("an adapter of task 0").1
    };
    let widths = |module: &str| (stored(module, "A").shape[1], stored(module, "B").shape[0]);
    let hypernet = load_state(reference_config(&config, &state, widths), &state);
    let tasks = matrix(&io["task_embs"]);
    let encoded = hypernet.forward(&hypernet.parameters, tasks.clone(), None).expect("forward").encoded;
    assert_close("encoded", &values(encoded.expect("conditioned")), &io["encoded_task_emb"].values, 2e-5, 1e-4);

    let factors = hypernet.generate(tasks).expect("generate");
    let sums = config["adapter_sums_and_abs_sums"].as_object().expect("sums");
    let mut compared = 0;
    for task in 0..factors.tasks() {
        for (layer, module, weights) in factors.adapter(task, "").expect("task").iter() {
            for (factor, found) in [("A", values(weights.a.clone())), ("B", values(weights.b.clone()))] {
                let block = TargetModule::block(module);
                let end = format!(".layers.{layer}.{block}.{module}.lora_{factor}.weight");
                let start = format!("task{task}.");
                let fits = |key: &str| key.starts_with(&start) && key.ends_with(&end);
                let expected = sums.iter().find(|(key, _)| fits(key)).expect("a sum").1;
                let sum: f64 = found.iter().map(|&x| f64::from(x)).sum();
                let absolute: f64 = found.iter().map(|&x| f64::from(x.abs())).sum();
                let off = |found: f64, i: usize| (found - expected[i].as_f64().expect("a number")).abs();
                // Each of the values may be off by 2e-5 + 1e-4 of itself; over the sum that is rounding, not bias.
                let limit = 1e-5 * absolute;
                assert!(off(sum, 0) <= limit && off(absolute, 1) <= limit, "{start}{end}: {sum}, {absolute}");
                if let Some((key, stored)) = io.iter().find(|(key, _)| fits(key)) {
                    assert_close(key, &found, &stored.values, 2e-5, 1e-4);
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, sums.len(), "{}: adapters compared", case.display());
}
