//! `t2l adapter convert`: a PEFT folder into a GGUF file, or back.

use serde_json::json;

use super::super::args::{ConvertArgs, Global};
use super::format_name;

pub fn run(args: &ConvertArgs, global: &Global) -> anyhow::Result<()> {
    let base = super::named_base(&args.base)?;
    let loaded = super::load(&args.input, base.as_ref(), global)?;
    super::save(&loaded.adapter, base, &args.output, loaded.description, &args.written)?;
    let more = [("from", json!(format_name(loaded.format))), ("modules", json!(loaded.adapter.len()))];
    super::tell_written(&args.output, &more, global)
}
