//! SFT against the published code: losses, gradients and parameters after eight optimizer steps.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;
use t2l_backbone::{Decoder, Products};
use t2l_testing::{Cases, assert_close, fixtures, json, tensors};
use t2l_train::{LossConfig, Optimizer, Weighting, sft_step};

use super::support::{
    assert_gradients, assert_parameters, batch, hypernet, hypernet_config, matrix, number, optimizer, size,
};

#[test]
fn reference_sft() {
    let Some(fixtures) = fixtures() else { return };
    let area = fixtures.join("training");
    Cases::each(&area, "config.json", |case| {
        let config = json(&case.join("config.json"));
        if config["training_task"] == "sft" && case.join("hypernet_init.safetensors").exists() {
            check(case, &config);
        }
        Ok(())
    });
}

fn check(case: &Path, config: &Value) {
    let device = Device::flex();
    let decoder =
        Decoder::load(&case.join(config["base_model"].as_str().expect("base_model")), &device).expect("base model");
    let decoder = decoder.for_training(Products::F32);
    let mut hypernet = hypernet(case, hypernet_config(config));
    let batches = [0, 1].map(|i| {
        let stored = tensors(&case.join(format!("batch{i}.safetensors")));
        (batch(&stored), matrix(&stored["task_embs"]))
    });

    let token = config["equally_weight_sample"] == false;
    let base = LossConfig {
        label_smoothing: number(config, "label_smoothing"),
        weighting: if token { Weighting::Token } else { Weighting::Sample },
        l2_generated: number(config, "l2_reg_generated_w"),
        lora_dropout: 0.0,
        neftune_alpha: 0.0,
        ..LossConfig::default()
    };
    // Batch 0 under all four options.
    for (name, smoothing, weighting) in [
        ("batch0_loss_no_smoothing_equal_weight", 0.0, Weighting::Sample),
        ("batch0_loss_no_smoothing_token_weight", 0.0, Weighting::Token),
        ("batch0_loss_smoothing_equal_weight", base.label_smoothing, Weighting::Sample),
        ("batch0_loss_smoothing_token_weight", base.label_smoothing, Weighting::Token),
    ] {
        let loss = LossConfig { label_smoothing: smoothing, weighting, ..base.clone() };
        let (batch, embeddings) = &batches[0];
        let out = sft_step(&decoder, &hypernet, batch, embeddings.clone(), &[], &loss, None).expect("step");
        assert_close(name, &[out.sft_loss as f32], &[number(config, name)], 0.0, 2e-5);
    }

    let (optimizer_config, schedule) = optimizer(config);
    let mut optimizer = Optimizer::new(optimizer_config.clone(), &hypernet.parameters);
    let expected_gradients = tensors(&case.join("grads_step0.safetensors"));
    for entry in config["log"].as_array().expect("log") {
        let step = size(entry, "step");
        let (batch, embeddings) = &batches[size(entry, "batch")];
        let out = sft_step(&decoder, &hypernet, batch, embeddings.clone(), &[], &base, None).expect("step");
        let what = format!("{} step {step}", case.display());
        assert_close(&what, &[out.sft_loss as f32], &[number(entry, "sft_loss")], 0.0, 2e-5);
        assert_close(&what, &[out.l2_loss as f32], &[number(entry, "generated_w_l2_loss")], 0.0, 1e-4);
        if step == 0 {
            assert_gradients(&what, &hypernet.parameters, &out.gradients, &expected_gradients);
        }
        let rate = schedule.at(step as u64);
        assert_close(&what, &[rate as f32], &[number(entry, "lr")], 1e-9, 1e-6);
        let norm = optimizer.step(&mut hypernet.parameters, &out.gradients, rate);
        assert_close(&what, &[norm as f32], &[number(entry, "grad_norm_before_clip")], 0.0, 1e-4);
    }

    let last = case.join("hypernet_final.safetensors");
    if last.exists() {
        assert_parameters(&hypernet.parameters, &tensors(&last), optimizer_config.learning_rate);
    }
}
