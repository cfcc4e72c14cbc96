//! Plain adapters against PEFT: losses, gradients and parameters after eight optimizer steps, alone and in company.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;
use t2l_adapter::peft;
use t2l_backbone::{Decoder, Products};
use t2l_core::{AdapterLayout, LoraScaling, Parameters};
use t2l_data::TrainBatch;
use t2l_testing::{Cases, Stored, assert_close, fixtures, json, tensors};
use t2l_train::{LossConfig, Optimizer, PlainLora, Weighting, adapter_step};

use super::support::{Tensors, assert_gradients, assert_parameters, batch, number, optimizer, size};

#[test]
fn reference_lora() {
    let Some(fixtures) = fixtures() else { return };
    let area = fixtures.join("training");
    Cases::each(&area, "adapter_init/adapter_config.json", |case| {
        let config = json(&case.join("config.json"));
        let case = Case::open(case, &config);
        case.alone(&config);
        case.in_company(&config);
        Ok(())
    });
}

struct Case<'a> {
    folder: &'a Path,
    decoder: Decoder,
    layout: AdapterLayout,
    scaling: LoraScaling,
    init: PlainLora,
    batches: [TrainBatch; 2],
    loss: LossConfig,
}

impl<'a> Case<'a> {
    fn open(folder: &'a Path, config: &Value) -> Self {
        let device = Device::flex();
        let base = folder.join(config["base_model"].as_str().expect("base_model"));
        let decoder = Decoder::load(&base, &device).expect("base model");
        let adapter = peft::load(&folder.join("adapter_init"), &device).expect("adapter");
        let mut modules: Vec<&str> = adapter.iter().map(|(_, module, _)| module).collect();
        modules.sort_unstable();
        modules.dedup();
        let layout = decoder.layout("tiny", &modules).expect("layout");
        let (_, _, weights) = adapter.iter().next().expect("a place");
        let scaling = adapter.scaling(weights);
        let init = PlainLora::from_adapter(&adapter, &layout, scaling, "adapter_init").expect("fits");
        let token = config["equally_weight_sample"] == false;
        Self {
            folder,
            decoder: decoder.for_training(Products::F32),
            layout,
            scaling,
            init,
            batches: [0, 1].map(|i| batch(&tensors(&folder.join(format!("batch{i}.safetensors"))))),
            loss: LossConfig {
                label_smoothing: number(config, "label_smoothing"),
                ..LossConfig::plain(if token { Weighting::Token } else { Weighting::Sample })
            },
        }
    }

    /// A PEFT file's tensors under our names, layers stacked.
    fn stacked(&self, stored: &Tensors) -> Tensors {
        let mut stacked: Tensors = BTreeMap::new();
        for (name, tensor) in stored {
            let mut parts = name.split('.').skip_while(|p| *p != "layers").skip(1);
            let (layer, module) = (parts.next().expect("layer"), parts.nth(1).expect("module"));
            let factor = if name.contains("lora_A") { "A" } else { "B" };
            // Names sort by layer, so values arrive in order.
            let entry = stacked
                .entry(format!("{factor}.{module}"))
                .or_insert_with(|| Stored { shape: vec![0], values: vec![] });
            assert_eq!(entry.shape[0].to_string(), layer);
            entry.shape[0] += 1;
            entry.values.extend(&tensor.values);
        }
        assert!(stacked.values().all(|s| s.shape[0] == self.layout.layers));
        stacked
    }

    fn expected(&self, name: &str) -> Tensors {
        self.stacked(&tensors(&self.folder.join(name)))
    }

    fn alone(&self, config: &Value) {
        let (optimizer_config, schedule) = optimizer(config);
        let mut parameters = self.init.parameters.clone();
        let mut optimizer = Optimizer::new(optimizer_config.clone(), &parameters);
        for entry in config["log"].as_array().expect("log") {
            let (step, i) = (size(entry, "step"), size(entry, "batch"));
            let batch = &self.batches[i];
            let out = self.step(&[&parameters], batch, &vec![0; batch.rows]);
            let what = format!("{} step {step}", self.folder.display());
            let loss = out.losses[0].expect("has rows");
            assert_close(&what, &[loss as f32], &[number(entry, "loss")], 0.0, 2e-5);
            let gradients = out.gradients[0].as_ref().expect("has rows");
            let expected = self.folder.join(format!("grads_step{step}.safetensors"));
            if expected.exists() {
                assert_gradients(&what, &parameters, gradients, &self.stacked(&tensors(&expected)));
            }
            let rate = schedule.at(step as u64);
            assert_close(&what, &[rate as f32], &[number(entry, "lr")], 1e-9, 1e-6);
            let norm = optimizer.step(&mut parameters, gradients, rate);
            assert_close(&what, &[norm as f32], &[number(entry, "grad_norm_before_clip")], 0.0, 1e-4);
        }
        let last = self.expected("adapter_final/adapter_model.safetensors");
        assert_parameters(&parameters, &last, optimizer_config.learning_rate);
    }

    /// Both batches in one pass, interleaved, each under its own adapter, and a third adapter without rows: every
    /// adapter has the loss and gradients that it has alone.
    fn in_company(&self, config: &Value) {
        let [first, second] = &self.batches;
        let mut both = first.clone();
        both.rows += second.rows;
        both.ids.extend(&second.ids);
        let offset = (first.rows * first.width) as i32;
        both.label_positions.extend(second.label_positions.iter().map(|p| p + offset));
        both.labels.extend(&second.labels);
        both.label_rows.extend(second.label_rows.iter().map(|r| r + first.rows));
        both.label_counts.extend(&second.label_counts);
        let wears: Vec<usize> = vec![2; first.rows].into_iter().chain(vec![0; second.rows]).collect();
        let p = &self.init.parameters;
        let out = self.step(&[p, p, p], &both, &wears);
        assert!(out.losses[1].is_none() && out.gradients[1].is_none());
        let log = config["log"].as_array().expect("log");
        // At step 1 nothing has moved yet: the first step runs at learning rate 0.
        for (adapter, entry) in [(2, &log[0]), (0, &log[1])] {
            let loss = out.losses[adapter].expect("has rows");
            assert_close("in company", &[loss as f32], &[number(entry, "loss")], 0.0, 2e-5);
        }
        let gradients = out.gradients[2].as_ref().expect("has rows");
        assert_gradients("in company", p, gradients, &self.expected("grads_step0.safetensors"));
    }

    fn step(&self, adapters: &[&Parameters], batch: &TrainBatch, wears: &[usize]) -> t2l_train::AdapterStepOutput {
        adapter_step(&self.decoder, adapters, &self.layout, self.scaling, batch, wears, &self.loss, None).expect("step")
    }
}
