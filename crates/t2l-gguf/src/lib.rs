//! GGUF, the file format of llama.cpp: one file with metadata, tokenizer and (mostly quantised) weights.
//!
//! The bytes, all little-endian: `GGUF`, a version (`u32`, 2 or 3), the number of tensors and of
//! metadata entries (`u64`); the entries (key, type, value; strings are a `u64` length and UTF-8);
//! the tensors (name, dimensions fastest first, type, offset); then, from the next multiple of
//! `general.alignment`, the tensors' data. Quantised types pack 32 or 256 values of a row into a block
//! with its own scale; [`GgufFile::read_f32`] gives exactly the numbers that such a block stands for.
//!
//! A file may come from anywhere, so nothing in it is believed: see [`GgufProblem`]. [`GgufWriter`] writes such files.
//!
//! ```
//! use t2l_gguf::{GgufFile, GgufWriter, Value, WrittenType};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("two.gguf");
//! let mut writer = GgufWriter::new();
//! writer.entry("general.architecture", Value::String("llama".into()));
//! writer.tensor("matrix", &[2, 3], WrittenType::F32);
//! let mut bytes = Vec::new();
//! writer.write(&mut bytes, |_| Ok::<_, std::io::Error>(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
//! std::fs::write(&path, bytes).unwrap();
//!
//! let file = GgufFile::open(&path).unwrap();
//! assert_eq!(file.str("general.architecture").unwrap(), "llama");
//! assert_eq!(file.read_f32("matrix").unwrap()[5], 6.0);
//! ```

mod error;
mod header;
mod k_quants;
mod mapped;
mod quants;
mod tensor;
mod value;
mod writer;

#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, clippy::unwrap_used)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use memmap2::Mmap;

pub use error::{GgufError, GgufProblem};
pub use mapped::map_file;
pub use tensor::{TensorInfo, TensorType};
pub use value::{Array, FromValue, Value};
pub use writer::{GgufWriter, WrittenType};

/// An open GGUF file. The weights stay on disk until they are asked for.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl GgufFile {
    /// Opens a file and reads its header: metadata and list of tensors, all of it checked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let with_path = |problem| GgufError::new(path, problem);
        let map = map_file(path).map_err(|error| with_path(error.into()))?;
        let header::Header { metadata, tensors } = header::parse(&map).map_err(with_path)?;
        let by_name = tensors.iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        Ok(Self { path: path.to_path_buf(), map, metadata, tensors, by_name })
    }

    /// The file's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata value with this key.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All metadata, sorted by key.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The metadata with this key as a `T`; `None` when the file lacks it, an error when it is of
    /// another type.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        self.metadata.get(key).map(|value| read_value(key, value)).transpose().map_err(|p| self.error(p))
    }

    /// Like [`get`](Self::get), for a key that must be there.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.get(key)?.ok_or_else(|| self.error(GgufProblem::MissingKey(key.into())))
    }

    /// A required unsigned integer of at most 32 bits.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.require(key)
    }

    /// A required unsigned integer that counts something.
    pub fn usize(&self, key: &str) -> Result<usize, GgufError> {
        self.require(key)
    }

    /// A required floating-point number.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.require(key)
    }

    /// A required boolean.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.require(key)
    }

    /// A required string.
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        self.require(key)
    }

    /// A required array of strings.
    pub fn strings(&self, key: &str) -> Result<&[String], GgufError> {
        self.require(key)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// A tensor's numbers, row-major in the order of [`TensorInfo::shape`], dequantised exactly:
    /// each is what its block's formula gives in f32.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let missing = || self.error(GgufProblem::MissingTensor(name.into()));
        let tensor = self.tensor(name).ok_or_else(missing)?;
        let data = self.map.get(tensor.start..).and_then(|rest| rest.get(..tensor.length)).ok_or_else(missing)?;
        Ok(quants::dequantise(tensor.kind, data))
    }

    fn error(&self, problem: GgufProblem) -> GgufError {
        GgufError::new(&self.path, problem)
    }
}

/// The value as a `T`, or an error that names the key and both types.
fn read_value<'a, T: FromValue<'a>>(key: &str, value: &'a Value) -> Result<T, GgufProblem> {
    T::from_value(value).ok_or_else(|| GgufProblem::WrongType {
        key: key.into(),
        expected: T::EXPECTED,
        found: value.to_string(),
    })
}
