//! Our side of the comparison with PyTorch: runs one named piece of work per line of standard input and answers with
//! the seconds it took. `benches/compare.py` starts it and drives both sides in turn.

// As in the program.
#[cfg(target_os = "linux")]
#[path = "../crates/t2l/src/allocator.rs"]
mod allocator;

use std::io::{BufRead, Write};
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use t2l::backbone::{Backbone, Decoder, GenerateOptions, Products, Sampling};
use t2l::core::{AdapterBatch, AdapterGenerator, AdapterLayout, LoraScaling, TargetModule};
use t2l::data::{TokenizedExample, TrainBatch};
use t2l::hypernet::{Arch, Hypernet, HypernetConfig, Init, Offset};
use t2l::models::Models;
use t2l::train::{LossConfig, sft_step};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` asks every bench to run; this one only works for its driver.
    if std::env::args().any(|a| a == "--bench") && std::env::var_os("T2L_COMPARE").is_none() {
        eprintln!("worker: run benches/compare.py");
        return Ok(());
    }
    let mut worker = Worker { device: Device::flex(), model: None, training: vec![], hypernets: vec![] };
    for line in std::io::stdin().lock().lines() {
        let seconds = worker.run(&line?)?;
        println!("{seconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Worker {
    device: Device,
    model: Option<Backbone>,
    training: Vec<(Products, Decoder, Hypernet)>,
    hypernets: Vec<(String, Hypernet)>,
}

impl Worker {
    fn run(&mut self, line: &str) -> Result<f64, Box<dyn std::error::Error>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words.get(i).and_then(|w| w.parse::<usize>().ok()).ok_or("a number is missing");
        match words.first().copied() {
            Some("sft") => self.sft(number(1)?, number(2)?, Products::F32, words.get(3) == Some(&"checkpointed")),
            Some("sft-bf16") => self.sft(number(1)?, number(2)?, Products::Bf16, false),
            Some("generate") => self.generate(words[1], number(2)?),
            Some("decode") => self.decode(number(1)?, number(2)?, number(3)?, false),
            Some("decode-adapted") => self.decode(number(1)?, number(2)?, number(3)?, true),
            Some("memory") => memory(),
            _ => Err(format!("unknown work {line:?}").into()),
        }
    }

    fn model(&mut self) -> Result<&Backbone, Box<dyn std::error::Error>> {
        if self.model.is_none() {
            let path = Models::new(None)?.pull("smollm2-135m-instruct", &mut ())?;
            self.model = Some(Backbone::load(&path, &self.device)?);
        }
        Ok(self.model.as_ref().ok_or("no model")?)
    }

    /// One SFT step: rows of equal length, 16 labels each, gradients of an L hypernetwork.
    fn sft(
        &mut self,
        rows: usize,
        tokens: usize,
        products: Products,
        gradient_checkpointing: bool,
    ) -> Result<f64, Box<dyn std::error::Error>> {
        let device = self.device.clone();
        if !self.training.iter().any(|(p, ..)| *p == products) {
            let decoder = self.model()?.decoder.clone();
            let layout = decoder.layout("base", &["q_proj", "v_proj"])?;
            let settings = HypernetConfig { offset: Offset::Trainable, ..config(Arch::L, layout, 384) };
            let hypernet = Hypernet::new(settings, Init::Ours, 0, &device)?;
            let decoder = decoder.for_training(products);
            if decoder.products() != products {
                return Err("this processor has no products in bf16".into());
            }
            self.training.push((products, decoder, hypernet));
        }
        let found = self.training.iter().find(|(p, ..)| *p == products);
        let (_, decoder, hypernet) = found.ok_or("no model")?;
        let row = |i: usize| TokenizedExample {
            prompt: (0..tokens - 16).map(|t| ((t * 37 + i * 101) % 49_000) as u32).collect(),
            response: (0..16).map(|t| ((t * 53 + i * 211) % 49_000) as u32).collect(),
        };
        let examples: Vec<TokenizedExample> = (0..rows).map(row).collect();
        let batch = TrainBatch::new(&examples.iter().collect::<Vec<_>>(), 8, 0);
        let values: Vec<f32> = (0..rows * 384).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let embeddings = Tensor::from_data(TensorData::new(values, [rows, 384]), &device);
        let loss =
            LossConfig { lora_dropout: 0.0, neftune_alpha: 0.0, gradient_checkpointing, ..LossConfig::default() };
        let started = Instant::now();
        sft_step(decoder, hypernet, &batch, embeddings, &[], &loss, None)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Adapters of some tasks at Mistral-7B's shapes.
    fn generate(&mut self, arch: &str, tasks: usize) -> Result<f64, Box<dyn std::error::Error>> {
        if !self.hypernets.iter().any(|(name, _)| name == arch) {
            let kind = match arch {
                "L" => Arch::L,
                "M" => Arch::M,
                _ => Arch::S,
            };
            let modules = vec![TargetModule::new("q_proj", 4096, 4096), TargetModule::new("v_proj", 4096, 1024)];
            let layout = AdapterLayout { base_model: "mistral".into(), layers: 32, modules };
            let hypernet = Hypernet::new(config(kind, layout, 1024), Init::Reconstruction, 0, &self.device)?;
            self.hypernets.push((arch.to_owned(), hypernet));
        }
        let (_, hypernet) = self.hypernets.iter().find(|(name, _)| name == arch).ok_or("no hypernetwork")?;
        let embeddings = Tensor::ones([tasks, 1024], &self.device);
        let started = Instant::now();
        let factors = hypernet.generate(embeddings)?;
        std::hint::black_box(factors);
        Ok(started.elapsed().as_secs_f64())
    }

    /// Prefill of a prompt, then some greedy tokens; every row under an adapter of its own where `adapted`.
    fn decode(
        &mut self,
        rows: usize,
        prompt: usize,
        new: usize,
        adapted: bool,
    ) -> Result<f64, Box<dyn std::error::Error>> {
        let prompts: Vec<Vec<u32>> =
            (0..rows).map(|r| (0..prompt).map(|t| ((t * 37 + r * 101) % 49_000) as u32).collect()).collect();
        self.model()?;
        let model = self.model.as_ref().ok_or("no model")?;
        let options = GenerateOptions { max_new_tokens: vec![new], sampling: Sampling::GREEDY, stops: vec![] };
        let adapters = if adapted {
            let settings = config(Arch::L, model.decoder.layout("base", &["q_proj", "v_proj"])?, 384);
            let hypernet = Hypernet::new(settings, Init::Reconstruction, 0, &self.device)?;
            AdapterBatch::from_factors(&hypernet.generate(Tensor::ones([rows, 384], &self.device))?)
        } else {
            AdapterBatch::none(rows)
        };
        let started = Instant::now();
        model.decoder.generate(&prompts, &adapters, &options, |_, _| ())?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Paper-size settings.
fn config(arch: Arch, layout: AdapterLayout, embedding: usize) -> HypernetConfig {
    let scaling = LoraScaling { alpha: 16.0, rank: 8, use_rslora: true };
    HypernetConfig { offset: Offset::None, ..HypernetConfig::new(arch, layout, scaling, embedding) }
}

/// Peak resident memory in MB (Linux).
fn memory() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).ok_or("no value")?.parse()?;
    Ok(kilobytes / 1024.0)
}
