//! The shape of a hypernetwork.

use serde::{Deserialize, Serialize};
use t2l_core::{AdapterLayout, LoraScaling};

use crate::HypernetError;

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
    /// Dropout in training.
    pub dropout: f64,
}

/// Number of codes of the softmax and VQ task encoders.
pub(crate) const CODES: usize = 32;
/// Classes of the discrete task encoder.
pub(crate) const CLASSES: usize = 64;

impl HypernetConfig {
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

    /// Output width of a module's head.
    pub(crate) fn head_width(&self, module: usize) -> usize {
        let m = &self.layout.modules[module];
        let per_rank =
            if self.arch.shares_head() { m.in_features.max(m.out_features) } else { m.in_features + m.out_features };
        if self.arch.by_rank() { per_rank } else { per_rank * self.scaling.rank }
    }

    /// Checks every size before anything of that size is made.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), HypernetError> {
        let size = |key: &'static str, value: usize, least: usize, most: usize| {
            if value < least || value > most {
                return Err(HypernetError::Config { key, value: value.to_string(), reason: "is out of range" });
            }
            Ok(())
        };
        let conditioned = self.conditioning != Conditioning::None;
        size("layout.layers", self.layout.layers, 1, 1 << 10)?;
        size("layout.modules", self.layout.modules.len(), 1, 64)?;
        for m in &self.layout.modules {
            size("in_features", m.in_features, 1, 1 << 19)?;
            size("out_features", m.out_features, 1, 1 << 19)?;
            if self.layout.modules.iter().filter(|other| other.name == m.name).count() > 1 {
                return Err(HypernetError::Config {
                    key: "layout.modules",
                    value: m.name.clone(),
                    reason: "is named twice",
                });
            }
        }
        size("scaling.rank", self.scaling.rank, 1, 1 << 12)?;
        size("latent", self.latent, 4, 1 << 14)?;
        size("head_in", self.head_in, 1, 1 << 16)?;
        size("embedding", self.embedding, usize::from(conditioned), 1 << 17)?;
        size("tasks", self.tasks, usize::from(self.conditioning == Conditioning::Learned), 1 << 20)?;
        if !self.scaling.alpha.is_finite() || !(0.0..1.0).contains(&self.dropout) {
            let value = format!("{}, {}", self.scaling.alpha, self.dropout);
            return Err(HypernetError::Config { key: "scaling.alpha, dropout", value, reason: "is out of range" });
        }
        if let Target::DeltaW { scaling } = self.target
            && !(scaling.is_finite() && scaling > 0.0)
        {
            return Err(HypernetError::Config {
                key: "target.scaling",
                value: scaling.to_string(),
                reason: "must be positive",
            });
        }
        if self.arch.by_rank() && !self.learnable_positions && !self.width().is_multiple_of(2) {
            let value = self.width().to_string();
            return Err(HypernetError::Config { key: "width", value, reason: "must be even for rotated ranks" });
        }
        Ok(())
    }
}
