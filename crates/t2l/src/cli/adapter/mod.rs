//! `t2l adapter …`: what can be done with adapters once they are files.

mod convert;
mod diff;
mod inspect;
mod merge;
mod mix;

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};
use t2l::adapter::gguf::BaseShape;
use t2l::adapter::{self, Dtype, Format, Loaded, SaveOptions};
use t2l::core::{Adapter, device};
use t2l::models::Models;

use super::args::{self, AdapterBaseArgs, AdapterCommand, AdapterOutputArgs, Global};
use super::output;

pub fn run(command: &AdapterCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        AdapterCommand::Inspect(args) => inspect::run(args, global),
        AdapterCommand::Convert(args) => convert::run(args, global),
        AdapterCommand::Merge(args) => merge::run(args, global),
        AdapterCommand::Mix(args) => mix::run(args, global),
        AdapterCommand::Diff(args) => diff::run(args, global),
    }
}

/// Reads an adapter of either format.
fn load(path: &Path, base: Option<&BaseShape>, global: &Global) -> anyhow::Result<Loaded> {
    Ok(adapter::load(path, base, &device::parse(&global.device)?)?)
}

/// The base model that the command line names.
pub(super) fn named_base(args: &AdapterBaseArgs) -> anyhow::Result<Option<BaseShape>> {
    let Some(name) = &args.model else { return Ok(None) };
    Ok(Some(BaseShape::read(&Models::new(None)?.resolve(name)?)?))
}

/// The base model of this name, if it is one of the known ones that are here.
pub(super) fn known_base(name: &str) -> anyhow::Result<Option<BaseShape>> {
    let path = Models::new(None).and_then(|models| models.path(name)).ok();
    Ok(path.map(|path| BaseShape::read(&path)).transpose()?)
}

/// Says where an adapter was written; as JSON with what else there is to say.
fn tell_written(path: &Path, more: &[(&str, Value)], global: &Global) -> anyhow::Result<()> {
    if !global.json {
        return output::line(path.display());
    }
    let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let mut told = Map::new();
    told.insert("path".into(), json!(absolute));
    told.insert("format".into(), json!(format_name(Format::of(path))));
    told.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    output::json(&told)
}

/// Writes an adapter in the format that the path means. A GGUF file needs the base model: the one that was named, else
/// the adapter's own if it is one of the known ones that are here.
pub(super) fn save(
    adapter: &Adapter,
    base: Option<BaseShape>,
    path: &Path,
    description: Option<String>,
    args: &AdapterOutputArgs,
) -> anyhow::Result<()> {
    let base = match (base, Format::of(path)) {
        (None, Format::Gguf) => known_base(&adapter.base_model)?,
        (base, _) => base,
    };
    let options = SaveOptions {
        dtype: dtype(args.dtype),
        base_model_name: args.base_name.clone(),
        description,
        force: args.force,
    };
    Ok(adapter::save(adapter, base.as_ref(), path, &options)?)
}

fn dtype(dtype: args::Dtype) -> Dtype {
    match dtype {
        args::Dtype::F32 => Dtype::F32,
        args::Dtype::F16 => Dtype::F16,
        args::Dtype::Bf16 => Dtype::Bf16,
    }
}

/// What a format is called in results.
fn format_name(format: Format) -> &'static str {
    match format {
        Format::Peft => "peft",
        Format::Gguf => "gguf",
    }
}
