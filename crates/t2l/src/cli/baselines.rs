//! The baselines that `t2l eval` compares with, from the options that name them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use t2l::TextToLora;
use t2l::adapter::{MixMethod, mix, peft};
use t2l::backbone::Backbone;
use t2l::core::{Adapter, AdapterGenerator, TextEncoder, counted, device};
use t2l::data::Task;
use t2l::eval::{Baselines, Condition, EvalError, Group, TaskAdapters, part_of_shots};
use t2l::train::adapter_of_task;

use super::args::{BaselineArgs, CheckpointArgs, EvalArgs, Global};

/// Baselines, loaded and found to fit the base model.
pub struct Loaded {
    multitask: Option<Adapter>,
    library: Option<Library>,
    hyperdecoder: Option<TextToLora>,
    shots: usize,
}

/// Adapters of single tasks.
struct Library {
    folder: PathBuf,
    mean: Adapter,
    task: Box<TaskAdapters<'static>>,
}

impl Loaded {
    /// Loads what the options name.
    pub fn open(args: &EvalArgs, backbone: &Backbone, global: &Global) -> anyhow::Result<Self> {
        let device = device::parse(&global.device)?;
        let named = &args.baselines;
        let load = |path: &Path| -> anyhow::Result<Adapter> {
            let adapter = peft::load(path, &device)?;
            check_fits(&adapter, backbone).with_context(|| path.display().to_string())?;
            Ok(adapter)
        };
        let multitask = named.multitask.as_deref().map(load).transpose()?;
        let library = match &named.library {
            None => None,
            Some(folder) => {
                let adapters = folders(folder)?.iter().map(|path| load(path)).collect::<Result<Vec<_>, _>>()?;
                let mean = mean(&adapters).with_context(|| folder.display().to_string())?;
                let (place, device) = (folder.clone(), device.clone());
                let task = move |task: &Task| own_adapter(&place, task, &device);
                Some(Library { folder: folder.clone(), mean, task: Box::new(task) })
            }
        };
        let hyperdecoder = match &named.hyperdecoder {
            None => None,
            Some(path) => {
                let checkpoint = CheckpointArgs { checkpoint: Some(path.clone()), ..args.checkpoint.clone() };
                let loaded = super::text_to_lora(&checkpoint, args.model.model.as_deref(), global)?;
                if !loaded.reads_inputs() {
                    bail!(
                        "{}: is no hyperdecoder: it was trained on descriptions; use it as --checkpoint",
                        path.display()
                    );
                }
                loaded.check_fits(backbone)?;
                Some(loaded)
            }
        };
        Ok(Self { multitask, library, hyperdecoder, shots: named.shots })
    }

    /// As the evaluation takes them.
    pub fn as_baselines(&self) -> Baselines<'_> {
        Baselines {
            multitask: self.multitask.as_ref(),
            mean_lora: self.library.as_ref().map(|l| &l.mean),
            task_lora: self.library.as_ref().map(|l| &*l.task),
            hyperdecoder: self
                .hyperdecoder
                .as_ref()
                .map(|h| (h.encoder() as &dyn TextEncoder, &h.checkpoint().hypernet as &dyn AdapterGenerator)),
            shots: self.shots,
        }
    }

    /// Says which of the baselines have nothing to work with on the tasks to score.
    pub fn warn(&self, groups: &[Group<'_>]) {
        let tasks = || groups.iter().flat_map(|group| group.tasks.iter().map(|task| (*task, group.part)));
        if let Some(library) = &self.library
            && !tasks().any(|(task, _)| adapter_of_task(&library.folder, &task.name).is_some())
        {
            eprintln!("warning: {} has an adapter for none of these tasks: no task_lora", library.folder.display());
        }
        let without: Vec<&str> = match self.shots {
            0 => vec![],
            _ => tasks()
                .filter(|(t, part)| part_of_shots(t.benchmark, *part).is_none())
                .map(|(t, _)| t.name.as_str())
                .collect(),
        };
        if !without.is_empty() {
            let names = without.join(", ");
            eprintln!(
                "warning: no few_shot for {names}: no examples are left beside the part that is scored (--part test leaves some)"
            );
        }
    }
}

/// The conditions that the options add.
pub fn conditions(args: &BaselineArgs) -> Vec<Condition> {
    let all = [
        (args.multitask.is_some(), Condition::Multitask),
        (args.library.is_some(), Condition::TaskLora),
        (args.library.is_some(), Condition::MeanLora),
        (args.hyperdecoder.is_some(), Condition::Hyperdecoder),
        (args.shots > 0, Condition::FewShot),
    ];
    all.into_iter().filter(|(named, _)| *named).map(|(_, condition)| condition).collect()
}

/// The PEFT folders of a library, by name.
fn folders(library: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(library).with_context(|| library.display().to_string())?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| library.display().to_string())?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.join(peft::CONFIG).is_file() {
            folders.push(path);
        }
    }
    if folders.is_empty() {
        bail!("{}: holds no PEFT folder", library.display());
    }
    folders.sort();
    Ok(folders)
}

/// The mean of every factor.
fn mean(adapters: &[Adapter]) -> anyhow::Result<Adapter> {
    let Some(device) = adapters.iter().find_map(|a| a.iter().next().map(|(_, _, w)| w.a.device())) else {
        bail!("the adapters are empty");
    };
    // Linear mixing multiplies both factors by the root of the weight.
    let weight = (adapters.len() as f64).powi(-2);
    let parts: Vec<(&Adapter, f64)> = adapters.iter().map(|a| (a, weight)).collect();
    Ok(mix(&parts, MixMethod::Linear, &device)?)
}

fn own_adapter(library: &Path, task: &Task, device: &Device) -> Result<Option<Adapter>, EvalError> {
    let load = |folder: PathBuf| {
        peft::load(&folder, device).map_err(|e| EvalError::Adapter { name: task.name.clone(), reason: e.to_string() })
    };
    adapter_of_task(library, &task.name).map(load).transpose()
}

/// Fails where an adapter touches what the base model has not, or has other widths.
fn check_fits(adapter: &Adapter, backbone: &Backbone) -> anyhow::Result<()> {
    let mut modules: Vec<&str> = adapter.iter().map(|(_, module, _)| module).collect();
    modules.sort_unstable();
    modules.dedup();
    let layout = backbone.decoder.layout(&backbone.id, &modules)?;
    for (layer, module, weights) in adapter.iter() {
        let Some(target) = layout.position(module).map(|i| &layout.modules[i]) else { continue };
        let found = [weights.a.dims()[1], weights.b.dims()[0]];
        if layer >= layout.layers || found != [target.in_features, target.out_features] {
            bail!(
                "layer {layer} {module} maps {} to {}; the base model has {} and maps {} to {} there",
                found[0],
                found[1],
                counted(layout.layers, "layer"),
                target.in_features,
                target.out_features
            );
        }
    }
    Ok(())
}
