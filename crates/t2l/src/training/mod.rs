//! From a configuration to a run: models, tasks, embeddings and validators for the trainers of [`t2l_train`].

mod ground;
mod hyperdecoder;
mod hypernet;
mod lora;
mod multitask;
mod recon;
mod sft;
mod told;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use t2l_encoder::weights_sha256;
use t2l_hypernet::ModelRef;
use t2l_models::{Models, Progress};
use t2l_train::{Alone, Ended, Event, Ranks, Stop, TrainConfig, Trainee, Trainer, check_folder};

use crate::{Error, fetch, model_ref};

pub use lora::{LibraryRun, train_library};

/// A run ready to start.
pub struct PreparedRun {
    /// The resolved configuration.
    pub config: TrainConfig,
    /// Folder of the run.
    pub folder: PathBuf,
    /// What it trains.
    pub trainee: Box<dyn Trainee>,
    /// Number of tasks.
    pub tasks: usize,
}

impl PreparedRun {
    /// Trains until all steps are taken or `stop` wants an end. Resumes where the folder's state file stands.
    ///
    /// # Errors
    /// As [`t2l_train::run`].
    pub fn run(&mut self, stop: &Stop, tell: impl FnMut(Event)) -> Result<Ended, Error> {
        self.run_shared(&Alone, stop, tell)
    }

    /// As [`PreparedRun::run`], in one of several processes.
    ///
    /// # Errors
    /// As [`t2l_train::run_shared`].
    pub fn run_shared(&mut self, ranks: &dyn Ranks, stop: &Stop, mut tell: impl FnMut(Event)) -> Result<Ended, Error> {
        Ok(t2l_train::run_shared(ranks, &mut *self.trainee, &self.config, &self.folder, stop, &mut tell)?)
    }
}

/// Where a run's frozen models lie.
#[derive(Debug, Clone)]
pub struct ModelPaths {
    /// The base model: a folder or a GGUF file.
    pub base: PathBuf,
    /// Names and hash of the base model for the manifest.
    pub base_ref: ModelRef,
    /// The encoder: a folder, or a decoder's GGUF file.
    pub encoder: PathBuf,
    /// Names of the encoder for the manifest.
    pub encoder_ref: ModelRef,
}

impl ModelPaths {
    /// Finds the models that a configuration names; what is known and not here is fetched.
    ///
    /// # Errors
    /// A model that is neither known nor here, or cannot be fetched or read.
    pub fn find(models: &Models, config: &TrainConfig, progress: &mut dyn Progress) -> Result<Self, Error> {
        let mut find = |name: &str| -> Result<(PathBuf, ModelRef), Error> {
            let reference = model_ref(models, name);
            Ok((fetch(models, &reference, progress)?, reference))
        };
        let (base, base_ref) = find(&config.model.base)?;
        let (encoder, mut encoder_ref) = find(&config.model.encoder)?;
        if encoder_ref.sha256.is_none() {
            encoder_ref.sha256 = weights_sha256(&encoder)?;
        }
        Ok(Self { base, base_ref, encoder, encoder_ref })
    }
}

/// Prepares a run in `folder`: of any trainer but `lora`, which has many of them ([`train_library`]). The
/// folder `cache` keeps description embeddings between runs, in a file for each encoder.
///
/// # Errors
/// Models or data that cannot be loaded, a configuration that does not fit them.
pub fn prepare(
    config: TrainConfig,
    models: &ModelPaths,
    folder: &Path,
    cache: &Path,
    device: &Device,
    mut tell: impl FnMut(&str),
) -> Result<PreparedRun, Error> {
    check_folder(folder, &config)?;
    let ground = ground::Ground::open(&config, models, device, &mut tell)?;
    let trainee: Box<dyn Trainee> = match config.trainer {
        Trainer::Sft => Box::new(sft::prepare(&config, models, &ground, cache, &mut tell)?),
        Trainer::Hyperdecoder => Box::new(hyperdecoder::prepare(&config, models, &ground, cache, &mut tell)?),
        Trainer::Recon => Box::new(recon::prepare(&config, models, &ground, cache, &mut tell)?),
        Trainer::Multitask => Box::new(multitask::prepare(&config, &ground, &mut tell)?),
        Trainer::Lora => return Err(Error::Invalid("`lora` trains many adapters: use train_library".into())),
    };
    Ok(PreparedRun { config, folder: folder.to_owned(), trainee, tasks: ground.trained().count() })
}
