//! `t2l eval`: the hypernetwork's adapters against the base model, on tasks and benchmarks.

use anyhow::{Context, bail};
use t2l::data::{Part, PromptMode, Task, TaskSet};
use t2l::eval::{Condition, EvalPlan, EvalReport, Evaluator, Group, Provenance};

use super::args::{EvalArgs, Global, Mode};
use super::output::{self, Terminal};

pub fn run(args: &EvalArgs, global: &Global) -> anyhow::Result<()> {
    let set = TaskSet::open(&args.data)?;
    let groups = groups(args, &set)?;
    let conditions: Vec<Condition> = args.conditions.iter().map(|c| Condition::parse(c)).collect::<Result<_, _>>()?;
    let modes = match args.mode {
        Mode::Input => vec![PromptMode::Input],
        Mode::Definition => vec![PromptMode::Definition],
        Mode::Both => vec![PromptMode::Input, PromptMode::Definition],
    };
    let t2l = super::text_to_lora(&args.checkpoint, global)?;
    let backbone = t2l.base_model(args.model.model.as_deref(), &mut Terminal::new())?;
    t2l.check_fits(&backbone)?;
    let checkpoint = t2l.checkpoint();
    let plan = EvalPlan {
        groups,
        modes: modes.into_iter().map(|m| (m, conditions.clone())).collect(),
        limit: args.limit,
        seed: args.seed,
        // Evaluation may read more than training did, so that long benchmark items are whole.
        max_tokens: checkpoint.manifest.rendering.max_tokens.max(512),
        generate_choices: args.generate,
    };
    let evaluator =
        Evaluator { backbone: &backbone, encoder: t2l.encoder(), generator: &checkpoint.hypernet, set: &set };
    let from = Provenance {
        checkpoint: t2l.checkpoint_name(),
        checkpoint_sha256: checkpoint.sha256().to_owned(),
        command: command_line(),
    };
    let report = evaluator.run(&plan, from, |done, of| eprintln!("{done} of {of} tasks"))?;
    if let Some(path) = &args.out {
        write(&report, path)?;
    }
    if global.json {
        return output::json(&report);
    }
    println!("{}", report.markdown());
    Ok(())
}

fn groups<'a>(args: &EvalArgs, set: &'a TaskSet) -> anyhow::Result<Vec<Group<'a>>> {
    let part = args.part.as_deref().map(part).transpose()?;
    let mut groups = Vec::new();
    let mut add = |name: &str, tasks: Vec<&'a Task>, pool: Vec<&'a Task>, default: Part| {
        groups.push(Group { name: name.to_owned(), tasks, pool, part: part.unwrap_or(default) });
    };
    let everything = || -> Vec<&'a Task> { set.tasks.iter().collect() };
    if let Some(split) = &args.split {
        let pool = set.split(split)?;
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
    Ok(names.iter().map(|n| set.find(n.trim())).collect::<Result<_, _>>()?)
}

/// At most `most` tasks, spread evenly over the list.
fn thinned<'a>(tasks: &[&'a Task], most: Option<usize>) -> Vec<&'a Task> {
    match most {
        Some(most) if most < tasks.len() => (0..most).map(|i| tasks[i * tasks.len() / most]).collect(),
        _ => tasks.to_vec(),
    }
}

fn part(name: &str) -> anyhow::Result<Part> {
    Ok(match name {
        "train" => Part::Train,
        "valid" => Part::Valid,
        "dev" => Part::Dev,
        "test" => Part::Test,
        "all" => Part::All,
        other => bail!("unknown part {other:?}; parts are train, valid, dev, test and all"),
    })
}

/// The command as it could be typed again.
fn command_line() -> String {
    let quote = |argument: String| match argument.contains([' ', '"', '\'', '$', '\\']) {
        true => format!("'{}'", argument.replace('\'', r"'\''")),
        false => argument,
    };
    let arguments = std::env::args().skip(1).map(quote);
    std::iter::once("t2l".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn write(report: &EvalReport, path: &std::path::Path) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(report)?;
    for (path, bytes) in [(path.to_owned(), json), (path.with_extension("md"), report.markdown().into_bytes())] {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
        std::io::Write::write_all(&mut file, &bytes).with_context(|| path.display().to_string())?;
        file.persist(&path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
