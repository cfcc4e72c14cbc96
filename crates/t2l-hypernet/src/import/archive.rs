//! A `.pt` file: its tensors by name, and the order of its heads.
//!
//! `torch.save` writes a zip archive whose entries are all stored uncompressed: a pickle of names and shapes, and one
//! entry per tensor. That everything is uncompressed and lies within the file is checked first, so that nothing in it
//! can grow beyond its size on disk; then `pytorch-reader` reads it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::error::{ImportError, printable};
use super::pickle::{ScanError, scan};

/// Longest pickle of names and shapes that is read; the published ones have some 10 KB.
const PICKLE_LIMIT: u64 = 1 << 20;

/// The tensors of a `.pt` file.
pub(super) struct Archive {
    pub path: PathBuf,
    /// Names of modules in the order of their heads, which is the index order of the module-type embedding.
    pub modules: Vec<String>,
    tensors: HashMap<String, Tensor>,
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let io = |e| ImportError::from(crate::HypernetError::io(path)(e));
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(ImportError::file(path, "is not a file"));
        }
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let strings = strings(path, file, length)?;
        let tensors = PytorchReader::new(path).map_err(|e| ImportError::file(path, e.to_string()))?.into_tensors();
        let mut claimed = 0u64;
        for tensor in tensors.values() {
            // A view may repeat its storage without end, and tensors may share one; none of a hypernetwork's does.
            claimed = claimed.saturating_add(tensor.byte_len() as u64);
            if claimed > length {
                let reason = format!("with shape {:?} makes the tensors larger than their file", tensor.shape());
                return Err(ImportError::tensor(path, &tensor.name, reason));
            }
        }
        let (mut modules, mut seen) = (Vec::new(), HashSet::new());
        for name in strings.iter().filter(|name| tensors.contains_key(*name)) {
            if !seen.insert(name) {
                return Err(ImportError::tensor(path, name, "is there twice"));
            }
            if let Some(module) = name.strip_prefix("heads.").and_then(|n| n.strip_suffix(".weight")) {
                modules.push(module.to_owned());
            }
        }
        if modules.is_empty() {
            return Err(ImportError::file(path, "has no tensor heads.<module>.weight: not a hypernetwork"));
        }
        Ok(Self { path: path.to_owned(), modules, tensors })
    }

    /// Shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::shape)
    }

    /// Whether any tensor's name starts like this.
    pub fn has(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Values of a tensor that has to have this shape, row-major.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let error = |reason: String| ImportError::tensor(&self.path, name, reason);
        let tensor = self.tensors.get(name).ok_or_else(|| error("is missing".into()))?;
        if tensor.shape() != shape {
            return Err(error(format!("has shape {:?} where {shape:?} is expected", tensor.shape())));
        }
        let size = match tensor.dtype() {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => tensor.dtype().size(),
            other => return Err(error(format!("has type {other:?}; floating-point numbers are read"))),
        };
        let bytes = tensor.read().map_err(|e| ImportError::file(&self.path, e.to_string()))?;
        if bytes.len() != shape.iter().product::<usize>() * size {
            return Err(error(format!("has {} bytes, too few or too many for its shape", bytes.len())));
        }
        let values: Vec<f32> = match tensor.dtype() {
            DType::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_ne_bytes(b) as f32).collect(),
            DType::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_ne_bytes(b).to_f32()).collect(),
            DType::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_ne_bytes(b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_ne_bytes(b)).collect(),
        };
        match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            Some((i, x)) => Err(error(format!("value {i} is {x}"))),
            None => Ok(values),
        }
    }
}

/// The strings of the pickle, after looking at every entry of the archive.
fn strings(path: &Path, mut file: File, length: u64) -> Result<Vec<String>, ImportError> {
    if !is_zip(&mut file).map_err(|e| crate::HypernetError::io(path)(e))? {
        return Err(ImportError::file(path, "is not a whole zip archive as torch.save writes it since PyTorch 1.6"));
    }
    let invalid = |e: zip::result::ZipError| {
        ImportError::file(path, format!("is not a zip archive as torch.save writes it: {e}"))
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(invalid)?;
    let (mut total, mut pickles) = (0u64, Vec::new());
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(invalid)?;
        let name = printable(&String::from_utf8_lossy(entry.name_raw()));
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let reason = format!("its entry {name} is compressed or encrypted, which torch.save never does");
            return Err(ImportError::file(path, reason));
        }
        total = total.saturating_add(entry.size());
        if entry.size() != entry.compressed_size() || total > length {
            let reason = format!("its entry {name} claims {} bytes, more than the file has for it", entry.size());
            return Err(ImportError::file(path, reason));
        }
        if entry.name() == "data.pkl" || entry.name().ends_with("/data.pkl") {
            pickles.push((i, entry.size()));
        }
    }
    let &[(index, size)] = pickles.as_slice() else {
        return Err(ImportError::file(path, format!("has {} entries data.pkl instead of one", pickles.len())));
    };
    if size > PICKLE_LIMIT {
        return Err(ImportError::file(path, format!("its data.pkl has {size} bytes; {PICKLE_LIMIT} are read at most")));
    }
    let mut pickle = Vec::new();
    let entry = archive.by_index(index).map_err(invalid)?;
    let read = entry.take(size).read_to_end(&mut pickle);
    read.map_err(|e| ImportError::file(path, format!("its data.pkl cannot be read: {e}")))?;
    match scan(&pickle) {
        Ok(scan) => Ok(scan.strings),
        Err(ScanError::Refused(name)) => Err(ImportError::Refused { path: path.to_owned(), name: printable(&name) }),
        Err(ScanError::Malformed(reason)) => Err(ImportError::file(path, reason)),
    }
}

/// Whether a file starts and ends as a zip archive without a comment; nobody has to look for its end then.
fn is_zip(file: &mut File) -> std::io::Result<bool> {
    let (mut start, mut end) = ([0; 4], [0; 22]);
    if file.metadata()?.len() < 26 {
        return Ok(false);
    }
    file.read_exact(&mut start)?;
    file.seek(SeekFrom::End(-22))?;
    file.read_exact(&mut end)?;
    file.rewind()?;
    Ok(&start == b"PK\x03\x04" && end.starts_with(b"PK\x05\x06"))
}
