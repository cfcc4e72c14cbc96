//! `t2l train recon`: a hypernetwork that writes the adapters of a library.

use std::path::Path;

use burn::tensor::Device;
use t2l_adapter::peft;
use t2l_core::Adapter;
use t2l_data::Task;
use t2l_hypernet::{Conditioning, Offset, Target};
use t2l_train::{Recon, Targets, TrainConfig, adapter_of_task};

use super::ModelPaths;
use super::ground::{Ground, manifest, scaling};
use super::sft::{hypernet, shape};
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Recon, Error> {
    if config.hypernet.conditioning != Conditioning::Text {
        return Err(Error::Invalid("hypernet.conditioning: reconstruction reads descriptions, \"text\"".into()));
    }
    tell("reading the library");
    let library = read_library(&config.recon.library, &ground.tasks, &ground.device)?;
    let (table, width) = ground.embeddings(models, cache, tell)?;
    let mut shape = shape(config, models, ground, width)?;
    let (mut adapters, mut descriptions) = (Vec::new(), Vec::new());
    for (task, adapter) in library {
        let texts: Vec<&str> = task.descriptions.train.iter().map(String::as_str).collect();
        if texts.is_empty() {
            return Err(Error::Invalid(format!("task {:?} has no description for training", task.name)));
        }
        descriptions.push(table.embeddings(&texts, &ground.device)?);
        adapters.push((task.name.clone(), ground.trained_form(adapter, &shape.layout)?));
    }
    shape.target = config.recon.target();
    shape.offset = Offset::None;
    // As published: what is scored around the mean needs no bias.
    shape.head_bias = shape.target != Target::ZScored;
    let targets = Targets::new(&adapters, &shape.layout, scaling(config))?;
    let hypernet = hypernet(config, shape, &ground.device)?;
    let manifest = manifest(config, &hypernet.config, models);
    let validators = ground.description_validators(config, &table, tell)?;
    Ok(Recon::new(config, hypernet, manifest, targets, descriptions, validators)?)
}

/// The adapters of a library that belong to tasks to train on, in the tasks' order.
fn read_library<'a>(folder: &Path, tasks: &'a [Task], device: &Device) -> Result<Vec<(&'a Task, Adapter)>, Error> {
    if !folder.is_dir() {
        return Err(Error::Invalid(format!("{}: recon.library is not a folder", folder.display())));
    }
    let mut library = Vec::new();
    for task in tasks {
        if let Some(path) = adapter_of_task(folder, &task.name) {
            library.push((task, peft::load(&path, device)?));
        }
    }
    if library.is_empty() {
        let reason = "holds no PEFT folder under the name of a task to train on";
        return Err(Error::Invalid(format!("{}: {reason}", folder.display())));
    }
    Ok(library)
}
