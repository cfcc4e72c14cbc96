//! The end-to-end case: descriptions through the encoder, its embeddings through its hypernetwork, and the base model
//! wearing the adapters.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use serde_json::Value;
use t2l_backbone::{Decoder, GenerateOptions, Sampling};
use t2l_core::{AdapterBatch, AdapterGenerator, TargetModule, TextEncoder};
use t2l_encoder::BertEncoder;
use t2l_testing::{Cases, Skip, assert_close, fixtures, json, minilm, smollm2};

use crate::support::{Tensors, device, file, load_state, matrix, reference_config, values};

#[test]
fn reference_pipeline_adapters() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("smollm2"), "hypernet.safetensors", |case| {
        check(case);
        Ok(())
    });
}

/// Every row of a right-padded batch under its own adapter, and on from there.
#[test]
fn reference_pipeline_adapted_model() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("smollm2"), "hypernet.safetensors", adapted_model);
}

fn adapted_model(case: &Path) -> Result<(), Skip> {
    let (encoder, model) = (minilm()?, smollm2()?);
    let (config, io) = (json(&case.join("config.json")), file(case, "io.safetensors"));
    let rows = config["rows"].as_array().expect("rows");
    let descriptions: Vec<&str> = rows.iter().map(|r| r["description"].as_str().expect("a description")).collect();
    let encoder = BertEncoder::load(&encoder, &device()).expect("an encoder");
    let embeddings = encoder.encode(&descriptions).expect("encodes").embeddings;
    assert_close("embeddings", &values(embeddings.clone()), &io["task_embs"].values, 2e-4, 1e-4);
    let factors = hypernet(case, &config, &io).generate(embeddings).expect("generate");
    let decoder = Decoder::load(&model, &device()).expect("a model");
    let adapters = AdapterBatch::from_factors(&factors);

    let [batch, width] = io["input_ids"].shape[..] else { panic!("input_ids of another shape") };
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(io["input_ids"].i64(), [batch, width]), &device());
    let mask = io["attention_mask"].i64();
    for (adapters, prefix) in [(&adapters, ""), (&AdapterBatch::none(batch), "base_")] {
        let embedded = decoder.embed(ids.clone());
        let hidden = decoder.hidden(embedded, &vec![0; batch], None, adapters).expect("runs");
        let (top, expected) = (io[&format!("{prefix}top50_ids")].i64(), &io[&format!("{prefix}top50_values")].values);
        for row in 0..batch {
            let last = mask[row * width..][..width].iter().rposition(|&m| m == 1).expect("a real token");
            let logits = values(decoder.logits(hidden.clone().narrow(0, row, 1).narrow(1, last, 1)));
            let found: Vec<f32> = top[row * 50..][..50].iter().map(|&i| logits[i as usize]).collect();
            assert_close(&format!("{prefix}row {row}"), &found, &expected[row * 50..][..50], 1e-3, 0.0);
        }
    }

    let ids = |row: &Value, key: &str| -> Vec<u32> {
        row[key].as_array().expect("ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
    };
    let prompts: Vec<Vec<u32>> = rows.iter().map(|r| ids(r, "prompt_ids")).collect();
    let options = GenerateOptions { max_new_tokens: vec![24], sampling: Sampling::GREEDY, stops: vec![] };
    let answers = decoder.generate(&prompts, &adapters, &options, |_, _| ()).expect("generates");
    for (row, answer) in rows.iter().zip(answers) {
        assert_eq!(answer.ids, ids(row, "greedy_24_ids"), "{}", row["prompt"]);
    }
    Ok(())
}

fn hypernet(case: &Path, config: &Value, io: &Tensors) -> t2l_hypernet::Hypernet {
    let state = file(case, "hypernet.safetensors");
    let stored = |module: &str, factor: &str| {
        let end = format!(".{module}.lora_{factor}.weight");
        io.iter().find(|(key, _)| key.starts_with("task0.") && key.ends_with(&end)).expect("an adapter of task 0").1
    };
    let widths = |module: &str| (stored(module, "A").shape[1], stored(module, "B").shape[0]);
    load_state(reference_config(config, &state, widths), &state)
}

fn check(case: &Path) {
    let (config, io) = (json(&case.join("config.json")), file(case, "io.safetensors"));
    let hypernet = hypernet(case, &config, &io);
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
