//! `t2l generate`: descriptions to adapters.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use t2l::GeneratedAdapter;
use t2l::adapter::gguf::BaseShape;
use t2l::adapter::{fused, inspect};
use t2l::backbone::WeightType;
use t2l::core::counted;

use super::args::{Format, GenerateArgs, Global};
use super::distil::Lessons;
use super::output::{self, Terminal};
use super::{stale, target};

/// Longest input of `-f` that is read, in bytes.
const FILE_LIMIT: u64 = 64 << 20;
/// Working memory of one forward pass, whose adapters are in memory together, in bytes.
const BUDGET: usize = 256 << 20;

pub fn run(args: &GenerateArgs, global: &Global) -> anyhow::Result<()> {
    let mut descriptions = args.descriptions.clone();
    if let Some(file) = &args.file {
        descriptions.extend(read_lines(file)?);
    }
    if descriptions.is_empty() {
        bail!("no description given; write one after `generate`, or name a file of them with -f");
    }
    let several = descriptions.len() > 1;
    let named_gguf = t2l::adapter::Format::of(&args.output) == t2l::adapter::Format::Gguf;
    let gguf = args.format.map_or(named_gguf && !several, |format| format == Format::Gguf);
    let (format, extension) = if gguf { ("gguf", ".gguf") } else { ("peft", "") };
    let targets: Vec<PathBuf> = match several {
        false => vec![args.output.clone()],
        true => descriptions
            .iter()
            .enumerate()
            .map(|(i, d)| args.output.join(format!("{:04}-{}{extension}", i + 1, slug(d))))
            .collect(),
    };
    // Nothing is loaded for a target that cannot be written.
    match (several, named_gguf, gguf) {
        (true, true, _) => bail!(
            "{}: several adapters go into a folder, whose name does not end in .gguf (--format gguf for GGUF files in it)",
            args.output.display()
        ),
        (false, true, false) => bail!("{}: a PEFT folder's name does not end in .gguf", args.output.display()),
        (false, false, true) => bail!("{}: a GGUF file's name ends in .gguf", args.output.display()),
        _ => {}
    }
    let refuse = if gguf { target::refuse_existing } else { target::refuse_occupied };
    refuse(&args.output, args.written.force)?;
    let lessons = Lessons::of(&args.distil)?;
    let named = super::adapter::named_base(&args.base)?;
    let t2l = super::text_to_lora(&args.checkpoint, args.base.model.as_deref(), global)?;
    let base = match named {
        None if gguf => super::adapter::known_base(&t2l.checkpoint().manifest.base_model.id)?,
        named => named,
    };
    let learns_with = match &lessons {
        Some(_) => Some(t2l.base_model(args.base.model.as_deref(), WeightType::F32, &mut Terminal::new())?),
        None => None,
    };
    let started = Instant::now();
    let texts: Vec<&str> = descriptions.iter().map(String::as_str).collect();
    let mut chunks = t2l.generate_in_chunks(&texts, BUDGET)?;
    let (root_existed, mut made) = (args.output.exists(), Vec::<PathBuf>::new());
    if several {
        std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    }
    let mut adapters = Vec::new();
    let outcome = chunks.try_for_each(|generated| -> anyhow::Result<()> {
        let mut generated = generated?;
        super::warn_truncated(&generated);
        if let (Some(lessons), Some(model)) = (&lessons, &learns_with) {
            generated = lessons.teach(&t2l, model, generated)?;
        }
        for (i, target) in targets[adapters.len()..].iter().take(generated.len()).enumerate() {
            let (new, one) = (!target.exists(), generated.adapter(i));
            super::adapter::save(&one.adapter, base.clone(), target, Some(one.description.clone()), &args.written)?;
            if new {
                made.push(target.clone());
            }
            adapters.push(told(&one, base.as_ref(), target, format)?);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        // What this run made goes away again; what was there before is left.
        for target in &made {
            let _ = if target.is_dir() { std::fs::remove_dir_all(target) } else { std::fs::remove_file(target) };
        }
        if several && !root_existed {
            let _ = std::fs::remove_dir(&args.output);
        }
        return Err(error);
    }
    if several {
        stale::remove(&args.output, &targets)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if global.json {
        return output::json(&json!({ "adapters": adapters, "seconds": seconds }));
    }
    for target in &targets {
        output::line(target.display())?;
    }
    eprintln!("{} in {seconds:.2} s", counted(targets.len(), "adapter"));
    Ok(())
}

/// The lines of a file, or of standard input, that are not blank.
pub(super) fn read_lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let reader: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).with_context(|| file.display().to_string())?),
    };
    let mut text = String::new();
    let read = reader.take(FILE_LIMIT + 1).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    if read as u64 > FILE_LIMIT {
        bail!("{}: is larger than {} MiB", file.display(), FILE_LIMIT >> 20);
    }
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// What is told of an adapter that was written: as it stands in the file, for fused modules too.
fn told(one: &GeneratedAdapter, base: Option<&BaseShape>, target: &Path, format: &str) -> anyhow::Result<Value> {
    let fused = base.filter(|base| base.is_fused()).map(|base| fused::fuse(&one.adapter, base)).transpose()?;
    let written = inspect(fused.as_ref().unwrap_or(&one.adapter));
    let modules: BTreeSet<&str> = written.modules.iter().map(|m| m.name.as_str()).collect();
    let layers: BTreeSet<usize> = written.modules.iter().map(|m| m.layer).collect();
    Ok(json!({
        "description": one.description,
        "path": std::path::absolute(target).with_context(|| target.display().to_string())?,
        "format": format,
        "rank": written.rank,
        "alpha": written.alpha,
        "layers": layers.len(),
        "target_modules": modules,
        "parameters": written.modules.iter().map(|m| m.rank * (m.in_features + m.out_features)).sum::<usize>(),
    }))
}

/// A description as part of a folder's name: `[a-z0-9-]`, at most 40 characters.
fn slug(description: &str) -> String {
    let mut slug = String::new();
    for c in description.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
        if slug.len() == 40 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "task".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_plain_and_short() {
        assert_eq!(slug("Sort the words, A–Z!"), "sort-the-words-a-z");
        assert_eq!(slug("日本語"), "task");
        assert!(slug(&"long words ".repeat(20)).len() <= 40);
    }
}
