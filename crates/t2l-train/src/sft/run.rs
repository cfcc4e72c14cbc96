//! The loop of an SFT run: sample, step, log, validate, checkpoint, resume.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value, json};
use t2l_backbone::Decoder;
use t2l_data::{Corpus, Sampler, TrainBatch};
use t2l_hypernet::{Checkpoint, Dtype, Hypernet, Manifest};

use super::step::{StepSeed, sft_step};
use crate::metrics::MetricsFile;
use crate::optimizer::{NamedGradients, Optimizer};
use crate::schedule::LinearSchedule;
use crate::state::{self, Progress};
use crate::{SftConfig, Stop, TrainError, Validator, files};

/// Everything an SFT run works on.
pub struct SftRun {
    /// The configuration.
    pub config: SftConfig,
    /// Folder of the run.
    pub folder: PathBuf,
    /// The frozen base model, [`Decoder::for_training`].
    pub decoder: Decoder,
    /// The hypernetwork with its initial values.
    pub hypernet: Hypernet,
    /// What goes into the manifest of exported checkpoints.
    pub manifest: Manifest,
    /// Tokenised examples.
    pub corpus: Corpus,
    /// Task embeddings of every training description: per task `[descriptions, e]`.
    pub descriptions: Vec<Tensor<2>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps were taken.
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

impl SftRun {
    /// Runs until all steps are taken or `stop` wants an end. Resumes where the folder's state file stands.
    ///
    /// # Errors
    /// A folder in use or of another configuration, a loss that is not finite, files that cannot be written.
    pub fn run(
        mut self,
        validators: &mut [&mut dyn Validator],
        stop: &Stop,
        mut tell: impl FnMut(Event),
    ) -> Result<Ended, TrainError> {
        std::fs::create_dir_all(&self.folder).map_err(TrainError::io(&self.folder))?;
        let _lock = lock(&self.folder)?;
        let device = self.device();
        let digest = self.config.digest();
        let state_path = self.folder.join("state.safetensors");
        let mut sampler = Sampler::new(self.config.sampling.sampler(), self.config.run.seed);
        let (mut optimizer, mut progress) = if state_path.exists() {
            let parameters = &mut self.hypernet.parameters;
            let (optimizer, progress) = state::load(&state_path, parameters, &self.config.optimizer, &digest, &device)?;
            sampler
                .restore(&progress.sampler, &self.corpus)
                .map_err(|reason| TrainError::State { path: state_path.clone(), reason })?;
            (optimizer, progress)
        } else {
            let optimizer = Optimizer::new(self.config.optimizer.clone(), &self.hypernet.parameters);
            let resolved = toml::to_string_pretty(&self.config)
                .map_err(|e| TrainError::Config { path: self.folder.join("config.toml"), reason: e.to_string() })?;
            files::write_whole(&self.folder.join("config.toml"), resolved.as_bytes())?;
            (optimizer, Progress::start(digest, sampler.state()))
        };
        let mut metrics = MetricsFile::open(&self.folder.join("metrics.jsonl"), progress.metrics_bytes)?;
        let steps = self.config.run.steps;
        let schedule = LinearSchedule {
            peak: self.config.optimizer.learning_rate,
            warmup: (steps as f64 * self.config.optimizer.warmup_share).round() as u64,
            total: steps,
        };
        tell(Event::Start { step: progress.step, steps, parameters: self.hypernet.parameters.count() });

        while progress.step < steps {
            if stop.wanted(progress.step) {
                self.checkpoint(&mut progress, &optimizer, &sampler, &mut metrics)?;
                return Ok(Ended::Stopped { step: progress.step });
            }
            let started = Instant::now();
            let outcome = self.step(progress.step, &mut sampler)?;
            let learning_rate = schedule.at(progress.step);
            let norm = optimizer.step(&mut self.hypernet.parameters, &outcome.gradients, learning_rate);
            if !norm.is_finite() || !outcome.loss.is_finite() {
                let (what, value) =
                    if outcome.loss.is_finite() { ("gradient norm", norm) } else { ("loss", outcome.loss) };
                return Err(TrainError::NotFinite { step: progress.step, what, value, examples: outcome.examples });
            }
            progress.step += 1;
            let seconds = started.elapsed().as_secs_f64();
            let mut entry = Map::new();
            for (key, value) in [
                ("loss", json!(outcome.loss)),
                ("sft_loss", json!(outcome.sft_loss)),
                ("l2_loss", json!(outcome.l2_loss)),
                ("grad_norm", json!(norm)),
                ("learning_rate", json!(learning_rate)),
                ("tokens", json!(outcome.tokens)),
                ("padding_share", json!(outcome.padding_share)),
            ] {
                entry.insert(key.to_owned(), value);
            }
            log(&mut metrics, progress.step, entry)?;
            tell(Event::Step { step: progress.step, loss: outcome.loss, tokens: outcome.tokens, seconds });

            let every = self.config.run.validate_every;
            if every > 0 && (progress.step.is_multiple_of(every) || progress.step == steps) {
                let numbers = self.validate(validators)?;
                let entry = numbers.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                log(&mut metrics, progress.step, entry)?;
                self.keep_best(&mut progress, &numbers)?;
                tell(Event::Validation { step: progress.step, numbers });
            }
            if progress.step.is_multiple_of(self.config.run.checkpoint_every) || progress.step == steps {
                self.checkpoint(&mut progress, &optimizer, &sampler, &mut metrics)?;
            }
        }
        Ok(Ended::Complete)
    }

    fn device(&self) -> Device {
        self.decoder.device().inner()
    }

    fn step(&self, step: u64, sampler: &mut Sampler) -> Result<Outcome, TrainError> {
        let accumulation = self.config.sampling.accumulation;
        let mut total: Option<Outcome> = None;
        for micro in 0..accumulation as u64 {
            let draws = sampler.next_batch(&self.corpus);
            let rows: Vec<_> = draws.iter().map(|d| self.corpus.example(d)).collect();
            let batch = TrainBatch::new(&rows, 8, 0);
            let embeddings =
                draws.iter().map(|d| self.descriptions[d.task].clone().narrow(0, d.description, 1)).collect();
            let seed = StepSeed { seed: self.config.run.seed, step, micro };
            let output = sft_step(
                &self.decoder,
                &self.hypernet,
                &batch,
                Tensor::cat(embeddings, 0),
                &self.config.loss,
                Some(seed),
            )?;
            let examples: Vec<&str> = draws.iter().map(|d| self.corpus.task_name(d.task)).collect();
            let outcome = Outcome {
                loss: output.sft_loss + output.l2_loss,
                sft_loss: output.sft_loss,
                l2_loss: output.l2_loss,
                tokens: batch.tokens,
                padding_share: batch.padding_share(),
                examples: examples.join(", "),
                gradients: output.gradients,
            };
            total = Some(match total {
                None => outcome,
                Some(total) => total.plus(outcome),
            });
        }
        let outcome = total.ok_or_else(|| TrainError::NoData { reason: "no batch in a step".into() })?;
        Ok(outcome.scaled(1.0 / accumulation as f64))
    }

    fn validate(&self, validators: &mut [&mut dyn Validator]) -> Result<BTreeMap<String, f64>, TrainError> {
        let mut numbers = BTreeMap::new();
        for validator in validators {
            numbers.extend(validator.validate(&self.hypernet)?);
        }
        Ok(numbers)
    }

    /// Exports the checkpoint when the selection metric is the lowest so far.
    fn keep_best(&self, progress: &mut Progress, numbers: &BTreeMap<String, f64>) -> Result<(), TrainError> {
        let default =
            || ["unseen/own_nll", "seen/own_nll"].into_iter().find(|k| numbers.contains_key(*k)).map(str::to_owned);
        let Some(value) = self.config.run.select.clone().or_else(default).and_then(|key| numbers.get(&key).copied())
        else {
            return Ok(());
        };
        if value.is_finite() && progress.best.is_none_or(|(best, _)| value < best) {
            progress.best = Some((value, progress.step));
            self.export("best", progress.step, numbers)?;
        }
        Ok(())
    }

    fn checkpoint(
        &self,
        progress: &mut Progress,
        optimizer: &Optimizer,
        sampler: &Sampler,
        metrics: &mut MetricsFile,
    ) -> Result<(), TrainError> {
        progress.metrics_bytes = metrics.sync()?;
        progress.sampler = sampler.state();
        self.export("last", progress.step, &BTreeMap::new())?;
        state::save(&self.folder.join("state.safetensors"), &self.hypernet.parameters, optimizer, progress)
    }

    fn export(&self, name: &str, step: u64, numbers: &BTreeMap<String, f64>) -> Result<(), TrainError> {
        let mut manifest = self.manifest.clone();
        manifest.recipe = json!({ "config": self.config, "step": step, "validation": numbers });
        let checkpoint = Checkpoint { manifest, hypernet: self.hypernet.clone() };
        checkpoint.save(&self.folder.join(name), Dtype::Bf16)?;
        Ok(())
    }
}

struct Outcome {
    loss: f64,
    sft_loss: f64,
    l2_loss: f64,
    tokens: usize,
    padding_share: f64,
    examples: String,
    gradients: NamedGradients,
}

impl Outcome {
    fn plus(mut self, other: Self) -> Self {
        self.loss += other.loss;
        self.sft_loss += other.sft_loss;
        self.l2_loss += other.l2_loss;
        self.tokens += other.tokens;
        self.padding_share += other.padding_share;
        self.examples = format!("{}, {}", self.examples, other.examples);
        self.gradients = self.gradients.into_iter().zip(other.gradients).map(|(a, b)| a + b).collect();
        self
    }

    fn scaled(mut self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        self.loss *= factor;
        self.sft_loss *= factor;
        self.l2_loss *= factor;
        self.padding_share *= factor;
        self.gradients = self.gradients.into_iter().map(|g| g * factor).collect();
        self
    }
}

fn log(metrics: &mut MetricsFile, step: u64, entry: Map<String, Value>) -> Result<(), TrainError> {
    let mut line = Map::new();
    line.insert("step".into(), json!(step));
    line.extend(entry);
    metrics.write(line)
}

fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(TrainError::io(&path))?;
    file.try_lock().map_err(|_| TrainError::Locked { path: folder.to_owned() })?;
    Ok(file)
}
