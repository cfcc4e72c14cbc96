//! A base model's logits and greedy continuation, wearing an adapter or none: the numbers that `cargo xtask interop`
//! compares with those of other programs.
//!
//! `cargo run --release -p t2l --example logits -- MODEL 1,2,3 16 logits.f32 [ADAPTER]` continues the tokens 1, 2, 3 by
//! 16, prints those 16, and writes the logits at every one of the 19 positions, `[19, vocabulary]`, as little-endian f32.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::{Tensor, TensorData};
use t2l::adapter::{self, gguf::BaseShape};
use t2l::backbone::{Decoder, GenerateOptions};
use t2l::prelude::*;

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let mut word = |what: &'static str| words.next().with_context(|| format!("{what} is missing"));
    let model = PathBuf::from(word("MODEL")?);
    let tokens = word("TOKENS")?.to_string_lossy().split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let more: usize = word("COUNT")?.to_string_lossy().parse()?;
    let out = PathBuf::from(word("OUT")?);
    let adapter = words.next().map(PathBuf::from);

    let device = device::parse("cpu")?;
    let decoder = Decoder::load(&model, &device)?;
    let worn = match &adapter {
        Some(path) => {
            let adapter = adapter::load(path, Some(&BaseShape::read(&model)?), &device)?.adapter;
            AdapterBatch::from_adapters(&[&adapter], &[Some(0)], &device)?
        }
        None => AdapterBatch::none(1),
    };
    let options = GenerateOptions { max_new_tokens: vec![more], sampling: Sampling::GREEDY, stops: vec![] };
    let mut all = tokens.clone();
    for answer in decoder.generate(&[tokens], &worn, &options, |_, _| ())? {
        println!("{}", answer.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        all.extend(answer.ids);
    }
    let ids: Vec<i32> = all.iter().map(|&id| i32::try_from(id)).collect::<Result<_, _>>()?;
    let ids = Tensor::from_data(TensorData::new(ids, [1, all.len()]), &device);
    let logits = decoder.logits(decoder.hidden(decoder.embed(ids), &[0], None, &worn)?);
    let bytes: Vec<u8> = logits.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
    std::fs::write(&out, bytes).with_context(|| out.display().to_string())
}
