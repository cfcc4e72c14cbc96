//! Safetensors files: eight bytes of header length, a JSON header, then the values of each tensor in turn.
//!
//! The header is checked against the file's real length before any value is read, and values are read and written
//! one tensor at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use crate::{AdapterError, files};

/// The format's own limit on headers.
const HEADER_LIMIT: u64 = 100_000_000;

/// A weights file whose header has been checked; its values come next.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    path: PathBuf,
    file: BufReader<File>,
    /// Free text that the header carries.
    notes: HashMap<String, String>,
    /// Name and shape, type and bytes of each tensor, in file order without gaps.
    tensors: Vec<(String, TensorInfo)>,
}

impl WeightsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, AdapterError> {
        Ok(Self::open_with_header(path)?.0)
    }

    /// The file and its header's bytes, as they are.
    pub(crate) fn open_with_header(path: &Path) -> Result<(Self, Vec<u8>), AdapterError> {
        let (file, length) = files::open(path)?;
        let mut file = BufReader::new(file);
        let wrong = |reason: String| AdapterError::weights(path, reason);
        if length < 8 {
            return Err(wrong(format!("is {length} bytes long, too short for a safetensors file")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(AdapterError::io(path))?;
        let header_bytes = u64::from_le_bytes(size);
        if header_bytes > HEADER_LIMIT || header_bytes > length - 8 {
            return Err(wrong(format!("says that its header has {header_bytes} bytes; the file has {length}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(AdapterError::io(path))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(format!("header: {e}")))?;
        let expected = (metadata.data_len() as u64).checked_add(8 + header_bytes);
        if expected != Some(length) {
            let reason = format!("its tensors need {} bytes of values", metadata.data_len());
            return Err(wrong(format!("{reason}; the file has {}", length - 8 - header_bytes)));
        }
        let names = metadata.offset_keys();
        let tensors = names.into_iter().filter_map(|n| metadata.info(&n).cloned().map(|i| (n, i))).collect();
        let notes = metadata.metadata().clone().unwrap_or_default();
        Ok((Self { path: path.to_owned(), file, notes, tensors }, header))
    }

    /// Name, type and shape of each tensor, in file order.
    pub(crate) fn tensors(&self) -> &[(String, TensorInfo)] {
        &self.tensors
    }

    /// The next bytes of the values: those of each tensor in turn.
    pub(crate) fn values(&mut self) -> &mut impl Read {
        &mut self.file
    }

    /// An entry of the header's free text.
    pub(crate) fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Name and shape of each tensor; all are checked to be matrices of a type that is read.
    pub(crate) fn matrices(&self) -> Result<Vec<(&str, [usize; 2])>, AdapterError> {
        let check = |(_, info): &(String, TensorInfo)| match *info.shape.as_slice() {
            _ if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
                Err(format!("has type {:?}; F32, F16 and BF16 are read", info.dtype))
            }
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            _ => Err(format!("has shape {:?}; a factor is a matrix", info.shape)),
        };
        let named = |t| match check(t) {
            Ok(shape) => Ok((t.0.as_str(), shape)),
            Err(reason) => Err(AdapterError::tensor(&self.path, &t.0, reason)),
        };
        self.tensors.iter().map(named).collect()
    }

    /// Hands over the values of each tensor in turn, as f32; all are finite.
    pub(crate) fn read(mut self, mut take: impl FnMut(&str, Vec<f32>)) -> Result<(), AdapterError> {
        for (name, info) in &self.tensors {
            let mut bytes = vec![0; info.data_offsets.1.saturating_sub(info.data_offsets.0)];
            self.file.read_exact(&mut bytes).map_err(AdapterError::io(&self.path))?;
            let values = decode(info.dtype, &bytes);
            if let Some((i, x)) = values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
                return Err(AdapterError::tensor(&self.path, name, format!("value {i} is {x}")));
            }
            take(name, values);
        }
        Ok(())
    }
}

/// Bytes of a type as f32 values.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// f32 values as bytes of another type; values too large for it become infinite.
pub(crate) fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// Whether a value stays finite in another type.
pub(crate) fn fits(dtype: Dtype, value: f32) -> bool {
    match dtype {
        Dtype::F16 => f16::from_f32(value).is_finite(),
        Dtype::BF16 => bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    }
}

/// Writes a header, then whatever `values` gives for each tensor; the same input gives the same bytes.
pub(crate) fn write(
    path: &Path,
    metadata: &[(&str, &str)],
    dtype: Dtype,
    tensors: &[(String, [usize; 2])],
    values: impl Fn(usize) -> Result<Vec<f32>, AdapterError>,
) -> Result<(), AdapterError> {
    let too_large = || AdapterError::weights(path, "the factors are too large to be written");
    let mut header = Map::new();
    let metadata: Map<String, Value> = metadata.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    header.insert("__metadata__".to_owned(), Value::Object(metadata));
    let mut start = 0_usize;
    for (name, shape) in tensors {
        let values = shape.iter().try_fold(dtype.bitsize() / 8, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
        let end = start.checked_add(values).ok_or_else(too_large)?;
        let info = TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (start, end) };
        header.insert(name.clone(), json!(info));
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > HEADER_LIMIT {
        return Err(too_large());
    }
    let mut file = BufWriter::new(File::create(path).map_err(AdapterError::io(path))?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(AdapterError::io(path))?;
    file.write_all(&header).map_err(AdapterError::io(path))?;
    for i in 0..tensors.len() {
        file.write_all(&encode(dtype, &values(i)?)).map_err(AdapterError::io(path))?;
    }
    let file = file.into_inner().map_err(|e| AdapterError::io(path)(e.into_error()))?;
    file.sync_all().map_err(AdapterError::io(path))
}
