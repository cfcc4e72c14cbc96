//! Where reference cases and models are, and how close numbers must be.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};

pub fn device() -> Device {
    t2l_core::device::parse("cpu").unwrap()
}

/// The folder of reference cases; `None` (with a message) when there is none and none was asked for.
pub fn fixtures() -> Option<PathBuf> {
    let set = std::env::var_os("T2L_FIXTURES");
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let asked = set.is_some();
    let root = set.map_or(default, PathBuf::from);
    if !asked && !root.exists() {
        println!("no reference cases at {}: nothing compared", root.display());
        return None;
    }
    assert!(root.exists(), "T2L_FIXTURES names {}, which does not exist", root.display());
    Some(root)
}

/// The folder of the MiniLM files, if they were fetched.
pub fn minilm() -> Option<PathBuf> {
    let cache = std::env::var_os("T2L_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let candidates = [
        std::env::var_os("T2L_MINILM_DIR").map(PathBuf::from),
        cache.as_ref().map(|c| c.join("models/minilm")),
        cache.as_ref().map(|c| c.join("minilm")),
        home.as_ref().map(|h| h.join(".cache/t2l/models/minilm")),
        home.as_ref().map(|h| h.join(".cache/t2l/minilm")),
    ];
    candidates.into_iter().flatten().find(|folder| folder.join("model.safetensors").exists())
}

pub struct Io {
    bytes: Vec<u8>,
}

impl Io {
    pub fn open(path: &Path) -> Self {
        Self { bytes: std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.file().tensor(name).is_ok()
    }

    pub fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(str::to_owned).collect()
    }

    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (view.shape().to_vec(), values)
    }

    pub fn i64(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let values = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        (view.shape().to_vec(), values)
    }
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// Fails where `|found - expected| > atol + rtol·|expected|`; returns the largest difference.
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], atol: f32, rtol: f32) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let mut worst = 0.0f32;
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let difference = (f - e).abs();
        assert!(difference <= atol + rtol * e.abs(), "{what}[{i}]: {f}, expected {e}");
        worst = worst.max(difference);
    }
    worst
}
