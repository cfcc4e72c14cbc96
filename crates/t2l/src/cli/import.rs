//! `t2l import`: somebody else's hypernetworks as checkpoints of ours.

use serde_json::json;
use t2l::core::{counted, device};
use t2l::hypernet::{Dtype, import};

use super::args::{Global, ImportCommand};
use super::{output, target};

pub fn run(command: &ImportCommand, global: &Global) -> anyhow::Result<()> {
    let ImportCommand::Sakana(args) = command;
    target::refuse_occupied(&args.output, args.force)?;
    let device = device::parse(&global.device)?;
    let checkpoint = import::sakana(&args.folder, args.base_config.as_deref(), &device)?;
    let sha256 = checkpoint.save(&args.output, Dtype::F32)?;
    let (config, manifest) = (&checkpoint.hypernet.config, &checkpoint.manifest);
    let counts = config.parameter_counts()?;
    let modules: Vec<&str> = config.layout.modules.iter().map(|m| m.name.as_str()).collect();
    if global.json {
        return output::json(&json!({
            "path": std::path::absolute(&args.output)?,
            "sha256": sha256,
            "config": config,
            "base_model": manifest.base_model.id,
            "encoder": manifest.encoder.id,
            "parameters": counts.trainable,
        }));
    }
    output::line(args.output.display())?;
    let words = json!([config.conditioning, config.task_encoder]);
    let word = |i: usize| words[i].as_str().unwrap_or_default().to_owned();
    eprintln!("hypernetwork  {:?}, {}", config.arch, counted(counts.trainable, "trained value"));
    let layers = counted(config.layout.layers, "layer");
    eprintln!("base model    {}, {layers}: {}", manifest.base_model.id, modules.join(", "));
    eprintln!("rank          {} (scaling {:.4})", config.scaling.rank, config.scaling.value());
    eprintln!("told of tasks {} through a {} encoder; embeddings of {}", word(0), word(1), manifest.encoder.id);
    Ok(())
}
