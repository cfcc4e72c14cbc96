//! Writing a GGUF adapter.

use std::collections::BTreeMap;
use std::path::Path;

use t2l_core::{Adapter, LoraWeights};
use t2l_gguf::{GgufWriter, Value, WrittenType};

use super::rows::interleave;
use super::{BaseShape, keys};
use crate::options::{Dtype, SaveOptions, check_factors};
use crate::{AdapterError, files, fused, tensors};

impl From<Dtype> for WrittenType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// Writes an adapter as a GGUF file: whole, or not at all. Parts of what the base model fuses are fused.
///
/// # Errors
/// An adapter that touches nothing or what llama.cpp has no name for, holds what its value type cannot, or does not fit
/// the base model; a target that is there already; a file that cannot be written.
pub fn save(adapter: &Adapter, base: &BaseShape, path: &Path, options: &SaveOptions) -> Result<(), AdapterError> {
    if adapter.is_empty() {
        return Err(AdapterError::Empty { path: path.to_owned() });
    }
    let adapter = &fused::fuse(adapter, base)?;
    let alpha = common_alpha(adapter);
    let mut writer = GgufWriter::new();
    for (key, value) in entries(adapter, base, alpha, options) {
        writer.entry(key, value);
    }
    let mut factors = Vec::with_capacity(2 * adapter.len());
    for (layer, module, weights) in adapter.iter() {
        check_factors(layer, module, weights)?;
        let place = Place::new(layer, module, weights, adapter, base, path, alpha)?;
        writer.tensor(format!("{}.lora_a", place.name), &weights.a.dims(), options.dtype.into());
        writer.tensor(format!("{}.lora_b", place.name), &weights.b.dims(), options.dtype.into());
        factors.push(place);
    }
    files::write_whole(path, options.force, |file| {
        let values = |i: usize| match factors.get(i / 2) {
            Some(place) if i.is_multiple_of(2) => place.a(options.dtype),
            Some(place) => place.b(options.dtype),
            None => Ok(vec![]),
        };
        writer.write(file, |i| values(i).map_err(WriteError::Adapter)).map_err(|e| match e {
            WriteError::Adapter(e) => e,
            WriteError::Io(e) => AdapterError::io(path)(e),
        })
    })
}

/// What the writer stops at: its output, or what it is given.
enum WriteError {
    Io(std::io::Error),
    Adapter(AdapterError),
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn entries(adapter: &Adapter, base: &BaseShape, alpha: f32, options: &SaveOptions) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut entries = vec![
        (keys::ARCHITECTURE.to_owned(), text(base.architecture())),
        (keys::TYPE.to_owned(), text("adapter")),
        (keys::ADAPTER_TYPE.to_owned(), text("lora")),
        (keys::ALPHA.to_owned(), Value::F32(alpha)),
    ];
    if let Some(description) = &options.description {
        entries.push((keys::TASK.to_owned(), text(description)));
    }
    let model = options.base_model_name.as_deref().unwrap_or(&adapter.base_model);
    if !model.is_empty() {
        entries.push((keys::BASE_COUNT.to_owned(), Value::U32(1)));
        entries.push((keys::BASE_NAME.to_owned(), text(model)));
        if is_hub_id(model) {
            entries.push((keys::BASE_URL.to_owned(), text(&format!("{}{model}", keys::HUB))));
        }
    }
    // Counts are at most 2^16.
    for (key, which) in [(keys::HEADS, super::rows::Heads::Query), (keys::KV_HEADS, super::rows::Heads::Key)] {
        let count = u32::try_from(base.heads(which)).unwrap_or(u32::MAX);
        entries.push((format!("{}.{key}", base.architecture()), Value::U32(count)));
    }
    entries
}

/// `owner/name`.
fn is_hub_id(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    name.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name) && !owner.starts_with('.'))
}

/// Alpha that makes alpha / rank the scaling of a place.
fn plain_alpha(adapter: &Adapter, weights: &LoraWeights) -> f64 {
    adapter.scaling(weights).value() * weights.rank() as f64
}

/// The commonest alpha, as the file holds it. Zero would mean a scaling of 1 to llama.cpp, and is never written.
fn common_alpha(adapter: &Adapter) -> f32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, _, weights) in adapter.iter() {
        let alpha = plain_alpha(adapter, weights) as f32;
        if alpha.is_normal() {
            *counts.entry(alpha.to_bits()).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(1.0, |(bits, _)| f32::from_bits(bits))
}

/// One place on its way into the file.
struct Place<'a> {
    layer: usize,
    module: &'a str,
    weights: &'a LoraWeights,
    name: String,
    /// What of its scaling the file's alpha does not say.
    rest: f64,
    /// Heads whose rows are interleaved.
    heads: Option<usize>,
}

impl<'a> Place<'a> {
    fn new(
        layer: usize,
        module: &'a str,
        weights: &'a LoraWeights,
        adapter: &Adapter,
        base: &BaseShape,
        path: &Path,
        alpha: f32,
    ) -> Result<Self, AdapterError> {
        let architecture = base.known(path)?;
        let name = architecture.weight_name(layer, module).ok_or_else(|| {
            AdapterError::place(layer, module, format!("has no name in GGUF files of {} models", base.architecture()))
        })?;
        let heads = architecture.interleaved_heads(module).map(|which| base.heads(which));
        let wanted = plain_alpha(adapter, weights);
        // The same alpha up to the file's f32: B goes in as it is.
        let rest = if wanted as f32 == alpha { 1.0 } else { wanted / f64::from(alpha) };
        Ok(Self { layer, module, weights, name, rest, heads })
    }

    fn a(&self, dtype: Dtype) -> Result<Vec<f32>, AdapterError> {
        self.checked('A', self.weights.a.to_data().iter::<f32>().collect(), dtype)
    }

    fn b(&self, dtype: Dtype) -> Result<Vec<f32>, AdapterError> {
        let mut values: Vec<f32> = self.weights.b.to_data().iter::<f32>().collect();
        if self.rest != 1.0 {
            values.iter_mut().for_each(|x| *x = (f64::from(*x) * self.rest) as f32);
        }
        if let Some(heads) = self.heads {
            let rows = self.weights.b.dims()[0];
            values = interleave(&values, rows, heads).ok_or_else(|| {
                let reason = format!("has {rows} rows, which are not {heads} heads of an even width");
                AdapterError::place(self.layer, self.module, reason)
            })?;
        }
        self.checked('B', values, dtype)
    }

    fn checked(&self, factor: char, values: Vec<f32>, dtype: Dtype) -> Result<Vec<f32>, AdapterError> {
        match values.iter().find(|x| !tensors::fits(dtype.into(), **x)) {
            None => Ok(values),
            Some(x) => {
                let reason = format!("{factor} holds {x}, which {dtype:?} cannot");
                Err(AdapterError::place(self.layer, self.module, reason))
            }
        }
    }
}
