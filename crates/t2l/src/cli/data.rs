//! `t2l data …`: tasks to train on.

use std::collections::BTreeMap;

use serde_json::json;
use t2l::core::counted;
use t2l::data::{DeriveConfig, Part, TaskSet, derive, write_derived};

use super::args::{DataCommand, Global};
use super::{output, target};

pub fn run(command: &DataCommand, global: &Global) -> anyhow::Result<()> {
    let DataCommand::Derive(args) = command;
    target::want_new(&args.output)?;
    let set = TaskSet::open(&args.data)?;
    let sources = set.listed(args.split.as_deref())?;
    let config = DeriveConfig { tasks: args.tasks as usize, examples: args.examples as usize, seed: args.seed };
    let tasks = derive(&set, &sources, config)?;
    write_derived(&args.output, &tasks)?;
    let of_part = |part| tasks.iter().flat_map(|t| &t.examples).filter(|(p, _)| *p == part).count();
    let (train, valid) = (of_part(Part::Train), of_part(Part::Valid));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in tasks.iter().filter_map(|t| t.task.family.as_deref()) {
        *kinds.entry(kind).or_default() += 1;
    }
    if global.json {
        return output::json(&json!({
            "path": std::path::absolute(&args.output)?,
            "tasks": tasks.len(),
            "asked": args.tasks,
            "train_examples": train,
            "valid_examples": valid,
            "families": kinds,
        }));
    }
    output::line(args.output.display())?;
    let of_kind: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    eprintln!("{}: {}", counted(tasks.len(), "task"), of_kind.join(", "));
    eprintln!("{} for training, {valid} held out", counted(train, "example"));
    if tasks.len() < config.tasks {
        eprintln!("warning: {} were asked for; the tasks they are made of give no more", config.tasks);
    }
    Ok(())
}
