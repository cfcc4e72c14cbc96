//! `t2l adapter merge`: an adapter into the weights of its base model.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;
use t2l::adapter::{Format, fused, gguf::BaseShape, merge};
use t2l::core::counted;
use t2l::models::Models;

use super::super::args::{Global, MergeArgs};
use super::super::output;

pub fn run(args: &MergeArgs, global: &Global) -> anyhow::Result<()> {
    let model = base_folder(&args.model)?;
    // What a PEFT folder needs of the base model is only whether it fuses projections.
    let base = match Format::of(&args.adapter) {
        Format::Gguf => Some(BaseShape::read(&model)?),
        Format::Peft => BaseShape::read(&model).ok().filter(BaseShape::is_fused),
    };
    let loaded = super::load(&args.adapter, base.as_ref(), global)?;
    let started = Instant::now();
    let adapter = match &base {
        Some(base) => fused::fuse(&loaded.adapter, base)?,
        None => loaded.adapter,
    };
    let merged = merge(&adapter, &model, &args.output)?;
    let seconds = started.elapsed().as_secs_f64();
    if !global.json {
        output::line(args.output.display())?;
        let (changed, all, shards) = (merged.merged, counted(merged.tensors, "tensor"), counted(merged.shards, "file"));
        let megabytes = merged.bytes as f64 / 1e6;
        eprintln!("{changed} of {all} changed; {megabytes:.1} MB in {shards}, {seconds:.2} s");
        return Ok(());
    }
    let path = std::path::absolute(&args.output).with_context(|| args.output.display().to_string())?;
    output::json(&json!({
        "path": path,
        "merged": merged.merged,
        "tensors": merged.tensors,
        "shards": merged.shards,
        "bytes": merged.bytes,
        "seconds": seconds,
    }))
}

/// Where the base model lies. Known ones that are GGUF, which nothing is merged into, are refused before anybody fetches
/// them for this.
fn base_folder(name: &str) -> anyhow::Result<PathBuf> {
    let (models, path) = (Models::new(None)?, PathBuf::from(name));
    match models.known(name) {
        _ if path.is_dir() => Ok(path),
        Some(known) if known.files.iter().all(|file| file.path.ends_with(".gguf")) => bail!(
            "{name}: `t2l models` has it as GGUF, and an adapter is merged into safetensors files; name the folder that \
             `hf download {} --local-dir FOLDER` fills",
            known.hub_id
        ),
        _ => Ok(models.resolve(name)?),
    }
}
