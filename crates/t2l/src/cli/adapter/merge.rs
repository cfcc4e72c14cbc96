//! `t2l adapter merge`: an adapter into the weights of its base model.

use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use t2l::adapter::{Format, fused, gguf::BaseShape, merge};

use super::super::args::{Global, MergeArgs};
use super::super::output;

pub fn run(args: &MergeArgs, global: &Global) -> anyhow::Result<()> {
    // What a PEFT folder needs of the base model is only whether it fuses projections.
    let base = match Format::of(&args.adapter) {
        Format::Gguf => Some(BaseShape::read(&args.model)?),
        Format::Peft => BaseShape::read(&args.model).ok().filter(BaseShape::is_fused),
    };
    let loaded = super::load(&args.adapter, base.as_ref(), global)?;
    let started = Instant::now();
    let adapter = match &base {
        Some(base) => fused::fuse(&loaded.adapter, base)?,
        None => loaded.adapter,
    };
    let merged = merge(&adapter, &args.model, &args.output)?;
    let seconds = started.elapsed().as_secs_f64();
    if !global.json {
        output::line(args.output.display())?;
        let (changed, all, shards) = (merged.merged, merged.tensors, merged.shards);
        let megabytes = merged.bytes as f64 / 1e6;
        eprintln!("{changed} of {all} tensors changed; {megabytes:.1} MB in {shards} files, {seconds:.2} s");
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
