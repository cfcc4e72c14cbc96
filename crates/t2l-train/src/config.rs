//! The configuration file of a training run: TOML, every key with a default, unknown keys refused.
//!
//! All trainers share one schema. What a trainer does by default where the file is silent stands in `presets`.

mod check;
mod digest;
mod paths;
mod presets;
mod unknown;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use t2l_backbone::{Products, WeightType};
use t2l_data::{Sampler, SamplerConfig};

use crate::loss::LossConfig;
use crate::optimizer::OptimizerConfig;

pub use presets::Trainer;

/// What to train on and how: the schema of `t2l train … CONFIG`.
///
/// ```
/// use t2l_train::{TrainConfig, Trainer};
///
/// let config = TrainConfig::parse("[run]\nsteps = 500", Trainer::Lora)?;
/// assert_eq!((config.run.steps, config.optimizer.learning_rate), (500, 8e-5));
/// assert!(TrainConfig::parse("[run]\nstepz = 500", Trainer::Lora).is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The trainer that the file is for. Written into resolved configurations; another trainer then refuses them.
    pub trainer: Trainer,
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
    /// What only `t2l train lora` and `t2l train multitask` read.
    pub lora: LoraConfig,
    /// What only `t2l train recon` reads.
    pub recon: ReconConfig,
}

/// Models that stay frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base model: a folder, a GGUF file, or a name that `t2l models list` knows. Default `smollm2-135m-instruct`.
    pub base: String,
    /// Text encoder: a name, a folder, or a decoder's GGUF file. Default `all-minilm-l6-v2`.
    pub encoder: String,
    /// Whether the words that a description quotes, in the base model's own embeddings, stand beside the encoder's vector
    /// (not in the published recipe). Default `false`.
    pub quoted_words: bool,
    /// How the base model's weights are held: `"f32"`, `"bf16"` or `"f16"`. Default `"f32"`.
    pub weights: WeightType,
    /// How the frozen base model multiplies: `"f32"`, or `"bf16"` with sums in f32 (published: bf16 under autocast) where the
    /// device has faster ones: an AMD CPU with AVX512-BF16, an Intel CPU with AMX. Default `"f32"`.
    pub products: Products,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            base: "smollm2-135m-instruct".into(),
            encoder: "all-minilm-l6-v2".into(),
            quoted_words: false,
            weights: WeightType::F32,
            products: Products::F32,
        }
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
    /// Names of benchmarks of the folder to validate on, by their development items; `["all"]` is all of them. Default
    /// none.
    pub benchmarks: Vec<String>,
    /// Tasks of each kind to validate on. Default 40.
    pub validation_tasks: usize,
    /// Folder of further tasks to train on, such as `t2l data derive` writes; `sampling.extra_share` says how often. Default
    /// none.
    pub extra_dir: Option<PathBuf>,
    /// Name of a list in that folder's splits.json. Default none: all its tasks.
    pub extra_split: Option<String>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dir: "data".into(),
            split: None,
            unseen_split: None,
            benchmarks: vec![],
            validation_tasks: 40,
            extra_dir: None,
            extra_split: None,
        }
    }
}

/// Shape of the hypernetwork, and of the adapters that it writes or that are trained without one.
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
    /// What the hypernetwork is told of the task: `"text"`, `"one-hot"`, `"learned"` or `"none"` (it learns one adapter
    /// for everything); in `hyperdecoder` only `"input"`. Default `"text"`.
    pub conditioning: t2l_hypernet::Conditioning,
    /// What turns that into the trunk's input: `"linear"`, `"softmax"`, `"vq"` or `"discrete"`. Default `"linear"`
    /// (published).
    pub task_encoder: t2l_hypernet::TaskEncoder,
    /// Initial values: `"ours"` (starts at the base model) or `"published"`; on top of an adapter only `"zero"` (starts
    /// at that adapter); reconstruction has only `"reconstruction"` (torch's defaults). Default `"ours"`, in
    /// reconstruction and on top of an adapter the only one there is.
    pub init: t2l_hypernet::Init,
    /// PEFT folder of an adapter, such as `t2l train multitask` leaves, that is added to everything generated. Default
    /// none.
    pub multitask: Option<PathBuf>,
    /// Whether that adapter stays as it is (`"frozen"`) or is trained along (`"trainable"`). Default `"frozen"`
    /// (published).
    pub offset: t2l_hypernet::Offset,
    /// In how many of the last layers one rank of `v_proj` is given to copying what the description quotes; 0 is none.
    /// Default 0 (not in the published recipe).
    pub copying_layers: usize,
    /// In how many of the last layers one rank of `v_proj` is given to what a description does to the base model's attention
    /// as an instruction; 0 is none. Default 0 (not in the published recipe).
    pub instructed_layers: usize,
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
            task_encoder: t2l_hypernet::TaskEncoder::Linear,
            init: t2l_hypernet::Init::Ours,
            multitask: None,
            offset: t2l_hypernet::Offset::Frozen,
            copying_layers: 0,
            instructed_layers: 0,
            dropout: 0.05,
        }
    }
}

/// What a batch is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Tasks in a step. Default 8, in reconstruction 4 (published); in `lora`, where it is the number of adapters that
    /// train side by side, 4.
    pub tasks_per_step: usize,
    /// Examples of each task in a step; in reconstruction, descriptions. Default 1, in `lora` 8 (published).
    pub points_per_task: usize,
    /// Share of examples shown without the task's instruction, so that the adapter must carry the task. Default 0.5.
    pub input_share: f64,
    /// Prompt and response together, in tokens, from 8; the longer side is cut from the left. Default 128 (published: 512).
    pub max_tokens: usize,
    /// Steps whose rows are regrouped by length so that padding stays small. Default 8; 1 is off.
    pub bucket_window: usize,
    /// Batches whose gradients are summed before a step of the optimizer. Default 1.
    pub accumulation: usize,
    /// Share of the tasks, on average, that are drawn from `data.extra_dir`, where that is named. Default 0.25.
    pub extra_share: f64,
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
            extra_share: 0.25,
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
    /// `seen/own_nll` where no unseen tasks are named; `unseen/nll` or `seen/nll` for `multitask`; in `lora` each
    /// adapter's own loss.
    pub select: Option<String>,
    /// Validations without a new best after which the training of a hypernetwork ends; 0 never ends it. (Adapters have
    /// `lora.patience`.) Default 0.
    pub patience: u64,
    /// Folder of a checkpoint, or of an adapter for `lora` and `multitask`, whose weights the run starts from, with
    /// fresh moments. Default none.
    pub start_from: Option<PathBuf>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            seed: 0,
            checkpoint_every: 100,
            validate_every: 250,
            select: None,
            patience: 0,
            start_from: None,
        }
    }
}

/// Adapters that gradient descent trains without a hypernetwork. Their rank, alpha, scaling and modules are those of
/// `[hypernet]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Held-out examples of each task that its adapter is validated on. Default 20.
    pub validation_examples: usize,
    /// Validations without a new lowest loss after which an adapter's training ends; 0 never ends it. Default 3 for
    /// `lora` (published), 0 for `multitask`.
    pub patience: u64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { validation_examples: 20, patience: 0 }
    }
}

/// What a hypernetwork reconstructs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconConfig {
    /// Folder of adapters, one PEFT folder per task under the task's name, as `t2l train lora` leaves it. Default
    /// `library`.
    pub library: PathBuf,
    /// `"factorized"` (A and B), `"z-scored"` (A and B in deviations from the library's mean) or `"delta-w"` (their
    /// product). Default `"z-scored"` (published).
    pub target: ReconTarget,
    /// What ΔW is multiplied by before it is compared. Default 10,000 (published).
    pub delta_w_scaling: f64,
}

/// What of an adapter is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReconTarget {
    /// Its factors.
    Factorized,
    /// Its factors, each value in deviations from the library's mean.
    #[default]
    ZScored,
    /// The products of its factors.
    DeltaW,
}

impl Default for ReconConfig {
    fn default() -> Self {
        Self { library: "library".into(), target: ReconTarget::ZScored, delta_w_scaling: 10_000.0 }
    }
}

impl ReconConfig {
    /// The same as a hypernetwork's configuration says it.
    pub fn target(&self) -> t2l_hypernet::Target {
        match self.target {
            ReconTarget::Factorized => t2l_hypernet::Target::Factorized,
            ReconTarget::ZScored => t2l_hypernet::Target::ZScored,
            ReconTarget::DeltaW => t2l_hypernet::Target::DeltaW { scaling: self.delta_w_scaling },
        }
    }
}

impl TrainConfig {
    /// The sampler of examples, at the start of a run.
    pub fn sampler(&self) -> Sampler {
        let sampling = &self.sampling;
        let config = SamplerConfig {
            tasks_per_step: sampling.tasks_per_step,
            points_per_task: sampling.points_per_task,
            input_share: sampling.input_share,
            bucket_window: sampling.bucket_window,
            extra_share: sampling.extra_share,
        };
        Sampler::new(config, self.run.seed)
    }

    /// Names of the validation numbers that may choose the best checkpoint: the configured one, else the first of
    /// `otherwise` that there is.
    pub fn judged_by(&self, otherwise: &[&str]) -> Vec<String> {
        match &self.run.select {
            Some(name) => vec![name.clone()],
            None => otherwise.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Validations without a new lowest loss after which a part's training ends; 0 never ends it. `[lora]` speaks for
    /// adapters without a hypernetwork, `[run]` for hypernetworks.
    pub fn patience(&self) -> u64 {
        match self.trainer {
            Trainer::Lora | Trainer::Multitask => self.lora.patience,
            Trainer::Sft | Trainer::Hyperdecoder | Trainer::Recon => self.run.patience,
        }
    }
}
