//! Reading a PEFT directory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use t2l_core::{Adapter, LoraWeights};

use super::config::PeftConfig;
use super::place::{Factor, FactorName};
use super::{CONFIG, WEIGHTS};
use crate::AdapterError;
use crate::tensors::WeightsFile;

/// Loads a LoRA from a PEFT directory onto `device`, as f32.
///
/// Where factors are is read from the tensors' names; rank and alpha, with their patterns, from the configuration.
///
/// # Errors
/// Files that are missing or damaged, settings that change the maths, factors that do not belong together.
pub fn load(folder: &Path, device: &Device) -> Result<Adapter, AdapterError> {
    let config = PeftConfig::read(&folder.join(CONFIG))?;
    let pickled = folder.join("adapter_model.bin");
    if !folder.join(WEIGHTS).exists() && pickled.exists() {
        return Err(AdapterError::Unsupported { path: pickled, setting: "a pickled weights file".into() });
    }
    let file = WeightsFile::open(&folder.join(WEIGHTS))?;
    let path = file.path().to_owned();
    let pairs = pairs(&file)?;
    let modules: Vec<&str> = pairs.values().map(|p| p.module_path.as_str()).collect();
    let settings = config.resolve(&modules)?;
    for (pair, (rank, _)) in pairs.values().zip(&settings) {
        pair.check(&path, *rank)?;
    }
    let mut factors: HashMap<String, Vec<f32>> = HashMap::new();
    file.read(|name, values| {
        factors.insert(name.to_owned(), values);
    })?;
    let mut adapter = Adapter::new(config.base_model, config.use_rslora);
    for (((layer, module), pair), (_, alpha)) in pairs.into_iter().zip(settings) {
        let mut tensor = |(name, shape): Named| {
            let values = factors.remove(&name).ok_or_else(|| AdapterError::tensor(&path, &name, "has no values"))?;
            Ok::<Tensor<2>, AdapterError>(Tensor::from_data(TensorData::new(values, shape), device))
        };
        let Pair { a: Some(a), b: Some(b), .. } = pair else { continue };
        adapter.insert(layer, &module, LoraWeights { a: tensor(a)?, b: tensor(b)?, alpha });
    }
    Ok(adapter)
}

/// The task description that an adapter was generated from, if its weights file tells.
///
/// # Errors
/// A weights file that is missing or damaged.
pub fn description(folder: &Path) -> Result<Option<String>, AdapterError> {
    let file = WeightsFile::open(&folder.join(WEIGHTS))?;
    Ok(file.note("description").map(str::to_owned))
}

/// A tensor's name and shape.
type Named = (String, [usize; 2]);

/// What the file has for one place.
#[derive(Debug)]
struct Pair {
    module_path: String,
    a: Option<Named>,
    b: Option<Named>,
}

/// Sorts the file's tensors into places; each may be named once.
fn pairs(file: &WeightsFile) -> Result<BTreeMap<(usize, String), Pair>, AdapterError> {
    let mut pairs: BTreeMap<(usize, String), Pair> = BTreeMap::new();
    for (name, shape) in file.matrices()? {
        let wrong = |reason: String| AdapterError::tensor(file.path(), name, reason);
        let FactorName { layer, module, module_path, factor } = FactorName::parse(name)
            .ok_or_else(|| wrong("is no LoRA factor of a linear module in a decoder layer".into()))?;
        let pair =
            pairs.entry((layer, module)).or_insert_with(|| Pair { module_path: module_path.clone(), a: None, b: None });
        let slot = match factor {
            Factor::A => &mut pair.a,
            Factor::B => &mut pair.b,
        };
        if pair.module_path != module_path {
            return Err(wrong(format!("means the same place as {}", pair.module_path)));
        }
        if let Some((other, _)) = slot.replace((name.to_owned(), shape)) {
            return Err(wrong(format!("means the same factor as {other}")));
        }
    }
    if pairs.is_empty() {
        return Err(AdapterError::weights(file.path(), "holds no LoRA factor"));
    }
    Ok(pairs)
}

impl Pair {
    /// Both factors are there and have the configured rank.
    fn check(&self, path: &Path, rank: usize) -> Result<(), AdapterError> {
        let ((a, [rows, cols]), (b, [out, width])) = match (&self.a, &self.b) {
            (Some(a), Some(b)) => (a, b),
            (Some((name, _)), _) => return Err(AdapterError::tensor(path, name, "has no lora_B beside it")),
            (_, Some((name, _))) => return Err(AdapterError::tensor(path, name, "has no lora_A beside it")),
            (None, None) => return Ok(()),
        };
        if *rows != rank {
            let reason =
                format!("has shape [{rows}, {cols}]; with the rank {rank} of {CONFIG} it would be [{rank}, {cols}]");
            return Err(AdapterError::tensor(path, a, reason));
        }
        if *width != rank {
            let reason =
                format!("has shape [{out}, {width}]; beside lora_A of rank {rank} it would be [{out}, {rank}]");
            return Err(AdapterError::tensor(path, b, reason));
        }
        Ok(())
    }
}
