//! `t2l train`: runs with their progress and their signals, and the drawing of their curves.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use t2l::core::{counted, device};
use t2l::hypernet::{Checkpoint, Dtype};
use t2l::models::Models;
use t2l::train::{Ended, Event, Ranks, Stop, TrainConfig, Trainer, plot, ranks, tensorboard};
use t2l::training::{ModelPaths, prepare, train_library};

use super::args::{BetweenArgs, Global, LoraArgs, PlotArgs, RunArgs, TrainCommand};
use super::output::{self, Terminal};
use super::target;

/// Exit code of a run that a signal stopped.
const STOPPED: u8 = 130;

pub fn run(command: &TrainCommand, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        TrainCommand::Sft(args) => train(args, Trainer::Sft, global),
        TrainCommand::Hyperdecoder(args) => train(args, Trainer::Hyperdecoder, global),
        TrainCommand::Multitask(args) => train(args, Trainer::Multitask, global),
        TrainCommand::Recon(args) => train(args, Trainer::Recon, global),
        TrainCommand::Lora(args) => library(args, global),
        TrainCommand::Plot(args) => draw(args, global),
        TrainCommand::Between(args) => between(args, global),
    }
}

fn between(args: &BetweenArgs, global: &Global) -> anyhow::Result<ExitCode> {
    target::want_new(&args.output)?;
    let device = device::parse(&global.device)?;
    let [from, to] = [&args.from, &args.to].map(|path| Checkpoint::load(path, &device));
    let made = from?.towards(&to?, args.share)?;
    let sha256 = made.save(&args.output, if args.f32 { Dtype::F32 } else { Dtype::Bf16 })?;
    if global.json {
        output::json(&json!({ "path": std::path::absolute(&args.output)?, "sha256": sha256 }))?;
    } else {
        output::line(args.output.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn draw(args: &PlotArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let svg = args.output.clone().unwrap_or_else(|| args.run.join("curves.svg"));
    let metrics = args.run.join("metrics.jsonl");
    plot(&metrics, &svg)?;
    let events = args.tensorboard.then(|| tensorboard(&metrics, &args.run.join("tensorboard"))).transpose()?;
    if global.json {
        let mut paths = json!({ "path": std::path::absolute(&svg)? });
        if let Some(events) = events {
            paths["tensorboard"] = json!(std::path::absolute(events)?);
        }
        output::json(&paths)?;
    } else {
        output::line(svg.display())?;
        if let Some(events) = events {
            output::line(events.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn train(args: &RunArgs, trainer: Trainer, global: &Global) -> anyhow::Result<ExitCode> {
    let ranks = ranks()?;
    let ended = train_as(&*ranks, args, trainer, global);
    if ranks.size() > 1
        && let Err(error) = &ended
    {
        eprintln!("error: rank {}: {error:#}", ranks.rank());
        ranks.abort();
    }
    ended
}

/// Trains as one of several processes, or alone. Rank 0 speaks for all.
fn train_as(ranks: &dyn Ranks, args: &RunArgs, trainer: Trainer, global: &Global) -> anyhow::Result<ExitCode> {
    let speaks = ranks.rank() == 0;
    let say = |text: &str| {
        if speaks {
            eprintln!("{text}");
        }
    };
    let config = TrainConfig::load(&args.config, trainer)?;
    let device = device::parse(&global.device)?;
    let models = Models::new(None)?;
    let paths = ModelPaths::find(&models, &config, &mut Terminal::new())?;
    let mut prepared = prepare(config, &paths, &args.output, models.cache(), &device, say)?;
    say(&format!("tasks: {}", prepared.tasks));
    if ranks.size() > 1 {
        say(&format!("{} processes", ranks.size()));
    }

    let (stop, signalled) = stop(args)?;
    let mut display = Display::new();
    let ended = prepared.run_shared(ranks, &stop, |event| {
        if speaks {
            display.show(&event);
        }
    })?;
    let step = match ended {
        Ended::Complete => display.step,
        Ended::Stopped { step } => step,
    };
    if speaks && global.json {
        let state = state(ended);
        output::json(&json!({ "run": std::path::absolute(&args.output)?, "state": state, "step": step }))?;
    } else {
        let (last, best) = (args.output.join("last"), args.output.join("best"));
        let kept = if best.is_dir() { format!(", what validated best to {}", best.display()) } else { String::new() };
        say(&format!("{} at step {step}; written to {}{kept}", state(ended), last.display()));
    }
    Ok(exit_code(ended, &signalled))
}

fn library(args: &LoraArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if ranks()?.size() > 1 {
        bail!("a library is trained by independent processes: start each by itself, with --shard");
    }
    let config = TrainConfig::load(&args.run.config, Trainer::Lora)?;
    let device = device::parse(&global.device)?;
    let paths = ModelPaths::find(&Models::new(None)?, &config, &mut Terminal::new())?;
    let (stop, signalled) = stop(&args.run)?;
    let mut display = Display::new();
    let run = train_library(
        &config,
        &paths,
        &args.run.output,
        args.shard,
        &device,
        &stop,
        &mut |text| eprintln!("{text}"),
        &mut |event| display.show(&event),
    )?;
    let folder = std::path::absolute(&args.run.output)?;
    if global.json {
        output::json(&json!({ "run": folder, "state": state(run.ended), "adapters": run.finished }))?;
    } else {
        let adapters = counted(run.finished.len(), "adapter");
        eprintln!("{}; {adapters} in {}", state(run.ended), folder.display());
    }
    Ok(exit_code(run.ended, &signalled))
}

/// When the run is to stop before its end: as the flags say, or at a signal, which is noted.
fn stop(args: &RunArgs) -> anyhow::Result<(Stop, Arc<AtomicBool>)> {
    let mut stop = Stop::new();
    if let Some(step) = args.max_steps {
        stop = stop.at_step(step);
    }
    if let Some(time) = args.max_hours {
        stop = stop.after(time);
    }
    let signalled = Arc::new(AtomicBool::new(false));
    let (asker, flag) = (stop.clone(), Arc::clone(&signalled));
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::SeqCst);
        if asker.request() {
            std::process::exit(i32::from(STOPPED));
        }
        eprintln!("finishing this step and writing a checkpoint; once more stops at once");
    })?;
    Ok((stop, signalled))
}

fn state(ended: Ended) -> &'static str {
    if ended == Ended::Complete { "complete" } else { "stopped" }
}

fn exit_code(ended: Ended, signalled: &AtomicBool) -> ExitCode {
    let stopped = ended != Ended::Complete && signalled.load(Ordering::SeqCst);
    if stopped { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS }
}

/// Progress of a run: a bar on a terminal, a line now and then elsewhere.
struct Display {
    step: u64,
    steps: u64,
    bar: Option<ProgressBar>,
    since: Instant,
    tokens: usize,
    loss: f64,
    count: usize,
}

impl Display {
    fn new() -> Self {
        Self { step: 0, steps: 0, bar: None, since: Instant::now(), tokens: 0, loss: 0.0, count: 0 }
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Start { step, steps, parameters } => {
                (self.step, self.steps) = (*step, *steps);
                let (values, all) = (counted(*parameters, "trainable value"), counted(*steps, "step"));
                eprintln!("{values}, {all}, {step} of them taken");
                if std::io::stderr().is_terminal() {
                    let template = "{bar:30} {pos}/{len} {msg} {elapsed} eta {eta}";
                    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                    self.bar = Some(ProgressBar::new(*steps).with_position(*step).with_style(style));
                }
                self.since = Instant::now();
            }
            Event::Step { step, loss, tokens, .. } => {
                self.step = *step;
                self.tokens += tokens;
                self.loss += loss;
                self.count += 1;
                let rate = self.tokens as f64 / self.since.elapsed().as_secs_f64().max(1e-9);
                let text = format!("loss {:.3} {rate:.0} tokens/s", self.loss / self.count as f64);
                match &self.bar {
                    Some(bar) => {
                        bar.set_message(text);
                        bar.set_position(*step);
                    }
                    None if step.is_multiple_of(20) => eprintln!("step {step}/{} {text}", self.steps),
                    None => return,
                }
                if step.is_multiple_of(20) {
                    (self.since, self.tokens, self.loss, self.count) = (Instant::now(), 0, 0.0, 0);
                }
            }
            Event::Validation { step, numbers } => {
                if numbers.is_empty() {
                    return;
                }
                let numbers: Vec<String> = numbers.iter().map(|(k, v)| format!("{k} {v:.3}")).collect();
                let text = format!("step {step}: {}", numbers.join(", "));
                match &self.bar {
                    Some(bar) => bar.suspend(|| eprintln!("{text}")),
                    None => eprintln!("{text}"),
                }
            }
        }
    }
}
