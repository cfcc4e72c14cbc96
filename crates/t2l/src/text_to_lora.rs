//! The short way from descriptions to adapters.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use t2l_adapter::peft::{self, SaveOptions};
use t2l_backbone::{Backbone, WeightType};
use t2l_core::{Adapter, AdapterGenerator, AdapterLayout, LoraFactors, TextEncoder, counted, device};
use t2l_data::user_turn;
use t2l_encoder::{Encoder, InstructionEffects, QuotedWords, weights_sha256};
use t2l_hypernet::{Checkpoint, Conditioning, ModelRef};
use t2l_models::{ModelError, Models, Progress};

use crate::Error;
use crate::model::{fetch, model_ref};

/// Where the hypernetwork comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CheckpointSource {
    /// The one compiled into this library (feature `bundled-checkpoint`).
    #[default]
    Bundled,
    /// A folder, or the hypernet.safetensors inside one.
    Path(PathBuf),
}

impl CheckpointSource {
    /// Loads it.
    ///
    /// # Errors
    /// It is damaged, or nothing is bundled.
    pub fn load(&self, device: &Device) -> Result<Checkpoint, Error> {
        match self {
            Self::Path(path) => Ok(Checkpoint::load(path, device)?),
            #[cfg(feature = "bundled-checkpoint")]
            Self::Bundled => Ok(Checkpoint::from_bytes(
                include_bytes!("../checkpoint/manifest.json"),
                include_bytes!("../checkpoint/hypernet.safetensors"),
                device,
            )?),
            #[cfg(not(feature = "bundled-checkpoint"))]
            Self::Bundled => {
                let reason = "no checkpoint is compiled in (feature bundled-checkpoint); name one with --checkpoint";
                Err(Error::Invalid(reason.to_owned()))
            }
        }
    }
}

/// How a [`TextToLora`] is made.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    device: Option<String>,
    checkpoint: CheckpointSource,
    cache: Option<PathBuf>,
    encoder: Option<String>,
    base: Option<String>,
}

impl Builder {
    /// Device to compute on: `cpu` (the default), `cuda:0`, `wgpu`, …
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// A checkpoint of one's own.
    #[must_use]
    pub fn checkpoint(mut self, path: impl Into<PathBuf>) -> Self {
        self.checkpoint = CheckpointSource::Path(path.into());
        self
    }

    /// Where the checkpoint's text encoder lies, for one that `t2l models` does not know: a folder, a decoder's GGUF file, or
    /// a name.
    ///
    /// It has to be the encoder that the checkpoint names.
    #[must_use]
    pub fn encoder(mut self, encoder: impl Into<String>) -> Self {
        self.encoder = Some(encoder.into());
        self
    }

    /// Where the checkpoint's base model lies: a folder, a GGUF file, or a name. Only a checkpoint that reads quoted words in its
    /// token embeddings, or descriptions as instructions, needs it here, and only where that model is not known to `t2l models`.
    #[must_use]
    pub fn base(mut self, base: impl Into<String>) -> Self {
        self.base = Some(base.into());
        self
    }

    /// Where model files are kept.
    #[must_use]
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Loads hypernetwork and encoder; the encoder is fetched when it is not here. A checkpoint that reads quoted words also
    /// takes the token embeddings of its base model, one with instruction effects the whole model, in f32: it
    /// serves as [`TextToLora::base_model`] too, where that is to be the same file in f32.
    ///
    /// # Errors
    /// An unknown device, a damaged checkpoint, an encoder or a base model that cannot be had.
    pub fn build(self) -> Result<TextToLora, Error> {
        self.build_with(&mut ())
    }

    /// As [`Builder::build`], telling how downloads go.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn build_with(self, progress: &mut dyn Progress) -> Result<TextToLora, Error> {
        let device = device::parse(self.device.as_deref().unwrap_or("cpu"))?;
        let checkpoint = self.checkpoint.load(&device)?;
        let conditioning = checkpoint.hypernet.config.conditioning;
        if !matches!(conditioning, Conditioning::Text | Conditioning::Input) {
            return Err(Error::Invalid(format!(
                "the hypernetwork was not trained on descriptions or inputs (its conditioning is {conditioning:?}), so there is no \
                 encoder whose embeddings it could read"
            )));
        }
        let models = Models::new(self.cache)?;
        let reference = checkpoint.manifest.encoder.clone();
        let given = self.encoder.as_deref();
        let place = ModelRef { name: given.map(str::to_owned).or(reference.name.clone()), ..reference.clone() };
        if let Some(other) = given.and_then(|name| models.known(name)).filter(|model| model.hub_id != reference.id) {
            return Err(Error::Invalid(another_encoder(&reference.id, other.hub_id)));
        }
        let folder = match fetch(&models, &place, progress) {
            Err(Error::Model(error @ ModelError::Unknown { .. })) if given.is_none() => {
                let id = &reference.id;
                return Err(Error::Invalid(format!(
                    "{error}; the checkpoint's encoder is {id}: name its folder with --encoder"
                )));
            }
            other => other?,
        };
        if let (Some(name), Some(trained)) = (given.filter(|name| models.known(name).is_none()), &reference.sha256) {
            let found = weights_sha256(&folder)?.unwrap_or_else(|| "nothing".into());
            if found != *trained {
                let found = format!("{name}, whose weights have SHA-256 {found} instead of {trained}");
                return Err(Error::Invalid(another_encoder(&reference.id, &found)));
            }
        }
        let mut encoder = Encoder::load(&folder, &device)?.with_id(&reference.id);
        let config = &checkpoint.hypernet.config;
        let expected = config.embedding - config.effects_width();
        let quoted = checkpoint.manifest.quoted_words;
        if !quoted && encoder.width() != expected {
            let found =
                format!("one in {} that gives {} values instead of {expected}", folder.display(), encoder.width());
            return Err(Error::Invalid(another_encoder(&reference.id, &found)));
        }
        let base = match quoted || config.instructed.is_some() {
            true => Some(base_of(&checkpoint, self.base.as_deref(), &models, progress)?),
            false => None,
        };
        if let Some(base) = base.as_ref().filter(|_| quoted) {
            let (width, words) = (encoder.width(), QuotedWords::load(base, &device)?);
            if width + words.width() != expected {
                return Err(Error::Invalid(format!(
                    "the hypernetwork reads {expected} values, of encoder {} and of the token embeddings of {}; given were {width} of {} and \
                     {} of {}",
                    reference.id,
                    checkpoint.manifest.base_model.id,
                    folder.display(),
                    words.width(),
                    base.display()
                )));
            }
            if let Some(copying) = config.copying.filter(|copying| copying.words != words.width()) {
                let (copied, there) = (copying.words, words.width());
                let reason = format!("copies {copied} values of quoted words, and {} has {there}", base.display());
                return Err(Error::Invalid(format!("the hypernetwork {reason}")));
            }
            encoder = encoder.with_quoted_words(words);
        }
        let mut read_with = None;
        let worn = checkpoint.hypernet.worn_while_instructed();
        if let (Some(instructed), Some(worn), Some(base)) = (config.instructed, worn, base) {
            let backbone = Backbone::load(&base, &device)?;
            let effects = InstructionEffects::new(backbone.clone(), instructed.layers, worn)?;
            let (wanted, found) = (config.effects_width(), effects.width());
            if wanted != found {
                let reason = format!("puts {wanted} values of instructions in, and {} gives {found}", base.display());
                return Err(Error::Invalid(format!("the hypernetwork {reason}")));
            }
            encoder = encoder.with_instruction_effects(effects);
            read_with = Some((base, backbone));
        }
        Ok(TextToLora { device, source: self.checkpoint, checkpoint, encoder, read_with, models })
    }
}

/// Where the base model lies that a checkpoint reads descriptions with: its own, or `given` where that cannot be had.
fn base_of(
    checkpoint: &Checkpoint,
    given: Option<&str>,
    models: &Models,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Error> {
    let own = &checkpoint.manifest.base_model;
    match (fetch(models, own, progress), given) {
        (Err(_), Some(name)) => fetch(models, &model_ref(models, name), progress),
        (Err(Error::Model(error @ ModelError::Unknown { .. })), None) => Err(Error::Invalid(format!(
            "{error}; the checkpoint reads descriptions with its base model, {}: name where it lies with --model",
            own.id
        ))),
        (found, _) => found,
    }
}

fn another_encoder(wanted: &str, found: &str) -> String {
    format!(
        "the hypernetwork was trained with encoder {wanted}, and embeddings of another mean nothing to it; given was {found}"
    )
}

/// Fails where adapters for one base model do not fit another.
fn check_base(wanted: &AdapterLayout, found: &AdapterLayout) -> Result<(), Error> {
    if (wanted.layers, &wanted.modules) == (found.layers, &found.modules) {
        return Ok(());
    }
    let words = |layout: &AdapterLayout| {
        let widths = layout.modules.iter().map(|m| format!("{} {} → {}", m.name, m.in_features, m.out_features));
        format!("{} with {}", counted(layout.layers, "layer"), widths.collect::<Vec<_>>().join(", "))
    };
    Err(Error::Invalid(format!(
        "base model {} has {}; the hypernetwork was trained for {}, which has {}",
        found.base_model,
        words(found),
        wanted.base_model,
        words(wanted)
    )))
}

/// A hypernetwork with its text encoder.
pub struct TextToLora {
    device: Device,
    source: CheckpointSource,
    checkpoint: Checkpoint,
    encoder: Encoder,
    /// The base model that reads descriptions as instructions, and where it lies.
    read_with: Option<(PathBuf, Backbone)>,
    models: Models,
}

impl TextToLora {
    /// Starts with the bundled checkpoint on the CPU.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Generates one adapter per description; all of them come out of one forward pass.
    ///
    /// # Errors
    /// A description that is empty or over 64 KiB, or a hyperdecoder, which reads no descriptions.
    pub fn generate(&self, descriptions: &[&str]) -> Result<GeneratedAdapters, Error> {
        self.check_reads_descriptions()?;
        self.of_texts(descriptions)
    }

    /// As [`TextToLora::generate`], but as many adapters at a time as `budget` bytes of working memory allow, for more
    /// descriptions than there is memory for adapters. All are read first.
    ///
    /// # Errors
    /// As [`TextToLora::generate`].
    pub fn generate_in_chunks(
        &self,
        descriptions: &[&str],
        budget: usize,
    ) -> Result<impl Iterator<Item = Result<GeneratedAdapters, Error>>, Error> {
        self.check_reads_descriptions()?;
        let encoded = self.encoder.encode(descriptions)?;
        let mut done = 0;
        Ok(self.checkpoint.hypernet.generate_in_chunks(encoded.embeddings, budget).map(move |factors| {
            let (factors, first) = (factors?, done);
            done += factors.tasks();
            Ok(self.told_of(&descriptions[first..done], &encoded.truncated[first..done], factors))
        }))
    }

    fn check_reads_descriptions(&self) -> Result<(), Error> {
        if self.reads_inputs() {
            return Err(Error::Invalid(
                "the checkpoint is a hyperdecoder: it writes an adapter for each input, not for a description. Use it \
                 with `t2l ask`, or as a baseline with `t2l eval --hyperdecoder`"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Whether the hypernetwork is a hyperdecoder, which reads each input instead of a description.
    pub fn reads_inputs(&self) -> bool {
        self.checkpoint.hypernet.config.conditioning == Conditioning::Input
    }

    /// Generates the adapter for one input of the task that a description tells: of the description, or, by a
    /// hyperdecoder, of the whole user turn in `definition` mode.
    ///
    /// # Errors
    /// A description or a turn that is empty or over 64 KiB.
    pub fn generate_for(&self, description: &str, input: &str) -> Result<GeneratedAdapters, Error> {
        if self.reads_inputs() {
            return self.of_texts(&[&user_turn(Some(description), input, &[])]);
        }
        self.of_texts(&[description])
    }

    fn of_texts(&self, texts: &[&str]) -> Result<GeneratedAdapters, Error> {
        let encoded = self.encoder.encode(texts)?;
        let factors = self.checkpoint.hypernet.generate(encoded.embeddings)?;
        Ok(self.told_of(texts, &encoded.truncated, factors))
    }

    /// Factors with the texts that they were generated from.
    fn told_of(&self, texts: &[&str], truncated: &[bool], factors: LoraFactors) -> GeneratedAdapters {
        GeneratedAdapters {
            descriptions: texts.iter().map(|d| (*d).to_owned()).collect(),
            truncated: truncated.to_vec(),
            base_model: self.checkpoint.manifest.base_model.id.clone(),
            factors,
        }
    }

    /// Loads the base model that the checkpoint was trained with, or another: a name, a folder, or a GGUF file. `held`: the
    /// type that its weights are held in.
    ///
    /// # Errors
    /// It cannot be had or loaded.
    pub fn base_model(
        &self,
        other: Option<&str>,
        held: WeightType,
        progress: &mut dyn Progress,
    ) -> Result<Backbone, Error> {
        let reference = match other {
            Some(name) => model_ref(&self.models, name),
            None => self.checkpoint.manifest.base_model.clone(),
        };
        let path = fetch(&self.models, &reference, progress)?;
        let at_hand = self.read_with.as_ref().filter(|(read, _)| *read == path && held == WeightType::F32);
        let mut backbone = match at_hand {
            Some((_, backbone)) => backbone.clone(),
            None => Backbone::load_as(&path, held, &self.device)?,
        };
        if let Some(known) = self.models.known(reference.name.as_deref().unwrap_or(&reference.id)) {
            backbone.id = known.hub_id.to_owned();
        }
        Ok(backbone)
    }

    /// Fails where this hypernetwork's adapters do not fit a base model: other layers, modules or widths.
    ///
    /// # Errors
    /// Both models and what they differ in.
    pub fn check_fits(&self, model: &Backbone) -> Result<(), Error> {
        let wanted = &self.checkpoint.hypernet.config.layout;
        let modules: Vec<&str> = wanted.modules.iter().map(|m| m.name.as_str()).collect();
        check_base(wanted, &model.decoder.layout(&model.id, &modules)?)
    }

    /// The hypernetwork and its manifest.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Where the hypernetwork came from, for reports.
    pub fn checkpoint_name(&self) -> String {
        match &self.source {
            CheckpointSource::Bundled => "bundled".to_owned(),
            CheckpointSource::Path(path) => path.display().to_string(),
        }
    }

    /// The text encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// The adapters of several descriptions.
#[derive(Debug, Clone)]
pub struct GeneratedAdapters {
    /// The descriptions.
    pub descriptions: Vec<String>,
    /// Which of them were cut at the encoder's token limit.
    pub truncated: Vec<bool>,
    /// Factors of all of them.
    pub factors: LoraFactors,
    base_model: String,
}

impl GeneratedAdapters {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.descriptions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.descriptions.is_empty()
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn adapter(&self, index: usize) -> GeneratedAdapter {
        let adapter = self.factors.adapter(index, &self.base_model).unwrap_or_else(|| panic!("no adapter {index}"));
        GeneratedAdapter { description: self.descriptions[index].clone(), adapter }
    }
}

/// One generated adapter.
#[derive(Debug, Clone)]
pub struct GeneratedAdapter {
    /// What it was generated from.
    pub description: String,
    /// Its factors.
    pub adapter: Adapter,
}

impl GeneratedAdapter {
    /// Writes it as a PEFT directory that PEFT, vLLM and SGLang load.
    ///
    /// For base models whose checkpoints fuse projections (Phi-3) use [`t2l_adapter::save`], which is told of the base.
    ///
    /// # Errors
    /// The folder is not empty, or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), Error> {
        let options = SaveOptions { description: Some(self.description.clone()), ..SaveOptions::default() };
        Ok(peft::save(&self.adapter, folder.as_ref(), &options)?)
    }
}

#[cfg(test)]
mod tests {
    use t2l_core::TargetModule;

    use super::*;

    #[test]
    fn another_base_model_is_named() {
        let layout = |id: &str, layers, out| AdapterLayout {
            base_model: id.into(),
            layers,
            modules: vec![TargetModule::new("q_proj", 8, 8), TargetModule::new("v_proj", 8, out)],
        };
        let wanted = layout("trained/for", 30, 4);
        assert!(check_base(&wanted, &layout("a/variant", 30, 4)).is_ok());
        for other in [layout("another/model", 31, 4), layout("another/model", 30, 2)] {
            let message = check_base(&wanted, &other).expect_err("does not fit").to_string();
            assert!(message.contains("another/model") && message.contains("trained/for"), "{message}");
            assert!(message.contains("30 layers with q_proj 8 → 8, v_proj 8 → 4"), "{message}");
        }
    }
}
