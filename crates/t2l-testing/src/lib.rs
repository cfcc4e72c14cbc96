//! Reference cases and comparisons shared by the tests of every crate.
//!
//! Cases are found by what lies in the folders, never by a list of names. `T2L_FIXTURES` and `T2L_DATA` name the
//! folders; by default they are looked for beside the workspace. Where they are not there at all, a test prints that
//! and passes; where they are, running no case is a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Why a case may be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// A model that is not on this machine.
    ModelNotFetched,
    /// A family that docs/architecture.md does not list as supported yet.
    UnsupportedFamily,
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ModelNotFetched => "model not fetched",
            Self::UnsupportedFamily => "unsupported family",
        })
    }
}

fn root(variable: &str, default: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_dir(), "{variable} names {}, which is not a folder", path.display());
        return Some(path);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(default);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {variable} is not set and {default} is not there");
    None
}

/// Folder of the reference cases.
pub fn fixtures() -> Option<PathBuf> {
    root("T2L_FIXTURES", "../shared/fixtures")
}

/// Folder of the task data.
pub fn data() -> Option<PathBuf> {
    root("T2L_DATA", "../shared/data")
}

/// A model file or folder in the cache, by its name for `t2l models`, which looks in the same place.
pub fn model(name: &str, file: &str) -> Result<PathBuf, Skip> {
    let from_environment = std::env::var_os("T2L_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
    let platform = || directories::BaseDirs::new().map(|d| d.cache_dir().join("t2l"));
    let cache = from_environment.or_else(platform).ok_or(Skip::ModelNotFetched)?;
    let path = cache.join("models").join(name);
    if path.join(file).is_file() { Ok(path) } else { Err(Skip::ModelNotFetched) }
}

/// The GGUF file of SmolLM2-135M-Instruct.
pub fn smollm2() -> Result<PathBuf, Skip> {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    Ok(model("smollm2-135m-instruct", file)?.join(file))
}

/// The GGUF file of Gemma 3 270M.
pub fn gemma3() -> Result<PathBuf, Skip> {
    let file = "gemma-3-270m-q4_k_m.gguf";
    Ok(model("gemma-3-270m", file)?.join(file))
}

/// The folder of all-MiniLM-L6-v2.
pub fn minilm() -> Result<PathBuf, Skip> {
    model("all-minilm-l6-v2", "model.safetensors")
}

/// Counts the cases of one test and judges the count.
#[derive(Debug, Default)]
pub struct Cases {
    run: usize,
    skipped: Vec<String>,
}

impl Cases {
    /// Runs `check` on every folder below `area` that holds `marker`; it may answer with a reason to skip.
    pub fn each(area: &Path, marker: &str, mut check: impl FnMut(&Path) -> Result<(), Skip>) {
        let mut cases = Self::default();
        let mut folders: Vec<PathBuf> = std::fs::read_dir(area)
            .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.join(marker).exists()).collect())
            .unwrap_or_default();
        folders.sort();
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            cases.record(&name, check(&folder));
        }
        cases.finish(area);
    }

    /// Notes how one case went.
    pub fn record(&mut self, name: &str, outcome: Result<(), Skip>) {
        match outcome {
            Ok(()) => self.run += 1,
            Err(skip) => self.skipped.push(format!("{name} ({skip})")),
        }
    }

    /// Prints the count; fails when nothing was there to run.
    ///
    /// # Panics
    /// Neither a case run nor one skipped for a good reason.
    pub fn finish(self, area: &Path) {
        println!("{} cases, {} skipped: {}", self.run, self.skipped.len(), self.skipped.join(", "));
        assert!(self.run + self.skipped.len() > 0, "no case below {}", area.display());
    }
}

/// Values and shape of a stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values; integers as they are.
    pub values: Vec<f64>,
}

impl Stored {
    /// The values as f32.
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&x| x as f32).collect()
    }

    /// The values as i64.
    pub fn i64(&self) -> Vec<i64> {
        self.values.iter().map(|&x| x as i64).collect()
    }
}

/// All tensors of a safetensors file.
///
/// # Panics
/// A file that is not one.
pub fn tensors(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => {
                    data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
                }
                Dtype::I64 => {
                    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()) as f64).collect()
                }
                Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
                Dtype::BF16 => data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
                other => panic!("{}: {name} has type {other:?}", path.display()),
            };
            (name, Stored { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// A JSON file.
///
/// # Panics
/// A file that is not JSON.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails unless `|found - expected| <= atol + rtol·|expected|` everywhere.
///
/// # Panics
/// The first value that is too far off.
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], atol: f64, rtol: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(x) - y).abs();
        assert!(off <= atol + rtol * y.abs(), "{what}[{i}]: {x} instead of {y} (off by {off:.2e})");
    }
}

/// `‖found − expected‖ / ‖expected‖`.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = found.iter().zip(expected).map(|(&x, &y)| square(f64::from(x) - y)).sum();
    let size: f64 = expected.iter().copied().map(square).sum();
    if size == 0.0 { off.sqrt() } else { (off / size).sqrt() }
}
