//! The shape of a hypernetwork.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use t2l_core::{AdapterLayout, LoraScaling};

use crate::HypernetError;
use crate::tensors::specs;

/// Which head stands on the trunk (Text-to-LoRA, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arch {
    /// One head per module emits A and B together.
    L,
    /// One head per module, told by an embedding whether A or B is wanted.
    M,
    /// As M, one rank at a time.
    S,
    /// As L, one rank at a time (in the published code, not in the paper).
    LA,
}

impl Arch {
    /// Whether one head serves A and B.
    pub fn shares_head(self) -> bool {
        matches!(self, Self::M | Self::S)
    }

    /// Whether ranks are rows of the batch.
    pub fn by_rank(self) -> bool {
        matches!(self, Self::S | Self::LA)
    }
}

/// What the hypernetwork is told of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conditioning {
    /// The embedding of its description.
    #[default]
    Text,
    /// Its index among the training tasks.
    OneHot,
    /// Its index, through a trained vector per task.
    Learned,
    /// The embedding of the whole user turn it is to answer, the task's instruction included: a hyperdecoder.
    Input,
    /// Nothing.
    None,
}

/// What turns a task embedding into the trunk's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskEncoder {
    /// A linear map and a norm (every published checkpoint).
    #[default]
    Linear,
    /// A mixture of 32 learned codes.
    Softmax,
    /// The nearest of 32 codes.
    Vq,
    /// One of 64 classes, one-hot.
    Discrete,
}

/// What training aims at, and so what the heads' output means.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Factors, trained through the language model.
    #[default]
    Sft,
    /// Factors of a library's adapters.
    Factorized,
    /// The same, z-scored over the library.
    ZScored,
    /// ΔW of a library's adapters, this many times as large.
    DeltaW {
        /// The factor (published: 10,000).
        scaling: f64,
    },
}

/// Values added to the generated factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offset {
    /// None.
    #[default]
    None,
    /// A multi-task LoRA, say, that stays as it is.
    Frozen,
    /// Trained along.
    Trainable,
}

/// A rank of `v_proj` that is given to the words that a description quotes, in the last layers: see
/// [`copying`](crate::Hypernet::copy_words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copying {
    /// How many of the last layers.
    pub layers: usize,
    /// Width of the vector of the quoted words, with which what is read of a task embedding ends.
    pub words: usize,
}

/// A rank of `v_proj` that is given to what a description does to attention as an instruction, in the last layers: see
/// [`instructed`](crate::Hypernet::instruct).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructed {
    /// How many of the last layers. A task embedding ends with as many times the width of `v_proj`'s output.
    pub layers: usize,
}

/// The module whose last rank copies, and whose first one is instructed.
pub(crate) const V_PROJ: &str = "v_proj";

/// The shape of a hypernetwork: everything that decides which tensors it has and what it computes with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HypernetConfig {
    /// Which head.
    pub arch: Arch,
    /// Where adapters go; the order of modules is that of the type embedding.
    pub layout: AdapterLayout,
    /// Rank and scaling of generated adapters.
    pub scaling: LoraScaling,
    /// What it is told of the task.
    pub conditioning: Conditioning,
    /// Width `e` of a task embedding; number of tasks for one-hot; 0 without conditioning.
    pub embedding: usize,
    /// Number of tasks for learned vectors, else 0.
    #[serde(default)]
    pub tasks: usize,
    /// Kind of task encoder.
    #[serde(default)]
    pub task_encoder: TaskEncoder,
    /// Latent size `k`.
    pub latent: usize,
    /// Input width `h` of the heads.
    pub head_in: usize,
    /// Whether heads have a bias.
    pub head_bias: bool,
    /// Offsets added to the factors.
    #[serde(default)]
    pub offset: Offset,
    /// Positions of ranks are a learned table instead of rotations (by-rank architectures).
    #[serde(default)]
    pub learnable_positions: bool,
    /// What the output means.
    #[serde(default)]
    pub target: Target,
    /// Copying of quoted words, where there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copying: Option<Copying>,
    /// Effects of descriptions as instructions, where they are put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructed: Option<Instructed>,
    /// Dropout in training.
    pub dropout: f64,
}

/// How many parameters a configuration has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterCounts {
    /// Trained values.
    pub trainable: u64,
    /// Values that are stored but not trained by gradient.
    pub frozen: u64,
    /// Trained values by the first part of the tensor's name: `mixer`, `heads`, ...
    pub by_part: BTreeMap<String, u64>,
}

/// Number of codes of the softmax and VQ task encoders.
pub(crate) const CODES: usize = 32;
/// Classes of the discrete task encoder.
pub(crate) const CLASSES: usize = 64;
/// Most values that a hypernetwork or one adapter may have, or be generated with: 32 GiB as f32.
const MOST_VALUES: u64 = 1 << 33;

impl HypernetConfig {
    /// The paper's sizes (latent 128, head input 512) on text embeddings `embedding` wide, with trainable offsets as
    /// [`Init::Ours`](crate::Init::Ours) asks; every other setting is a field to change.
    pub fn new(arch: Arch, layout: AdapterLayout, scaling: LoraScaling, embedding: usize) -> Self {
        Self {
            arch,
            layout,
            scaling,
            conditioning: Conditioning::Text,
            embedding,
            tasks: 0,
            task_encoder: TaskEncoder::Linear,
            latent: 128,
            head_in: 512,
            head_bias: true,
            offset: Offset::Trainable,
            learnable_positions: false,
            target: Target::Sft,
            copying: None,
            instructed: None,
            dropout: 0.05,
        }
    }

    /// Width of the encoded task embedding; 0 without conditioning.
    pub fn task_width(&self) -> usize {
        match (self.conditioning, self.task_encoder) {
            (Conditioning::None, _) => 0,
            (_, TaskEncoder::Discrete) => CLASSES,
            _ => self.latent / 2,
        }
    }

    /// Whether depth and module type are one-hot instead of embedded.
    pub(crate) fn one_hot_places(&self) -> bool {
        self.conditioning != Conditioning::None && self.task_encoder == TaskEncoder::Discrete
    }

    /// Width of the depth part of the trunk's input.
    pub(crate) fn depth_width(&self) -> usize {
        if self.one_hot_places() { self.layout.layers } else { self.latent / 4 }
    }

    /// Width of the module-type part of the trunk's input.
    pub(crate) fn type_width(&self) -> usize {
        if self.one_hot_places() { self.layout.modules.len() } else { self.latent / 4 }
    }

    /// Width `D` of the trunk.
    pub fn width(&self) -> usize {
        self.task_width() + self.depth_width() + self.type_width()
    }

    /// Width of what a caller passes as a task: the embedding, or an index as one-hot.
    pub fn input_width(&self) -> usize {
        if self.conditioning == Conditioning::Learned { self.tasks } else { self.embedding }
    }

    /// Width of the effects with which a task embedding ends: those go into adapters as they are, the task encoder reads
    /// only what stands before them.
    pub fn effects_width(&self) -> usize {
        let output = self.values_module().map_or(0, |m| self.layout.modules[m].out_features);
        self.instructed.map_or(0, |instructed| instructed.layers.saturating_mul(output))
    }

    /// Width of what the task encoder reads of a task embedding.
    pub(crate) fn read_width(&self) -> usize {
        self.embedding.saturating_sub(self.effects_width())
    }

    /// Output width of a module's head.
    pub(crate) fn head_width(&self, module: usize) -> usize {
        let m = &self.layout.modules[module];
        let per_rank =
            if self.arch.shares_head() { m.in_features.max(m.out_features) } else { m.in_features + m.out_features };
        if self.arch.by_rank() { per_rank } else { per_rank * self.scaling.rank }
    }

    /// Numbers of parameters, from the configuration alone.
    ///
    /// # Errors
    /// A configuration that cannot be.
    pub fn parameter_counts(&self) -> Result<ParameterCounts, HypernetError> {
        self.check()?;
        let mut counts = ParameterCounts::default();
        for spec in specs(self) {
            let values: u64 = spec.shape.iter().map(|&n| n as u64).product();
            if spec.trained {
                counts.trainable += values;
                let part = spec.name.split('.').next().unwrap_or_default();
                *counts.by_part.entry(part.to_owned()).or_default() += values;
            } else {
                counts.frozen += values;
            }
        }
        Ok(counts)
    }

    /// Checks every size before anything of that size is made.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), HypernetError> {
        let conditioned = self.conditioning != Conditioning::None;
        within("layout.layers", self.layout.layers, 1, 1 << 10)?;
        within("layout.modules", self.layout.modules.len(), 1, 64)?;
        within("scaling.rank", self.scaling.rank, 1, 1 << 12)?;
        within("latent", self.latent, 4, 1 << 14)?;
        within("head_in", self.head_in, 1, 1 << 16)?;
        within("embedding", self.embedding, usize::from(conditioned), 1 << 17)?;
        within("tasks", self.tasks, usize::from(self.conditioning == Conditioning::Learned), 1 << 20)?;
        let invalid = |key, value: String, reason| Err(HypernetError::Config { key, value, reason });
        for (i, m) in self.layout.modules.iter().enumerate() {
            within("in_features", m.in_features, 1, 1 << 19)?;
            within("out_features", m.out_features, 1, 1 << 19)?;
            // Names become parts of tensor names, and of file contents elsewhere.
            let plain = m.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !plain || m.name.is_empty() || m.name.len() > 64 {
                let value: String = m.name.chars().take(64).collect();
                return invalid("layout.modules", value, "is not the last part of a module's name");
            }
            if self.layout.modules.iter().take(i).any(|other| other.name == m.name) {
                return invalid("layout.modules", m.name.clone(), "is named twice");
            }
        }
        if !self.scaling.alpha.is_finite() {
            return invalid("scaling.alpha", self.scaling.alpha.to_string(), "is not finite");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return invalid("dropout", self.dropout.to_string(), "is not within 0 and 1");
        }
        if let Target::DeltaW { scaling } = self.target
            && !(scaling.is_finite() && scaling > 0.0)
        {
            return invalid("target.scaling", scaling.to_string(), "must be positive");
        }
        if self.arch.by_rank() && !self.learnable_positions && !self.width().is_multiple_of(2) {
            return invalid("latent", self.latent.to_string(), "makes an odd trunk, whose ranks cannot be rotated");
        }
        self.check_instructed()?;
        self.check_copying()?;
        let total = self.values();
        if total > MOST_VALUES {
            return invalid("parameters", total.to_string(), "are more than any hypernetwork has");
        }
        let working = self.values_per_task();
        if working > MOST_VALUES {
            return invalid("values for one adapter", working.to_string(), "are more than are held at once");
        }
        Ok(())
    }

    fn check_copying(&self) -> Result<(), HypernetError> {
        let Some(copying) = self.copying else { return Ok(()) };
        within("copying.layers", copying.layers, 1, self.layout.layers)?;
        within("copying.words", copying.words, 1, self.read_width())?;
        if !matches!(self.conditioning, Conditioning::Text | Conditioning::Input) {
            let (value, reason) = (format!("{copying:?}"), "is for hypernetworks that read texts");
            return Err(HypernetError::Config { key: "copying", value, reason });
        }
        self.check_rank_of_values("copying", usize::from(self.instructed.is_some()))
    }

    fn check_instructed(&self) -> Result<(), HypernetError> {
        let Some(instructed) = self.instructed else { return Ok(()) };
        within("instructed.layers", instructed.layers, 1, self.layout.layers)?;
        let invalid =
            |value: usize, reason| Err(HypernetError::Config { key: "instructed", value: value.to_string(), reason });
        if self.conditioning != Conditioning::Text {
            return invalid(instructed.layers, "is for hypernetworks that read descriptions");
        }
        if self.effects_width() >= self.embedding {
            return invalid(self.embedding, "values of a task embedding are not more than the effects alone");
        }
        self.check_rank_of_values("instructed", 0)
    }

    /// Whether a rank of `v_proj` can be had for something of its own beside `taken` others.
    fn check_rank_of_values(&self, key: &'static str, taken: usize) -> Result<(), HypernetError> {
        let invalid = |value: String, reason| Err(HypernetError::Config { key, value, reason });
        if self.target != Target::Sft {
            return invalid(
                format!("{:?}", self.target),
                "is for hypernetworks that are trained through the language model",
            );
        }
        if self.values_module().is_none() {
            return invalid("no v_proj".into(), "needs v_proj among the target modules");
        }
        if self.scaling.rank <= taken {
            return invalid(self.scaling.rank.to_string(), "is a rank too few");
        }
        Ok(())
    }

    /// Place of `v_proj` in the layout.
    pub(crate) fn values_module(&self) -> Option<usize> {
        self.layout.modules.iter().position(|m| m.name == V_PROJ)
    }

    /// Values of all tensors together, and at least those of one adapter. Sizes are checked one by one already.
    pub(crate) fn values(&self) -> u64 {
        let (rank, layers) = (self.scaling.rank as u64, self.layout.layers as u64);
        let widths = self.layout.modules.iter().map(|m| (m.in_features + m.out_features) as u64).sum::<u64>();
        let adapter = layers * rank * widths;
        let heads = rank * widths * self.head_in as u64;
        // Heads as L has them bound the others' above; past the limit shapes are not worked out in usize at all.
        if adapter > MOST_VALUES || (self.arch == Arch::L && heads > MOST_VALUES) {
            return adapter.max(heads);
        }
        let tensors = specs(self).into_iter().map(|s| s.shape.into_iter().map(|n| n as u64).product::<u64>());
        tensors.sum::<u64>().max(adapter)
    }

    /// About how many values one task takes while it is generated: the trunk's widest rows, the heads' output, the factors.
    /// Sizes are checked one by one already.
    pub(crate) fn values_per_task(&self) -> u64 {
        let (layers, rank) = (self.layout.layers as u64, self.scaling.rank as u64);
        let modules = &self.layout.modules;
        let adapter = layers * rank * modules.iter().map(|m| (m.in_features + m.out_features) as u64).sum::<u64>();
        let mut rows = layers * modules.len() as u64;
        let mut emitted = adapter;
        if self.arch.shares_head() {
            rows *= 2;
            emitted = layers * rank * modules.iter().map(|m| 2 * m.in_features.max(m.out_features) as u64).sum::<u64>();
        }
        if self.arch.by_rank() {
            rows *= rank;
        }
        let trunk = rows * (12 * self.width() as u64 + 2 * self.head_in as u64);
        let factors = adapter * if self.arch == Arch::L { 2 } else { 1 };
        trunk + emitted + factors
    }
}

fn within(key: &'static str, value: usize, least: usize, most: usize) -> Result<(), HypernetError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(HypernetError::Config { key, value: value.to_string(), reason: "is out of range" })
}
