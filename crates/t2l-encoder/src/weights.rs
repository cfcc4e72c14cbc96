//! Tensors of a safetensors file, checked before they are believed.

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::EncoderError;

/// A file of weights, mapped into memory.
pub(crate) struct WeightFile {
    path: PathBuf,
    map: Mmap,
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Self, EncoderError> {
        let file = File::open(path).map_err(|e| EncoderError::io(path, e))?;
        // SAFETY: the map is only read. That nobody truncates a model file while it is being loaded is what every
        // program that maps one relies on; sizes are checked against the map, not against what the header says.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| EncoderError::io(path, e))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The tensors under the prefix that stands before `embeddings.word_embeddings.weight`: none, `bert.`, `new.`, …
    pub(crate) fn tensors<'a>(&'a self, device: &'a Device) -> Result<Weights<'a>, EncoderError> {
        let file = SafeTensors::deserialize(&self.map).map_err(|e| EncoderError::weights(&self.path, e))?;
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let mut prefixes = file
            .names()
            .into_iter()
            .filter_map(|name| name.strip_suffix(WORDS))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .map(str::to_owned);
        let prefix = prefixes
            .next()
            .ok_or_else(|| EncoderError::MissingTensor { path: self.path.clone(), name: WORDS.to_owned() })?;
        if let Some(other) = prefixes.next() {
            let reason = format!("two tables of words: {prefix}{WORDS} and {other}{WORDS}");
            return Err(EncoderError::weights(&self.path, reason));
        }
        Ok(Weights { path: &self.path, file, prefix, device })
    }
}

/// Access to the tensors of one model by the names its family gives them.
pub(crate) struct Weights<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
    prefix: String,
    device: &'a Device,
}

impl Weights<'_> {
    /// A tensor of exactly this shape, as finite f32.
    pub(crate) fn get<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, EncoderError> {
        let name = format!("{}{name}", self.prefix);
        let view = self
            .file
            .tensor(&name)
            .map_err(|_| EncoderError::MissingTensor { path: self.path.to_owned(), name: name.clone() })?;
        if view.shape() != shape {
            return Err(EncoderError::Shape {
                path: self.path.to_owned(),
                name,
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        let bad = |reason: String| EncoderError::Tensor { path: self.path.to_owned(), name: name.clone(), reason };
        let values = to_f32(view.dtype(), view.data())
            .ok_or_else(|| bad(format!("type {:?}; f64, f32, f16 and bf16 are read", view.dtype())))?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(bad(format!("value {i} is {}", values.get(i).copied().unwrap_or(f32::NAN))));
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// A linear layer's weight, `[out, in]` in the file, as `[in, out]`.
    pub(crate) fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Tensor<2>, EncoderError> {
        Ok(self.get(name, [outputs, inputs])?.transpose())
    }
}

fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|b| value(*b)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}
