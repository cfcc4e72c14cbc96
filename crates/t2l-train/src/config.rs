//! The configuration file of a training run: TOML, every key with a default, unknown keys refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::loss::LossConfig;
use crate::optimizer::OptimizerConfig;
use crate::{TrainError, files};

/// What to train on and how: the schema of `t2l train sft CONFIG`.
///
/// ```
/// let config: t2l_train::SftConfig = toml::from_str(r#"
///     [data]
///     dir = "my-tasks"
///     [run]
///     steps = 500
/// "#)?;
/// assert_eq!(config.hypernet.rank, 8);
/// assert!(toml::from_str::<t2l_train::SftConfig>("[run]\nstepz = 1").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Models that stay frozen.
    pub model: ModelConfig,
    /// Tasks.
    pub data: DataConfig,
    /// The hypernetwork.
    pub hypernet: HypernetSettings,
    /// What a batch is made of.
    pub sampling: SamplingConfig,
    /// The loss.
    pub loss: LossConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Length of the run, and what is written when.
    pub run: RunConfig,
}

/// Models that stay frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base model: a name that `t2l models list` knows, a folder, or a GGUF file. Default `smollm2-135m-instruct`.
    pub base: String,
    /// Text encoder: a name or a folder. Default `all-minilm-l6-v2`.
    pub encoder: String,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { base: "smollm2-135m-instruct".into(), encoder: "all-minilm-l6-v2".into() }
    }
}

/// Tasks to train and validate on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Folder with tasks.json and the tasks' files. Default `data`.
    pub dir: PathBuf,
    /// Name of a list in splits.json to train on. Default none: all tasks of the folder.
    pub split: Option<String>,
    /// Name of a list of tasks that are never trained on, to validate on. Default none.
    pub unseen_split: Option<String>,
    /// Tasks of each kind to validate on. Default 40.
    pub validation_tasks: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { dir: "data".into(), split: None, unseen_split: None, validation_tasks: 40 }
    }
}

/// Shape of the hypernetwork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HypernetSettings {
    /// `"L"`, `"M"`, `"S"` or `"LA"`. Default `"L"`.
    pub arch: t2l_hypernet::Arch,
    /// Latent size k. Default 128 (published).
    pub latent: usize,
    /// Input width of the heads. Default 512 (published).
    pub head_in: usize,
    /// LoRA rank. Default 8 (published).
    pub rank: usize,
    /// LoRA alpha. Default 16 (published).
    pub alpha: f64,
    /// Rank-stabilised scaling. Default true (published).
    pub use_rslora: bool,
    /// Modules that get an adapter in every layer. Default `q_proj` and `v_proj` (published).
    pub target_modules: Vec<String>,
    /// What the hypernetwork is told of the task: `"text"`, `"one-hot"` or `"learned"`. Default `"text"`.
    pub conditioning: t2l_hypernet::Conditioning,
    /// Initial values: `"ours"` (starts at the base model) or `"published"`. Default `"ours"`.
    pub init: t2l_hypernet::Init,
    /// Dropout inside the trunk. Default 0.05 (published).
    pub dropout: f64,
}

impl Default for HypernetSettings {
    fn default() -> Self {
        Self {
            arch: t2l_hypernet::Arch::L,
            latent: 128,
            head_in: 512,
            rank: 8,
            alpha: 16.0,
            use_rslora: true,
            target_modules: vec!["q_proj".into(), "v_proj".into()],
            conditioning: t2l_hypernet::Conditioning::Text,
            init: t2l_hypernet::Init::Ours,
            dropout: 0.05,
        }
    }
}

/// What a batch is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Tasks in a step. Default 8 (published).
    pub tasks_per_step: usize,
    /// Examples of each task in a step. Default 1 (published).
    pub points_per_task: usize,
    /// Share of examples shown without the task's instruction, so that the adapter must carry the task. Default 0.5.
    pub input_share: f64,
    /// Prompt and response together, in tokens; the longer side is cut from the left. Default 128 (published: 512).
    pub max_tokens: usize,
    /// Steps whose rows are regrouped by length so that padding stays small. Default 8; 1 is off.
    pub bucket_window: usize,
    /// Batches whose gradients are summed before a step of the optimizer. Default 1.
    pub accumulation: usize,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            tasks_per_step: 8,
            points_per_task: 1,
            input_share: 0.5,
            max_tokens: 128,
            bucket_window: 8,
            accumulation: 1,
        }
    }
}

impl SamplingConfig {
    pub(crate) fn sampler(&self) -> t2l_data::SamplerConfig {
        t2l_data::SamplerConfig {
            tasks_per_step: self.tasks_per_step,
            points_per_task: self.points_per_task,
            input_share: self.input_share,
            bucket_window: self.bucket_window,
        }
    }
}

/// Length of the run, and what is written when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Steps of the optimizer. Default 1000.
    pub steps: u64,
    /// Seed of initial values, sampling and noise. Default 0.
    pub seed: u64,
    /// Steps between checkpoints. Default 100.
    pub checkpoint_every: u64,
    /// Steps between validations; 0 never validates. Default 250.
    pub validate_every: u64,
    /// Validation metric that decides which checkpoint is the best; the lowest wins. Default `unseen/own_nll`, or
    /// `seen/own_nll` where no unseen tasks are named.
    pub select: Option<String>,
    /// Folder of a checkpoint whose weights the run starts from, with fresh moments. Default none.
    pub start_from: Option<PathBuf>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { steps: 1000, seed: 0, checkpoint_every: 100, validate_every: 250, select: None, start_from: None }
    }
}

impl SftConfig {
    /// Reads and checks a configuration file. Relative paths in it count from the file's folder.
    ///
    /// # Errors
    /// Not readable, not TOML, an unknown key, or a value out of range.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let mut config: Self =
            toml::from_str(&text).map_err(|e| TrainError::Config { path: path.to_owned(), reason: e.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data.dir = folder.join(&config.data.dir);
        config.run.start_from = config.run.start_from.map(|p| folder.join(p));
        config.check()?;
        Ok(config)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), TrainError> {
        let positive = |key: &'static str, value: usize| {
            if value == 0 || value > 1 << 20 {
                return Err(TrainError::Setting { key, value: value.to_string(), reason: "must be from 1 to 1048576" });
            }
            Ok(())
        };
        positive("sampling.tasks_per_step", self.sampling.tasks_per_step)?;
        positive("sampling.points_per_task", self.sampling.points_per_task)?;
        positive("sampling.max_tokens", self.sampling.max_tokens)?;
        positive("sampling.bucket_window", self.sampling.bucket_window)?;
        positive("sampling.accumulation", self.sampling.accumulation)?;
        let share = |key: &'static str, value: f64, below_one: bool| {
            if !(0.0..=1.0).contains(&value) || (below_one && value == 1.0) {
                return Err(TrainError::Setting {
                    key,
                    value: value.to_string(),
                    reason: "must be a share between 0 and 1",
                });
            }
            Ok(())
        };
        share("sampling.input_share", self.sampling.input_share, false)?;
        share("loss.label_smoothing", self.loss.label_smoothing, true)?;
        share("loss.lora_dropout", self.loss.lora_dropout, true)?;
        share("hypernet.dropout", self.hypernet.dropout, true)?;
        share("optimizer.warmup_share", self.optimizer.warmup_share, false)?;
        share("optimizer.beta1", self.optimizer.beta1, true)?;
        share("optimizer.beta2", self.optimizer.beta2, true)?;
        let at_least_zero = |key: &'static str, value: f64| {
            if !value.is_finite() || value < 0.0 {
                return Err(TrainError::Setting { key, value: value.to_string(), reason: "must be a number from 0" });
            }
            Ok(())
        };
        at_least_zero("optimizer.learning_rate", self.optimizer.learning_rate)?;
        at_least_zero("optimizer.weight_decay", self.optimizer.weight_decay)?;
        at_least_zero("optimizer.epsilon", self.optimizer.epsilon)?;
        at_least_zero("optimizer.max_grad_norm", self.optimizer.max_grad_norm)?;
        at_least_zero("loss.l2_generated", self.loss.l2_generated)?;
        at_least_zero("loss.neftune_alpha", self.loss.neftune_alpha)?;
        if self.run.steps == 0 || self.run.checkpoint_every == 0 {
            return Err(TrainError::Setting {
                key: "run.steps, run.checkpoint_every",
                value: "0".into(),
                reason: "must be at least 1",
            });
        }
        Ok(())
    }

    /// Digest of everything that decides what the run computes; where files lie and how often they are written does not.
    pub fn digest(&self) -> String {
        let mut what = self.clone();
        what.data.dir = PathBuf::new();
        what.run.checkpoint_every = 1;
        let text = serde_json::to_vec(&what).unwrap_or_default();
        files::digest([text.as_slice()])
    }
}
