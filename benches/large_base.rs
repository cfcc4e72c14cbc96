//! A base model of Mistral-7B's shape in two bytes a weight: writes a checkpoint of random bf16 weights in shards, loads it
//! with its weights held in bf16, lets it wear an adapter that a hypernetwork generated, decodes, and prints seconds,
//! tokens a second and peak memory. Needs 15 GB of disk and memory:
//!
//! ```sh
//! cargo bench -p t2l --bench large_base -- --folder SCRATCH [--layers 32] [--tokens 16]
//! ```
//!
//! SCRATCH must not exist; it is deleted at the end.

// As in the program.
#[cfg(target_os = "linux")]
#[path = "../crates/t2l/src/allocator.rs"]
mod allocator;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use clap::Parser;
use serde_json::{Map, Value, json};
use t2l::backbone::{Decoder, GenerateOptions, Sampling, WeightType};
use t2l::core::{AdapterBatch, AdapterGenerator, LoraScaling};
use t2l::hypernet::{Arch, Hypernet, HypernetConfig, Init, Offset};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 14336;
const KEY_VALUE: usize = 1024;
const VOCABULARY: usize = 32_000;

/// Layers whose weights share a file.
const LAYERS_PER_SHARD: usize = 8;

#[derive(Parser)]
struct Args {
    /// Where the checkpoint is written; deleted at the end.
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, default_value_t = 32)]
    layers: usize,
    /// Tokens to decode after a prompt of 16.
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let Some(folder) = &args.folder else {
        eprintln!("large_base: name a scratch folder with --folder");
        return Ok(());
    };
    std::fs::create_dir(folder)?;
    let result = write_checkpoint(folder, args.layers).and_then(|()| measure(folder, args.tokens));
    std::fs::remove_dir_all(folder)?;
    result
}

fn measure(folder: &Path, tokens: usize) -> Result<(), Failure> {
    let device = Device::flex();
    let started = Instant::now();
    let decoder = Decoder::load_as(folder, WeightType::Bf16, &device)?;
    println!("loaded in {:.1} s; {}", started.elapsed().as_secs_f64(), memory()?);

    let layout = decoder.layout("random", &["q_proj", "v_proj"])?;
    let scaling = LoraScaling { alpha: 16.0, rank: 8, use_rslora: true };
    let config = HypernetConfig { offset: Offset::None, ..HypernetConfig::new(Arch::L, layout, scaling, 1024) };
    let hypernet = Hypernet::new(config, Init::Reconstruction, 0, &device)?;
    let started = Instant::now();
    let factors = hypernet.generate(Tensor::ones([1, 1024], &device))?;
    println!("adapter generated in {:.2} s", started.elapsed().as_secs_f64());

    let prompt: Vec<u32> = (0..16).map(|t| t * 1_999 % VOCABULARY as u32).collect();
    let decode = |adapters: &AdapterBatch, count: usize| -> Result<(f64, Vec<u32>), Failure> {
        let options = GenerateOptions { max_new_tokens: vec![count], sampling: Sampling::GREEDY, stops: vec![] };
        let started = Instant::now();
        let ids = decoder.generate(std::slice::from_ref(&prompt), adapters, &options, |_, _| ())?.remove(0).ids;
        Ok((started.elapsed().as_secs_f64(), ids))
    };
    let adapters = AdapterBatch::from_factors(&factors);
    let (first, _) = decode(&adapters, 1)?;
    let (all, adapted) = decode(&adapters, tokens + 1)?;
    let (_, base) = decode(&AdapterBatch::none(1), tokens + 1)?;
    println!("prompt of 16 in {first:.2} s; {:.2} tokens a second after it", tokens as f64 / (all - first));
    println!("tokens that differ from the base model's: {}", adapted.iter().zip(&base).filter(|(a, b)| a != b).count());
    println!("{}", memory()?);
    Ok(())
}

/// A folder in Hugging Face's layout, without a tokenizer.
fn write_checkpoint(folder: &Path, layers: usize) -> Result<(), Failure> {
    let config = json!({
        "model_type": "mistral", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 1e6, "max_position_embeddings": 32_768, "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let mut places = Map::new();
    let table = [VOCABULARY, HIDDEN];
    let outer = [("model.embed_tokens", table.to_vec()), ("lm_head", table.to_vec()), ("model.norm", vec![HIDDEN])];
    let outer = outer.map(|(name, shape)| (format!("{name}.weight"), shape));
    write_shard(folder, "outer.safetensors", &outer, &mut places)?;
    for first in (0..layers).step_by(LAYERS_PER_SHARD) {
        let tensors: Vec<_> = (first..layers.min(first + LAYERS_PER_SHARD)).flat_map(layer).collect();
        write_shard(folder, &format!("layers-{first}.safetensors"), &tensors, &mut places)?;
    }
    std::fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": places }).to_string())?;
    Ok(())
}

fn layer(layer: usize) -> Vec<(String, Vec<usize>)> {
    [
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![KEY_VALUE, HIDDEN]),
        ("self_attn.v_proj", vec![KEY_VALUE, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
    ]
    .map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape))
    .to_vec()
}

/// Writes tensors of random values as safetensors lays them out, one after another.
fn write_shard(
    folder: &Path,
    file: &str,
    tensors: &[(String, Vec<usize>)],
    places: &mut Map<String, Value>,
) -> Result<(), Failure> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
        places.insert(name.clone(), json!(file));
    }
    let header = Value::Object(header).to_string();
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(folder.join(file))?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for (i, (_, shape)) in tensors.iter().enumerate() {
        let (centre, spread) = if shape.len() == 1 { (1.0, 0.1) } else { (0.0, (3.0 / shape[1] as f32).sqrt()) };
        // A long stretch of values, written again and again; its length is no multiple of any row's.
        let stretch: Vec<u8> = uniform(i as u64 + 1)
            .take(1_000_003)
            .flat_map(|u| ((((centre + spread * u).to_bits()) >> 16) as u16).to_le_bytes())
            .collect();
        let mut left = 2 * shape.iter().product::<usize>();
        while left > 0 {
            let count = left.min(stretch.len());
            out.write_all(&stretch[..count])?;
            left -= count;
        }
    }
    out.flush()?;
    Ok(())
}

/// Values from -1 to 1 (xorshift).
fn uniform(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Peak resident memory, and what of it now is the program's own rather than pages of mapped files (Linux), in GB.
fn memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let gigabytes = |name: &str| -> Result<f64, Failure> {
        let line = status.lines().find(|l| l.starts_with(name)).ok_or_else(|| format!("no {name}"))?;
        Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse::<f64>()? / 1e6)
    };
    Ok(format!("peak memory {:.2} GB, own now {:.2} GB", gigabytes("VmHWM:")?, gigabytes("RssAnon:")?))
}
