//! The loop that every trainer shares: step, log, validate, keep the best, checkpoint, stop, resume.

mod folder;
mod metrics;
#[cfg(feature = "mpi")]
mod mpi;
mod outcome;
mod progress;
mod ranks;
mod schedule;
mod signal;
mod state;
mod trainee;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use self::metrics::MetricsFile;
use self::progress::Progress;
use crate::optimizer::Optimizer;
use crate::{TrainConfig, TrainError};

pub use folder::check_folder;
pub(crate) use folder::check_holds_only;
pub use ranks::{Alone, Ranks, Share, ranks};
pub use schedule::LinearSchedule;
pub use signal::Stop;
pub use trainee::{Outcome, Part, StepSeed, Trainee};

/// Name of the file that a run goes on from.
pub(crate) const STATE: &str = "state.safetensors";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps were taken, or every part ran out of patience.
    Complete,
    /// Somebody asked it to stop; it can be resumed.
    Stopped {
        /// Steps taken so far.
        step: u64,
    },
}

/// What the loop tells while it runs.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run starts at a step (0, or where it was resumed).
    Start {
        /// Steps already taken.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Trainable values.
        parameters: usize,
    },
    /// A step was taken.
    Step {
        /// Steps taken.
        step: u64,
        /// Loss of the step.
        loss: f64,
        /// Real tokens of the step.
        tokens: usize,
        /// Seconds it took.
        seconds: f64,
    },
    /// Named validation numbers.
    Validation {
        /// Steps taken.
        step: u64,
        /// The numbers.
        numbers: BTreeMap<String, f64>,
    },
}

/// Trains until all steps are taken or `stop` wants an end. Resumes where the folder's state file stands.
///
/// The folder then holds `config.toml` (resolved), `metrics.jsonl`, `state.safetensors`, and each part as the trainee
/// exports it: `last` of the latest checkpoint, `best` of the best validation (`last/NAME`, `best/NAME` where parts
/// have names).
///
/// # Errors
/// A folder in use, of another configuration or with other files, a `run.select` that names no validation number, a loss that is not finite, files that cannot be written.
pub fn run(
    trainee: &mut dyn Trainee,
    config: &TrainConfig,
    folder: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Ended, TrainError> {
    run_shared(&Alone, trainee, config, folder, stop, tell)
}

/// As [`run`], in one of several processes that share the batches. All see the same folder; rank 0 alone writes there.
///
/// # Errors
/// As [`run`]; a trainee that cannot be shared; processes that stand at different steps. The others then wait for this
/// process: let the caller say what happened and [`Ranks::abort`].
pub fn run_shared(
    ranks: &dyn Ranks,
    trainee: &mut dyn Trainee,
    config: &TrainConfig,
    folder: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Ended, TrainError> {
    trainee.share(Share { rank: ranks.rank(), of: ranks.size() })?;
    let _lock = if ranks.rank() == 0 { Some(folder::take(folder, config)?) } else { None };
    let mut run = Run::open(ranks, trainee, config, folder)?;
    run.check_agreement()?;
    let parameters = run.trainee.parts().iter().map(|p| p.parameters.count()).sum();
    tell(Event::Start { step: run.progress.step, steps: config.run.steps, parameters });
    while !run.ended() {
        if run.any(stop.wanted(run.progress.step))? {
            run.checkpoint()?;
            return Ok(Ended::Stopped { step: run.progress.step });
        }
        tell(run.step()?);
        let (step, every) = (run.progress.step, config.run.validate_every);
        if every > 0 && (step.is_multiple_of(every) || step == config.run.steps) {
            tell(run.validate()?);
        }
        if step.is_multiple_of(config.run.checkpoint_every) || run.ended() {
            run.checkpoint()?;
        }
    }
    Ok(Ended::Complete)
}

/// A run between two steps.
struct Run<'a> {
    ranks: &'a dyn Ranks,
    trainee: &'a mut dyn Trainee,
    config: &'a TrainConfig,
    folder: &'a Path,
    schedule: LinearSchedule,
    /// One for each part.
    optimizers: Vec<Optimizer>,
    progress: Progress,
    /// Of rank 0.
    metrics: Option<MetricsFile>,
}

impl<'a> Run<'a> {
    fn open(
        ranks: &'a dyn Ranks,
        trainee: &'a mut dyn Trainee,
        config: &'a TrainConfig,
        folder: &'a Path,
    ) -> Result<Self, TrainError> {
        let writes = ranks.rank() == 0;
        let state_path = folder.join(STATE);
        let mut optimizers: Vec<Optimizer> = {
            let parts = trainee.parts();
            parts.iter().map(|p| Optimizer::new(config.optimizer.clone(), p.parameters)).collect()
        };
        let progress = if state_path.exists() {
            let progress = state::load(&state_path, trainee, &mut optimizers, config)?;
            trainee.restore(&progress.sampler).map_err(|reason| TrainError::State { path: state_path, reason })?;
            progress
        } else {
            if writes {
                folder::write_config(folder, config)?;
            }
            Progress::start(config.digest(), trainee.data(), trainee.position(), optimizers.len())
        };
        let metrics = match writes {
            true => Some(MetricsFile::open(&folder.join("metrics.jsonl"), progress.metrics_bytes)?),
            false => None,
        };
        let schedule = LinearSchedule::new(&config.optimizer, config.run.steps);
        Ok(Self { ranks, trainee, config, folder, schedule, optimizers, progress, metrics })
    }

    /// Whether it is so for any process.
    fn any(&self, so: bool) -> Result<bool, TrainError> {
        let mut count = [f64::from(so)];
        self.ranks.sum_numbers(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Refuses to begin where another process stands at another step, or has other settings or data.
    fn check_agreement(&self) -> Result<(), TrainError> {
        let number =
            |digest: &str| f64::from(u32::from_str_radix(digest.get(..8).unwrap_or("0"), 16).unwrap_or_default());
        let ours = [self.progress.step as f64, number(&self.config.digest()), number(&self.progress.data)];
        let mut sums = ours;
        self.ranks.sum_numbers(&mut sums)?;
        let alike = |(sum, ours): (&f64, &f64)| *sum == ours * self.ranks.size() as f64;
        if sums.iter().zip(&ours).all(alike) {
            return Ok(());
        }
        let (rank, step, folder) = (self.ranks.rank(), self.progress.step, self.folder.display());
        let reason = format!(
            "rank {rank} stands at step {step}, others elsewhere or with other settings or data: do all see {folder}?"
        );
        Err(TrainError::Ranks { reason })
    }

    fn ended(&self) -> bool {
        self.progress.step >= self.config.run.steps || !self.progress.parts.iter().any(|p| p.active)
    }

    fn active(&self) -> Vec<bool> {
        self.progress.parts.iter().map(|p| p.active).collect()
    }

    /// Takes one step: a few micro-batches, their gradients together, each part on its own.
    fn step(&mut self) -> Result<Event, TrainError> {
        let started = Instant::now();
        let step = self.progress.step;
        let outcome = self.outcome(step)?;
        let learning_rate = self.schedule.at(step);
        let not_finite =
            |what, value| Err(TrainError::NotFinite { step, what, value, examples: outcome.examples.clone() });
        if !outcome.loss.is_finite() {
            return not_finite("loss", outcome.loss);
        }
        let mut norms = Vec::new();
        let states = self.optimizers.iter_mut().zip(&mut self.progress.parts);
        for ((parameters, (optimizer, part)), gradients) in
            self.trainee.parameters_mut().into_iter().zip(states).zip(&outcome.gradients)
        {
            let Some(gradients) = gradients else { continue };
            let norm = optimizer.step(parameters, gradients, learning_rate);
            if !norm.is_finite() {
                return not_finite("gradient norm", norm);
            }
            part.steps = optimizer.steps;
            norms.push(norm);
        }
        self.progress.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        let mut entry = Map::new();
        entry.insert("loss".into(), json!(outcome.loss));
        entry.extend(outcome.numbers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        // The norm of one part, or the mean over parts.
        entry.insert("grad_norm".into(), json!(norms.iter().sum::<f64>() / norms.len().max(1) as f64));
        entry.insert("learning_rate".into(), json!(learning_rate));
        entry.insert("tokens".into(), json!(outcome.tokens));
        self.log(entry)?;
        Ok(Event::Step { step: self.progress.step, loss: outcome.loss, tokens: outcome.tokens, seconds })
    }

    fn outcome(&mut self, step: u64) -> Result<Outcome, TrainError> {
        let (accumulation, active) = (self.config.sampling.accumulation, self.active());
        let mut total: Option<Outcome> = None;
        for micro in 0..accumulation as u64 {
            let seed = StepSeed { seed: self.config.run.seed, step, micro };
            let outcome = self.trainee.step(seed, &active)?;
            total = Some(match total {
                None => outcome,
                Some(total) => total.plus(outcome),
            });
        }
        let total = total.ok_or_else(|| TrainError::NoData { reason: "no batch in a step".into() })?;
        total.scaled(1.0 / accumulation as f64).summed(self.ranks)
    }

    /// Validates, and exports every part that is the best so far.
    fn validate(&mut self) -> Result<Event, TrainError> {
        let mut numbers = self.trainee.validate(&self.active())?;
        // Every process judges for itself; where their arithmetic differs, none may go its own way.
        let mut values: Vec<f64> = numbers.values().copied().collect();
        self.ranks.sum_numbers(&mut values)?;
        numbers.values_mut().zip(values).for_each(|(ours, sum)| *ours = sum / self.ranks.size() as f64);
        self.log(numbers.iter().map(|(k, v)| (k.clone(), json!(v))).collect())?;
        if let Some(name) = self.config.run.select.as_ref().filter(|name| !numbers.contains_key(*name)) {
            let there = numbers.into_keys().collect();
            return Err(TrainError::NoSuchNumber { name: name.clone(), there });
        }
        let step = self.progress.step;
        for part in 0..self.progress.parts.len() {
            let value = self.trainee.judged_by(part).iter().find_map(|name| numbers.get(name)).copied();
            let Some(value) = value.filter(|_| self.progress.parts[part].active) else { continue };
            if self.progress.parts[part].judge(value, step, self.config.patience()) {
                self.export("best", part, &numbers)?;
            }
        }
        Ok(Event::Validation { step, numbers })
    }

    fn checkpoint(&mut self) -> Result<(), TrainError> {
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        self.progress.metrics_bytes = metrics.sync()?;
        self.progress.sampler = self.trainee.position();
        for part in 0..self.progress.parts.len() {
            self.export("last", part, &BTreeMap::new())?;
        }
        state::save(&self.folder.join(STATE), &*self.trainee, &self.optimizers, &self.progress)
    }

    fn export(&self, name: &str, part: usize, numbers: &BTreeMap<String, f64>) -> Result<(), TrainError> {
        if self.metrics.is_none() {
            return Ok(());
        }
        let recipe = json!({
            "config": self.config.clone().by_name(),
            "digest": self.config.digest_without_data(),
            "step": self.progress.step,
            "validation": numbers,
        });
        let folder = exported(self.folder, name, self.trainee.parts()[part].name);
        self.trainee.export(part, &folder, recipe)
    }

    fn log(&mut self, entry: Map<String, Value>) -> Result<(), TrainError> {
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        let mut line = Map::new();
        line.insert("step".into(), json!(self.progress.step));
        line.extend(entry);
        metrics.write(line)
    }
}

/// Where a run's folder holds the `last` or `best` of a part.
pub(crate) fn exported(folder: &Path, name: &str, part: &str) -> PathBuf {
    let folder = folder.join(name);
    if part.is_empty() { folder } else { folder.join(part) }
}

/// Keeps a folder to one process, for as long as the file is open.
pub(crate) fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(TrainError::io(&path))?;
    file.try_lock().map_err(|_| TrainError::Locked { path: folder.to_owned() })?;
    Ok(file)
}
