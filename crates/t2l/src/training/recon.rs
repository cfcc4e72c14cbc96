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
use super::hypernet::{hypernet, shape};
use super::told;
use crate::Error;

pub(super) fn prepare(
    config: &TrainConfig,
    models: &ModelPaths,
    ground: &Ground,
    cache: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Recon, Error> {
    tell("reading the library");
    let library = read_library(&config.recon.library, &ground.tasks, &ground.device)?;
    if matches!(config.hypernet.conditioning, Conditioning::OneHot | Conditioning::Learned) {
        check_complete(&config.recon.library, &ground.tasks, &library)?;
    }
    let (table, width) = ground.embeddings(config, models, cache, tell)?;
    let mut shape = shape(config, ground, width)?;
    let (mut adapters, mut descriptions) = (Vec::new(), Vec::new());
    for (index, adapter) in library {
        let task = &ground.tasks[index];
        if task.descriptions.train.is_empty() {
            return Err(Error::Invalid(format!("task {:?} has no description for training", task.name)));
        }
        descriptions.push(told::of_task(config, ground, &table, index, task)?);
        adapters.push((task.name.clone(), ground.trained_form(adapter)?));
    }
    shape.target = config.recon.target();
    shape.offset = Offset::None;
    // As published: what is scored around the mean needs no bias.
    shape.head_bias = shape.target != Target::ZScored;
    let targets = Targets::new(&adapters, &shape.layout, scaling(config))?;
    let hypernet = hypernet(config, shape, models, &ground.device)?;
    let manifest = manifest(config, &hypernet.config, models);
    let validators = told::validators(config, ground, &table, tell)?;
    Ok(Recon::new(config, hypernet, manifest, targets, descriptions, validators)?)
}

/// Who knows tasks by their index would be judged on tasks that it was never told of, if some had no adapter.
fn check_complete(folder: &Path, tasks: &[Task], library: &[(usize, Adapter)]) -> Result<(), Error> {
    let missing = (0..tasks.len()).find(|index| library.iter().all(|(there, _)| there != index));
    missing.map_or(Ok(()), |index| {
        let reason = "holds no adapter of the task";
        let wish = "\"one-hot\" and \"learned\" conditioning need one of every task to train on";
        Err(Error::Invalid(format!("{}: {reason} {:?}; {wish}", folder.display(), tasks[index].name)))
    })
}

/// The adapters of a library that belong to tasks to train on, by the tasks' places.
fn read_library(folder: &Path, tasks: &[Task], device: &Device) -> Result<Vec<(usize, Adapter)>, Error> {
    if !folder.is_dir() {
        return Err(Error::Invalid(format!("{}: recon.library is not a folder", folder.display())));
    }
    let mut library = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        if let Some(path) = adapter_of_task(folder, &task.name) {
            library.push((index, peft::load(&path, device)?));
        }
    }
    if library.is_empty() {
        let reason = "holds no PEFT folder under the name of a task to train on";
        return Err(Error::Invalid(format!("{}: {reason}", folder.display())));
    }
    Ok(library)
}
