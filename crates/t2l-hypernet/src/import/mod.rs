//! Published Text-to-LoRA training folders, made into checkpoints of ours.
//!
//! Such a folder holds `hypermod.pt` (`torch.save` of a state dict), `args.yaml` and `adapter_config.json`. Its tensors
//! keep their names and values; what they mean is gathered from all three files, the tensors before the configuration,
//! which is wrong in places. docs/formats.md says which file tells what.

mod adapter;
mod archive;
mod args;
mod base;
mod error;
mod pickle;
mod shape;

use std::collections::HashSet;
use std::path::Path;

use burn::tensor::Device;

pub use error::ImportError;

use crate::tensors::specs;
use crate::{Checkpoint, Conditioning, Hypernet, HypernetConfig, Manifest, ModelRef, Rendering, TaskEncoder, VERSION};
use adapter::AdapterConfig;
use archive::Archive;
use args::Args;
use base::BaseConfig;

/// Name of the state dict inside a published folder.
pub const STATE: &str = "hypermod.pt";
/// Name of the arguments of training.
pub const ARGS: &str = "args.yaml";
/// Name of PEFT's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Reads a folder as the published code of Text-to-LoRA (Sakana AI) leaves it.
///
/// `base_config` is the `config.json` of the base model, for checkpoints whose tensors do not tell all widths; where
/// they do, it has to agree. Nothing is written; [`Checkpoint::save`] does that.
///
/// # Errors
/// Files that are missing, damaged, or at odds with each other; a pickle that names anything but tensors, containers
/// and numbers; widths that cannot be told.
///
/// ```no_run
/// # #[cfg(feature = "flex")] {
/// use std::path::Path;
/// use burn::tensor::Device;
/// use t2l_hypernet::{Dtype, import};
///
/// let checkpoint = import::sakana(Path::new("t2l_demo"), None, &Device::flex())?;
/// checkpoint.save(Path::new("my-checkpoint"), Dtype::F32)?;
/// # }
/// # Ok::<(), t2l_hypernet::import::ImportError>(())
/// ```
pub fn sakana(folder: &Path, base_config: Option<&Path>, device: &Device) -> Result<Checkpoint, ImportError> {
    let (args_path, adapter_path) = (folder.join(ARGS), folder.join(ADAPTER_CONFIG));
    let args = Args::load(&args_path)?;
    let adapter = AdapterConfig::load(&adapter_path)?;
    let base = base_config.map(BaseConfig::load).transpose()?;
    let archive = Archive::open(&folder.join(STATE))?;
    adapter.check_modules(&adapter_path, &archive.modules)?;

    let base_model =
        [&adapter.base_model_name_or_path, &args.model_dir].into_iter().flatten().find(|id| !id.is_empty());
    let Some(base_model) = base_model.cloned() else {
        return Err(ImportError::file(&adapter_path, "has no base_model_name_or_path, nor has args.yaml a model_dir"));
    };
    let config = shape::config(&archive, &args, adapter.scaling(), base_model.clone(), base.as_ref())?;
    config.check()?;
    check_names(&archive, &config)?;
    let hypernet = read(&archive, config, device)?;

    let encoder = match hypernet.config.conditioning {
        // Without a model of its own the published code embeds descriptions with the base model.
        Conditioning::Text => args.emb_model.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| base_model.clone()),
        _ => "none".to_owned(),
    };
    let reference = |id: String| ModelRef { id, name: None, sha256: None };
    let manifest = Manifest {
        version: VERSION,
        created_by: concat!("t2l ", env!("CARGO_PKG_VERSION"), " import sakana").to_owned(),
        config: hypernet.config.clone(),
        base_model: reference(base_model),
        encoder: reference(encoder),
        quoted_words: false,
        // The published prompts hold the task's definition, and no system turn of their own.
        rendering: Rendering { max_tokens: args.inp_max_len, input_share: 0.0, system_turn: false },
        recipe: serde_json::json!({ "published_args": args }),
        weights_sha256: String::new(),
    };
    Ok(Checkpoint { manifest, hypernet })
}

/// Fails on a tensor that the hypernetwork has no use for, since it might have changed what is computed.
fn check_names(archive: &Archive, config: &HypernetConfig) -> Result<(), ImportError> {
    let known: HashSet<String> = specs(config).into_iter().map(|spec| spec.name).collect();
    // Always stored; read where they have a meaning.
    let spare = ["AB_offset.", "mean_recon_target.", "std_recon_target."];
    let mut unknown: Vec<&str> =
        archive.names().filter(|name| !known.contains(*name) && !spare.iter().any(|s| name.starts_with(s))).collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(name) => {
            let reason = format!("does not belong to a hypernetwork {:?} as args.yaml describes it", config.arch);
            Err(ImportError::tensor(&archive.path, name, reason))
        }
    }
}

fn read(archive: &Archive, config: HypernetConfig, device: &Device) -> Result<Hypernet, ImportError> {
    // Nothing is made before every shape was found, so that a lying configuration costs nothing.
    let vq = config.task_encoder == TaskEncoder::Vq;
    for spec in specs(&config) {
        match archive.shape(&spec.name) {
            Some(shape) if shape == spec.shape => {}
            None if vq && stands_in(&spec.name).is_some() => {}
            None => return Err(ImportError::tensor(&archive.path, &spec.name, "is missing")),
            Some(shape) => {
                let reason = format!("has shape {shape:?}, the configuration asks for {:?}", spec.shape);
                return Err(ImportError::tensor(&archive.path, &spec.name, reason));
            }
        }
    }
    let mut failure = None;
    let values = |name: &str, shape: &[usize]| {
        let values = match stands_in(name).filter(|_| vq && archive.shape(name).is_none()) {
            Some(StandIn::Zeros) => Ok(vec![0.0; shape.iter().product()]),
            Some(StandIn::Tensor(other)) => archive.values(other, shape),
            None => archive.values(name, shape),
        };
        // The error's kind outlives the constructor, which knows only its own.
        values.map_err(|e| {
            let error = crate::HypernetError::tensor(&archive.path, name, e.to_string());
            failure = Some(e);
            error
        })
    };
    let made = Hypernet::from_tensors(config, values, device);
    match failure {
        Some(error) => Err(error),
        None => Ok(made?),
    }
}

/// What takes the place of VQ's running statistics, which only training needs, where a checkpoint lacks them.
enum StandIn {
    Zeros,
    Tensor(&'static str),
}

fn stands_in(name: &str) -> Option<StandIn> {
    match name {
        "task_encoder.cluster_size" => Some(StandIn::Zeros),
        "task_encoder.embed_avg" => Some(StandIn::Tensor("task_encoder.embed")),
        _ => None,
    }
}
