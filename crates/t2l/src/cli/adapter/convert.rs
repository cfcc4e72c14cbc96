//! `t2l adapter convert`: a PEFT folder into a GGUF file, or back.

use anyhow::Context;
use serde_json::json;
use t2l::adapter::Format;

use super::super::args::{ConvertArgs, Global};
use super::super::output;
use super::format_name;

pub fn run(args: &ConvertArgs, global: &Global) -> anyhow::Result<()> {
    let base = super::named_base(&args.base)?;
    let loaded = super::load(&args.input, base.as_ref(), global)?;
    super::save(&loaded.adapter, base, &args.output, loaded.description, &args.written)?;
    if !global.json {
        output::line(args.output.display())?;
        return Ok(());
    }
    let path = std::path::absolute(&args.output).with_context(|| args.output.display().to_string())?;
    output::json(&json!({
        "path": path,
        "format": format_name(Format::of(&args.output)),
        "from": format_name(loaded.format),
        "modules": loaded.adapter.len(),
    }))
}
