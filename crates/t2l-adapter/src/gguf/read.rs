//! Reading a GGUF adapter.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use t2l_core::{Adapter, LoraWeights};
use t2l_gguf::{GgufFile, TensorInfo, TensorType};

use super::names::Architecture;
use super::rows::half_split;
use super::{BaseShape, base, keys};
use crate::AdapterError;

/// A GGUF adapter's content.
#[derive(Debug, Clone)]
pub struct Read {
    /// The adapter.
    pub adapter: Adapter,
    /// The task description it was generated from, if the file tells.
    pub description: Option<String>,
}

/// Loads a LoRA from a GGUF file onto `device`, as f32.
///
/// `base` is needed for Llama models, unless the file itself says how many heads there are.
///
/// # Errors
/// A file that is missing, damaged, or no LoRA; factors that do not belong together; a base model that does not fit.
pub fn load(path: &Path, base: Option<&BaseShape>, device: &Device) -> Result<Read, AdapterError> {
    let file = GgufFile::open(path)?;
    expect_lora(&file)?;
    let name = file.str(keys::ARCHITECTURE)?;
    let architecture = base::known(path, name)?;
    let own = BaseShape::from_gguf(&file)?;
    if let Some(base) = base.filter(|b| b.architecture() != name) {
        let reason = format!("is for {name} models; the base model is {}", base.architecture());
        return Err(AdapterError::weights(path, reason));
    }
    let base = base.or(own.as_ref());
    let alpha = f64::from(file.f32(keys::ALPHA)?);
    if !alpha.is_finite() {
        return Err(AdapterError::weights(path, format!("{} is {alpha}", keys::ALPHA)));
    }
    let mut adapter = Adapter::new(base_model(&file)?, false);
    for ((layer, module), pair) in pairs(&file, architecture)? {
        let (a, b) = pair.checked(path)?;
        let (a_shape, b_shape) = (matrix(path, a)?, matrix(path, b)?);
        if a_shape[0] != b_shape[1] {
            let reason =
                format!("has shape {:?}; beside lora_a of {:?} its rows have length {}", b.shape, a.shape, a_shape[0]);
            return Err(AdapterError::tensor(path, &b.name, reason));
        }
        let mut rows = values(&file, b)?;
        if let Some(which) = architecture.interleaved_heads(module) {
            let heads = base
                .ok_or_else(|| AdapterError::BaseNeeded { path: path.to_owned(), architecture: name.to_owned() })?
                .heads(which);
            rows = half_split(&rows, b_shape[0], heads).ok_or_else(|| {
                let reason = format!("has {} rows, which are not {heads} heads of an even width", b_shape[0]);
                AdapterError::tensor(path, &b.name, reason)
            })?;
        }
        let weights = LoraWeights {
            a: Tensor::from_data(TensorData::new(values(&file, a)?, a_shape), device),
            b: Tensor::from_data(TensorData::new(rows, b_shape), device),
            // llama.cpp reads zero as "no scaling".
            alpha: if alpha == 0.0 { a_shape[0] as f64 } else { alpha },
        };
        adapter.insert(layer, module, weights);
    }
    if adapter.is_empty() {
        return Err(AdapterError::weights(path, "holds no LoRA factor"));
    }
    Ok(Read { adapter, description: file.get::<&str>(keys::TASK)?.map(str::to_owned) })
}

/// Whether a file is a LoRA in GGUF, as [`load`] and llama.cpp take it, by its metadata.
pub fn is_lora(path: &Path) -> bool {
    GgufFile::open(path).is_ok_and(|file| expect_lora(&file).is_ok())
}

/// Models, control vectors and adapters that only work after certain tokens are GGUF files too.
fn expect_lora(file: &GgufFile) -> Result<(), AdapterError> {
    let unsupported = |setting: String| Err(AdapterError::Unsupported { path: file.path().to_owned(), setting });
    let kind = file.get::<&str>(keys::TYPE)?.unwrap_or("model");
    if kind != "adapter" {
        return unsupported(format!("a GGUF file of the kind {kind:?}, which is no adapter,"));
    }
    let kind = file.str(keys::ADAPTER_TYPE)?;
    if kind != "lora" {
        return unsupported(format!("{} {kind:?}", keys::ADAPTER_TYPE));
    }
    match file.metadata(keys::INVOCATION) {
        Some(_) => unsupported(keys::INVOCATION.to_owned()),
        None => Ok(()),
    }
}

/// The base model's Hub id, or whatever name the file has for it.
fn base_model(file: &GgufFile) -> Result<String, AdapterError> {
    let hub = file.get::<&str>(keys::BASE_URL)?.and_then(|url| url.strip_prefix(keys::HUB));
    let name = file.get::<&str>(keys::BASE_NAME)?;
    Ok(hub.or(name).unwrap_or_default().to_owned())
}

/// What the file has for one place.
#[derive(Default)]
struct Pair<'a> {
    a: Option<&'a TensorInfo>,
    b: Option<&'a TensorInfo>,
}

impl<'a> Pair<'a> {
    fn checked(self, path: &Path) -> Result<(&'a TensorInfo, &'a TensorInfo), AdapterError> {
        match (self.a, self.b) {
            (Some(a), Some(b)) => Ok((a, b)),
            (Some(a), None) => Err(AdapterError::tensor(path, &a.name, "has no lora_b beside it")),
            (None, Some(b)) => Err(AdapterError::tensor(path, &b.name, "has no lora_a beside it")),
            (None, None) => Err(AdapterError::weights(path, "holds no LoRA factor")),
        }
    }
}

/// Sorts the file's tensors into places. Names differ, so that no two mean the same factor.
fn pairs<'a>(
    file: &'a GgufFile,
    architecture: &Architecture,
) -> Result<BTreeMap<(usize, &'static str), Pair<'a>>, AdapterError> {
    let mut pairs: BTreeMap<(usize, &'static str), Pair<'a>> = BTreeMap::new();
    for tensor in file.tensors() {
        let (weight, is_a) = match tensor.name.strip_suffix(".lora_a") {
            Some(weight) => (weight, true),
            None => (tensor.name.strip_suffix(".lora_b").unwrap_or_default(), false),
        };
        let place = architecture.place(weight).ok_or_else(|| {
            let reason = format!("is no LoRA factor of a linear module in a layer of {} models", architecture.name);
            AdapterError::tensor(file.path(), &tensor.name, reason)
        })?;
        let pair = pairs.entry(place).or_default();
        *(if is_a { &mut pair.a } else { &mut pair.b }) = Some(tensor);
    }
    Ok(pairs)
}

fn matrix(path: &Path, tensor: &TensorInfo) -> Result<[usize; 2], AdapterError> {
    let wrong = |reason: String| Err(AdapterError::tensor(path, &tensor.name, reason));
    if !matches!(tensor.kind, TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::Q8_0) {
        return wrong(format!("has type {}; F32, F16, BF16 and Q8_0 are read", tensor.kind));
    }
    match *tensor.shape.as_slice() {
        [rows, cols] => Ok([rows, cols]),
        // ggml drops trailing dimensions of 1.
        [cols] => Ok([1, cols]),
        _ => wrong(format!("has shape {:?}; a factor is a matrix", tensor.shape)),
    }
}

/// A tensor's values; all are finite.
fn values(file: &GgufFile, tensor: &TensorInfo) -> Result<Vec<f32>, AdapterError> {
    let values = file.read_f32(&tensor.name)?;
    match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(values),
        Some((i, x)) => Err(AdapterError::tensor(file.path(), &tensor.name, format!("value {i} is {x}"))),
    }
}
