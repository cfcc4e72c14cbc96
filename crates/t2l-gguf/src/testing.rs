//! Small GGUF files for tests, right or wrong in any place.

use std::{io::Write, path::Path};

use super::{GgufError, GgufFile, GgufProblem};

pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;

/// Bytes in the order in which the format has them.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn f32(mut self, value: f32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// The fixed front of a file.
    pub fn front(tensors: u64, entries: u64) -> Self {
        Self::default().raw(b"GGUF").u32(3).u64(tensors).u64(entries)
    }

    pub fn entry_u32(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }

    pub fn entry_bool(self, key: &str, value: bool) -> Self {
        self.string(key).u32(7).u8(value.into())
    }

    pub fn entry_str(self, key: &str, value: &str) -> Self {
        self.string(key).u32(STRING).string(value)
    }

    pub fn entry_strs(self, key: &str, values: &[&str]) -> Self {
        let front = self.string(key).u32(ARRAY).u32(STRING).u64(values.len() as u64);
        values.iter().fold(front, |bytes, value| bytes.string(value))
    }

    pub fn entry_i32s(self, key: &str, values: &[i32]) -> Self {
        let front = self.string(key).u32(ARRAY).u32(5).u64(values.len() as u64);
        values.iter().fold(front, |bytes, value| bytes.raw(&value.to_le_bytes()))
    }

    pub fn entry_f32s(self, key: &str, values: &[f32]) -> Self {
        let front = self.string(key).u32(ARRAY).u32(6).u64(values.len() as u64);
        values.iter().fold(front, |bytes, &value| bytes.f32(value))
    }

    pub fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let front = self.string(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(front, |bytes, &size| bytes.u64(size)).u32(kind).u64(offset)
    }

    /// Zeros up to the next multiple of the alignment.
    pub fn pad(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }

    /// Writes the bytes to a file and opens it.
    pub fn open(&self) -> Result<GgufFile, GgufError> {
        let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        file.write_all(&self.0).unwrap();
        // A mapping outlives the name of its file.
        GgufFile::open(file.path())
    }

    /// What is wrong with the bytes.
    pub fn problem(&self) -> GgufProblem {
        let error = self.open().unwrap_err();
        assert!(Path::new(&error.path).extension().is_some_and(|extension| extension == "gguf"));
        assert!(error.to_string().contains(".gguf: "), "the message names the file: {error}");
        error.problem
    }
}
