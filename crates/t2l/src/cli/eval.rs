//! `t2l eval`: the hypernetwork's adapters against the base model, on tasks and benchmarks.

use std::path::Path;

use anyhow::{Context, bail};
use t2l::core::{counted, files::write_whole};
use t2l::data::{Part, PromptMode, Task, TaskSet};
use t2l::eval::{Condition, EvalPlan, EvalReport, Evaluator, Group, Provenance, Scoring, distinct};

use super::args::{EvalArgs, Global, Mode};
use super::baselines::{self, Loaded};
use super::output::{self, Terminal};
use super::{target, typed};

pub fn run(args: &EvalArgs, global: &Global) -> anyhow::Result<()> {
    if let Some(path) = &args.output {
        target::check_report(path, args.force)?;
    }
    let set = TaskSet::open(&args.data)?;
    let groups = groups(args, &set)?;
    let conditions = args.conditions.iter().map(|c| Condition::parse(c)).collect::<Result<Vec<_>, _>>()?;
    let conditions = distinct(conditions.into_iter().chain(baselines::conditions(&args.baselines)), |c| c);
    let modes = match args.mode {
        Mode::Input => vec![PromptMode::Input],
        Mode::Definition => vec![PromptMode::Definition],
        Mode::Both => vec![PromptMode::Input, PromptMode::Definition],
    };
    let t2l = super::text_to_lora(&args.checkpoint, args.model.model.as_deref(), global)?;
    if t2l.reads_inputs() {
        bail!("the checkpoint is a hyperdecoder, which reads no descriptions: give it as --hyperdecoder");
    }
    let backbone = t2l.base_model(args.model.model.as_deref(), args.model.weights.into(), &mut Terminal::new())?;
    t2l.check_fits(&backbone)?;
    let loaded = Loaded::open(args, &backbone, global)?;
    loaded.warn(&groups);
    let checkpoint = t2l.checkpoint();
    let plan = EvalPlan {
        groups,
        modes: modes.into_iter().map(|m| (m, conditions.clone())).collect(),
        limit: args.limit,
        seed: args.seed,
        // Evaluation may read more than training did, so that long benchmark items are whole.
        max_tokens: checkpoint.manifest.rendering.max_tokens.max(512),
        scoring: match (args.nll_only, args.generate) {
            (true, _) => Scoring::Nll,
            (false, false) => Scoring::Metrics,
            (false, true) => Scoring::MetricsAndGenerated,
        },
    };
    let evaluator = Evaluator {
        backbone: &backbone,
        encoder: t2l.encoder(),
        generator: &checkpoint.hypernet,
        set: &set,
        baselines: loaded.as_baselines(),
    };
    let from = Provenance {
        checkpoint: t2l.checkpoint_name(),
        checkpoint_sha256: checkpoint.sha256().to_owned(),
        command: typed::command_line(),
    };
    let report = evaluator.run(&plan, from, |done, of| eprintln!("{done} of {}", counted(of, "task")))?;
    // Printed whether or not it can be written: an evaluation takes long.
    let written = args.output.as_deref().map_or(Ok(()), |path| write(&report, path));
    let printed = if global.json { output::json(&report) } else { output::line(report.markdown()) };
    written.and(printed)
}

fn groups<'a>(args: &EvalArgs, set: &'a TaskSet) -> anyhow::Result<Vec<Group<'a>>> {
    let part = args.part.map(Part::from);
    let mut groups = Vec::new();
    let mut add = |name: &str, tasks: Vec<&'a Task>, pool: Vec<&'a Task>, default: Part| {
        groups.push(Group { name: name.to_owned(), tasks, pool, part: part.unwrap_or(default) });
    };
    let everything = || -> Vec<&'a Task> { set.tasks.iter().collect() };
    if let Some(split) = &args.split {
        let pool = distinct(set.split(split)?, |t| &t.name);
        add(split, thinned(&pool, args.max_tasks), pool, Part::Valid);
    }
    if !args.tasks.is_empty() {
        let tasks = named(&args.tasks, &set.tasks, set)?;
        add("tasks", thinned(&tasks, args.max_tasks), everything(), Part::Valid);
    }
    if !args.benchmarks.is_empty() {
        let tasks = named(&args.benchmarks, &set.benchmarks, set)?;
        let pool = if set.tasks.is_empty() { set.benchmarks.iter().collect() } else { everything() };
        add("benchmarks", thinned(&tasks, args.max_tasks), pool, Part::Dev);
    }
    if groups.is_empty() {
        bail!("nothing to score: name --split, --tasks or --benchmarks");
    }
    Ok(groups)
}

fn named<'a>(names: &[String], all: &'a [Task], set: &'a TaskSet) -> anyhow::Result<Vec<&'a Task>> {
    if names.iter().any(|n| n == "all") {
        return Ok(all.iter().collect());
    }
    let tasks = names.iter().map(|n| set.find(n.trim())).collect::<Result<Vec<_>, _>>()?;
    Ok(distinct(tasks, |t| &t.name))
}

/// At most `most` tasks, spread evenly over the list.
fn thinned<'a>(tasks: &[&'a Task], most: Option<usize>) -> Vec<&'a Task> {
    match most {
        Some(most) if most < tasks.len() => (0..most).map(|i| tasks[i * tasks.len() / most]).collect(),
        _ => tasks.to_vec(),
    }
}

/// The JSON report, and the Markdown table beside it.
fn write(report: &EvalReport, path: &Path) -> anyhow::Result<()> {
    let write = |path: &Path, bytes: &[u8]| write_whole(path, bytes).with_context(|| path.display().to_string());
    write(path, &serde_json::to_vec_pretty(report)?)?;
    write(&path.with_extension("md"), report.markdown().as_bytes())
}
