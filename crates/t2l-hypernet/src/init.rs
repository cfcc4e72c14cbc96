//! Initial values, as torch and the published code draw them, from a seed of ours.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use t2l_core::Parameters;

use crate::config::{Arch, HypernetConfig, Offset};
use crate::tensors::{Role, Spec, specs};
use crate::{Hypernet, HypernetError};

/// How training starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Heads at zero, A from offsets, B = 0: training starts at the base model and every factor has a gradient.
    #[default]
    Ours,
    /// Heads at zero, their biases from PEFT's initial A. In M and S the adapter is then not a no-op.
    Published,
    /// torch's defaults everywhere: for reconstruction.
    Reconstruction,
    /// Heads at zero, offsets kept as they are set later: on top of a multi-task LoRA.
    Zero,
}

impl Hypernet {
    /// A fresh hypernetwork.
    ///
    /// # Errors
    /// A configuration that cannot be, or one whose training would never leave its starting point.
    pub fn new(config: HypernetConfig, init: Init, seed: u64, device: &Device) -> Result<Self, HypernetError> {
        config.check()?;
        let initial_a = initial_a(&config, seed);
        Self::with_initial_a(config, init, seed, &initial_a, device)
    }

    /// As [`Hypernet::new`] with PEFT's initial A of each module given: `[rank, in]`, row-major, in layout order.
    ///
    /// # Errors
    /// As [`Hypernet::new`], or an initial A of another size.
    pub fn with_initial_a(
        config: HypernetConfig,
        init: Init,
        seed: u64,
        initial_a: &[Vec<f32>],
        device: &Device,
    ) -> Result<Self, HypernetError> {
        config.check()?;
        check_start(&config, init)?;
        let sizes = config.layout.modules.iter().map(|m| config.scaling.rank * m.in_features);
        if !initial_a.iter().map(Vec::len).eq(sizes) {
            let value = format!("{:?} values", initial_a.iter().map(Vec::len).collect::<Vec<_>>());
            return Err(HypernetError::Config { key: "initial A", value, reason: "do not fit rank and modules" });
        }
        let (mut parameters, mut buffers) = (Parameters::default(), Parameters::default());
        for (i, spec) in specs(&config).iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(1 + i as u64);
            let values = initial_values(&config, init, spec, initial_a, &mut rng);
            insert(if spec.trained { &mut parameters } else { &mut buffers }, spec, values, device);
        }
        // VQ's running average of its codes starts at the codes.
        if let Some(codes) = buffers.entry("task_encoder.embed").map(|e| e.values.clone())
            && let Some((_, average)) = buffers.iter_mut().find(|(name, _)| *name == "task_encoder.embed_avg")
        {
            average.values = codes;
        }
        Ok(Self { config, parameters, buffers })
    }
}

/// With A = B = 0 neither factor has a gradient: such a start is refused.
fn check_start(config: &HypernetConfig, init: Init) -> Result<(), HypernetError> {
    let (key, value, reason) = match init {
        Init::Ours if config.offset != Offset::Trainable => {
            ("offset", format!("{:?}", config.offset), "must be trainable for this initial value: A comes from it")
        }
        Init::Published if !config.head_bias => {
            ("head_bias", "false".to_owned(), "must be true for the published initial value: A comes from it")
        }
        Init::Zero if config.offset == Offset::None => {
            ("offset", format!("{:?}", config.offset), "must be there to start from a multi-task adapter")
        }
        _ if config.copying.is_some() => {
            ("copying", "some".to_owned(), "starts from a base model: `copy_words` gives it to a hypernetwork")
        }
        _ if config.instructed.is_some() => {
            ("instructed", "some".to_owned(), "starts from a base model: `instruct` gives it to a hypernetwork")
        }
        _ => return Ok(()),
    };
    Err(HypernetError::Config { key, value, reason })
}

pub(crate) fn insert(target: &mut Parameters, spec: &Spec, values: Vec<f32>, device: &Device) {
    let flat: Tensor<1> = Tensor::from_data(TensorData::new(values, [spec.shape.iter().product::<usize>()]), device);
    match spec.shape[..] {
        [a] => target.insert(&spec.name, flat.reshape([a])),
        [a, b] => target.insert(&spec.name, flat.reshape([a, b])),
        [a, b, c] => target.insert(&spec.name, flat.reshape([a, b, c])),
        _ => unreachable!("no tensor of a hypernetwork has another rank"),
    }
}

/// PEFT's initial A of each module: kaiming-uniform with a = √5, so uniform in ±1/√in.
fn initial_a(config: &HypernetConfig, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |m: &t2l_core::TargetModule| {
        let bound = 1.0 / (m.in_features as f32).sqrt();
        (0..config.scaling.rank * m.in_features).map(|_| rng.random_range(-bound..bound)).collect()
    };
    config.layout.modules.iter().map(draw).collect()
}

fn initial_values(
    config: &HypernetConfig,
    init: Init,
    spec: &Spec,
    initial_a: &[Vec<f32>],
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let count: usize = spec.shape.iter().product();
    let mut uniform = |fan_in: usize| -> Vec<f32> {
        let bound = 1.0 / (fan_in as f32).sqrt();
        (0..count).map(|_| rng.random_range(-bound..bound)).collect()
    };
    match spec.role {
        Role::Weight => uniform(spec.shape[1]),
        Role::Bias(input) => uniform(input),
        Role::NormWeight => vec![1.0; count],
        Role::NormBias | Role::Zero | Role::Count | Role::Mean | Role::OffsetB => vec![0.0; count],
        Role::Deviation => vec![1.0; count],
        Role::Embedding => (0..count).map(|_| normal(rng)).collect(),
        Role::HeadWeight if init == Init::Reconstruction => uniform(config.head_in),
        Role::HeadWeight => vec![0.0; count],
        Role::HeadBias(m) => match init {
            Init::Reconstruction => uniform(config.head_in),
            Init::Published => published_bias(config, m, &initial_a[m], count),
            Init::Ours | Init::Zero => vec![0.0; count],
        },
        Role::OffsetA(m) if init == Init::Ours => initial_a[m].iter().copied().cycle().take(count).collect(),
        Role::OffsetA(_) => vec![0.0; count],
    }
}

/// Bias-HyperInit of the published code: A where a head emits A, scaled down where it emits B too.
fn published_bias(config: &HypernetConfig, module: usize, a: &[f32], count: usize) -> Vec<f32> {
    let m = &config.layout.modules[module];
    let rank = config.scaling.rank;
    let mut bias = vec![0.0; count];
    match config.arch {
        Arch::L => bias[..a.len()].copy_from_slice(a),
        Arch::LA => bias[..m.in_features].copy_from_slice(&a[..m.in_features]),
        Arch::M => {
            let width = m.in_features.max(m.out_features);
            for (bias, a) in bias.chunks_exact_mut(width).zip(a.chunks_exact(m.in_features)) {
                for (bias, a) in bias.iter_mut().zip(a) {
                    *bias = a / 2f32.sqrt();
                }
            }
        }
        Arch::S => {
            for (bias, a) in bias.iter_mut().zip(a) {
                *bias = a / (2f32.sqrt() * (rank as f32).sqrt());
            }
        }
    }
    bias
}

/// A standard normal value (Box–Muller).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f32::consts::PI * v).cos()
}
