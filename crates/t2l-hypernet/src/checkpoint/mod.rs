//! Checkpoints of ours: `manifest.json` says what the hypernetwork is, `hypernet.safetensors` holds its tensors.
//!
//! The format is described in docs/formats.md. A manifest is believed only as far as the weights bear it out: every
//! size in it is compared with the tensors that are there before anything is made.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use half::bf16;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use t2l_core::Parameters;

use crate::init::insert;
use crate::tensors::specs;
use crate::{Hypernet, HypernetConfig, HypernetError};

/// Name of the manifest inside a checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the weights inside a checkpoint's folder.
pub const WEIGHTS: &str = "hypernet.safetensors";
/// Version of the format that this program writes. Older ones are read.
pub const VERSION: u32 = 1;
/// Manifests larger than this are not read.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Value type of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

/// How prompts were rendered in training; whoever uses the checkpoint renders them the same way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendering {
    /// Longest prompt and response together, in tokens.
    pub max_tokens: usize,
    /// Share of training examples shown without the task's instruction.
    pub input_share: f64,
    /// Whether there is a system turn. Ours have none.
    pub system_turn: bool,
}

/// The models a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Hub id.
    pub id: String,
    /// Name that `t2l models` knows it by, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the file it was trained with, where there is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub version: u32,
    /// Program and version that wrote it.
    pub created_by: String,
    /// Shape of the hypernetwork, with the base model's id in its layout.
    pub config: HypernetConfig,
    /// The base model.
    pub base_model: ModelRef,
    /// The text encoder; another's embeddings mean nothing to this hypernetwork.
    pub encoder: ModelRef,
    /// How prompts were rendered.
    pub rendering: Rendering,
    /// How it was trained; free form.
    #[serde(default)]
    pub recipe: serde_json::Value,
    /// SHA-256 of the weights file.
    #[serde(default)]
    pub weights_sha256: String,
}

/// A hypernetwork with its manifest.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What it is.
    pub manifest: Manifest,
    /// The hypernetwork.
    pub hypernet: Hypernet,
}

impl Checkpoint {
    /// Loads a folder, or the weights file inside one.
    ///
    /// # Errors
    /// Files that are missing or damaged, or weights that do not fit the manifest.
    pub fn load(path: &Path, device: &Device) -> Result<Self, HypernetError> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
        let (manifest_path, weights_path) =
            (folder.join(MANIFEST), if path.is_dir() { path.join(WEIGHTS) } else { path.to_owned() });
        let length = std::fs::metadata(&manifest_path).map_err(HypernetError::io(&manifest_path))?.len();
        if length > MANIFEST_LIMIT {
            let reason = format!("has {length} bytes; a manifest has at most {MANIFEST_LIMIT}");
            return Err(HypernetError::Manifest { path: manifest_path, reason });
        }
        let manifest = std::fs::read(&manifest_path).map_err(HypernetError::io(&manifest_path))?;
        let weights = std::fs::read(&weights_path).map_err(HypernetError::io(&weights_path))?;
        Self::parse(&manifest, &manifest_path, &weights, &weights_path, device)
    }

    /// Loads a checkpoint from memory, such as one compiled into a program.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn from_bytes(manifest: &[u8], weights: &[u8], device: &Device) -> Result<Self, HypernetError> {
        Self::parse(manifest, Path::new(MANIFEST), weights, Path::new(WEIGHTS), device)
    }

    fn parse(
        manifest: &[u8],
        manifest_path: &Path,
        weights: &[u8],
        path: &Path,
        device: &Device,
    ) -> Result<Self, HypernetError> {
        let invalid = |reason: String| HypernetError::Manifest { path: manifest_path.to_owned(), reason };
        // The version first: a later one may hold anything.
        let version = serde_json::from_slice::<serde_json::Value>(manifest)
            .map_err(|e| invalid(format!("is not JSON: {e}")))?
            .get("version")
            .and_then(serde_json::Value::as_u64);
        if version.is_none_or(|v| v == 0 || v > u64::from(VERSION)) {
            let version = version.map_or("none".to_owned(), |v| v.to_string());
            return Err(invalid(format!("has version {version}; this program reads 1 to {VERSION}")));
        }
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(|e| invalid(e.to_string()))?;
        manifest.config.check()?;
        let sha256 = hex(&Sha256::digest(weights));
        if !manifest.weights_sha256.is_empty() && manifest.weights_sha256 != sha256 {
            let reason = format!("has SHA-256 {sha256}, its manifest says {}", manifest.weights_sha256);
            return Err(HypernetError::Weights { path: path.to_owned(), reason });
        }
        let hypernet = read_weights(&manifest.config, weights, path, device)?;
        Ok(Self { manifest: Manifest { weights_sha256: sha256, ..manifest }, hypernet })
    }

    /// SHA-256 of the weights file it was loaded from or saved to.
    pub fn sha256(&self) -> &str {
        &self.manifest.weights_sha256
    }

    /// Writes a folder: both files aside first, then in place of what is there. Returns the SHA-256 of the weights.
    ///
    /// # Errors
    /// Files that cannot be written; what was there is untouched then.
    pub fn save(&self, folder: &Path, dtype: Dtype) -> Result<String, HypernetError> {
        let parent = match folder.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let weights_path = folder.join(WEIGHTS);
        let weights = self.serialize(&weights_path, dtype)?;
        let sha256 = hex(&Sha256::digest(&weights));
        let manifest = Manifest {
            version: VERSION,
            config: self.hypernet.config.clone(),
            weights_sha256: sha256.clone(),
            ..self.manifest.clone()
        };
        let mut manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| HypernetError::Manifest { path: folder.join(MANIFEST), reason: e.to_string() })?;
        manifest.push(b'\n');
        std::fs::create_dir_all(parent).map_err(HypernetError::io(parent))?;
        let aside =
            tempfile::Builder::new().prefix(".checkpoint-").tempdir_in(parent).map_err(HypernetError::io(parent))?;
        for (name, bytes) in [(WEIGHTS, &weights), (MANIFEST, &manifest)] {
            let path = aside.path().join(name);
            write_synced(&path, bytes).map_err(HypernetError::io(&path))?;
        }
        replace(aside, folder)?;
        Ok(sha256)
    }

    fn serialize(&self, path: &Path, dtype: Dtype) -> Result<Vec<u8>, HypernetError> {
        let all = self.hypernet.parameters.iter().chain(self.hypernet.buffers.iter());
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = all
            .map(|(name, p)| {
                let values = p.values.to_data();
                let bytes = match dtype {
                    Dtype::F32 => values.iter::<f32>().flat_map(f32::to_le_bytes).collect(),
                    Dtype::Bf16 => values.iter::<f32>().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                };
                (name.to_owned(), p.shape.clone(), bytes)
            })
            .collect();
        let dtype = match dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        };
        let error =
            |e: safetensors::SafeTensorError| HypernetError::Weights { path: path.to_owned(), reason: e.to_string() };
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(dtype, shape.clone(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, _>>().map_err(error)?;
        safetensors::serialize(views, None).map_err(error)
    }
}

fn read_weights(
    config: &HypernetConfig,
    bytes: &[u8],
    path: &Path,
    device: &Device,
) -> Result<Hypernet, HypernetError> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| HypernetError::Weights { path: path.to_owned(), reason: e.to_string() })?;
    let specs = specs(config);
    if let Some(name) = tensors.names().into_iter().find(|name| !specs.iter().any(|s| s.name == **name)) {
        return Err(HypernetError::tensor(
            path,
            name,
            "does not belong to the hypernetwork that the manifest describes",
        ));
    }
    let read = |name: &str, shape: &[usize]| {
        let view = tensors.tensor(name).map_err(|_| HypernetError::tensor(path, name, "is missing"))?;
        if view.shape() != shape {
            let reason = format!("has shape {:?}, the manifest asks for {shape:?}", view.shape());
            return Err(HypernetError::tensor(path, name, reason));
        }
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            safetensors::Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            safetensors::Dtype::BF16 => {
                data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => {
                return Err(HypernetError::tensor(path, name, format!("has type {other:?}; f32 and bf16 are read")));
            }
        };
        match values.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(HypernetError::tensor(path, name, format!("value {i} is {}", values[i]))),
            None => Ok(values),
        }
    };
    Hypernet::from_tensors(config.clone(), read, device)
}

impl Hypernet {
    /// A hypernetwork from values given by name: `read(name, shape)` gives `shape.product()` values, row-major.
    ///
    /// # Errors
    /// A configuration that cannot be, or whatever `read` fails with.
    pub fn from_tensors(
        config: HypernetConfig,
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, HypernetError>,
        device: &Device,
    ) -> Result<Self, HypernetError> {
        config.check()?;
        let (mut parameters, mut buffers) = (Parameters::default(), Parameters::default());
        for spec in specs(&config) {
            let values = read(&spec.name, &spec.shape)?;
            if values.len() != spec.shape.iter().product::<usize>() {
                let reason = format!("{} values for shape {:?}", values.len(), spec.shape);
                return Err(HypernetError::tensor(Path::new(""), &spec.name, reason));
            }
            insert(if spec.trained { &mut parameters } else { &mut buffers }, &spec, values, device);
        }
        Ok(Self { config, parameters, buffers })
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a finished folder in the place of another.
fn replace(aside: tempfile::TempDir, folder: &Path) -> Result<(), HypernetError> {
    let old: Option<PathBuf> = folder.exists().then(|| folder.with_extension("old"));
    if let Some(old) = &old {
        if old.exists() {
            std::fs::remove_dir_all(old).map_err(HypernetError::io(old))?;
        }
        std::fs::rename(folder, old).map_err(HypernetError::io(folder))?;
    }
    let aside = aside.keep();
    if let Err(error) = std::fs::rename(&aside, folder) {
        let _ = std::fs::remove_dir_all(&aside);
        if let Some(old) = &old {
            let _ = std::fs::rename(old, folder);
        }
        return Err(HypernetError::io(folder)(error));
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(&old).map_err(HypernetError::io(&old))?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
