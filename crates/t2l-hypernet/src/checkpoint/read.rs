//! Loading: nothing is made before the manifest's sizes were found in the weights file.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Device;
use half::bf16;
use safetensors::SafeTensors;
use t2l_core::Parameters;
use t2l_core::files::read_at_most;

use super::{Checkpoint, MANIFEST, Manifest, VERSION, WEIGHTS, sha256};
use crate::import::ADAPTER_CONFIG;
use crate::init::insert;
use crate::tensors::specs;
use crate::{Hypernet, HypernetConfig, HypernetError};

/// Longest manifest that is read.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// Room for the header of a weights file.
const HEADER_LIMIT: u64 = 4 << 20;

impl Checkpoint {
    /// Loads a folder, or the weights file inside one.
    ///
    /// # Errors
    /// Files that are missing or damaged, or weights that do not fit the manifest.
    pub fn load(path: &Path, device: &Device) -> Result<Self, HypernetError> {
        let kind = std::fs::metadata(path).map_err(HypernetError::io(path))?;
        let (manifest_path, weights_path) = if kind.is_dir() {
            (path.join(MANIFEST), path.join(WEIGHTS))
        } else {
            (path.with_file_name(MANIFEST), path.to_owned())
        };
        if kind.is_dir() && !manifest_path.exists() {
            let in_run = ["best", "last"].into_iter().find(|name| path.join(name).join(MANIFEST).exists());
            let reason = match in_run {
                Some(name) => format!("is a run's folder: its checkpoint is {}", path.join(name).display()),
                None if path.join(ADAPTER_CONFIG).exists() => {
                    "is an adapter; a hypernetwork's checkpoint is wanted".into()
                }
                None => "is no hypernetwork's checkpoint: it holds no manifest.json".into(),
            };
            return Err(HypernetError::Manifest { path: path.to_owned(), reason });
        }
        let bytes = read_at_most(&manifest_path, MANIFEST_LIMIT).map_err(HypernetError::io(&manifest_path))?;
        let manifest = parse_manifest(&bytes, &manifest_path)?;
        let weights = read_at_most(&weights_path, weights_limit(&manifest.config));
        let weights = weights.map_err(HypernetError::io(&weights_path))?;
        Self::assemble(manifest, &weights, &weights_path, device)
    }

    /// Loads a checkpoint from memory, such as one compiled into a program.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn from_bytes(manifest: &[u8], weights: &[u8], device: &Device) -> Result<Self, HypernetError> {
        Self::assemble(parse_manifest(manifest, Path::new(MANIFEST))?, weights, Path::new(WEIGHTS), device)
    }

    fn assemble(manifest: Manifest, weights: &[u8], path: &Path, device: &Device) -> Result<Self, HypernetError> {
        let found = sha256(weights);
        if manifest.weights_sha256 != found {
            let reason = format!("has SHA-256 {found}, its manifest says {:?}", manifest.weights_sha256);
            return Err(HypernetError::Weights { path: path.to_owned(), reason });
        }
        let hypernet = read_weights(&manifest.config, weights, path, device)?;
        Ok(Self { manifest, hypernet })
    }
}

/// Bytes that the weights of a configuration can have, as f32 and with their header.
fn weights_limit(config: &HypernetConfig) -> u64 {
    config.values().saturating_mul(4).saturating_add(HEADER_LIMIT)
}

fn parse_manifest(bytes: &[u8], path: &Path) -> Result<Manifest, HypernetError> {
    let invalid = |reason: String| HypernetError::Manifest { path: path.to_owned(), reason };
    // The version first: a later one may hold anything.
    let version = serde_json::from_slice::<serde_json::Value>(bytes)
        .map_err(|e| invalid(format!("is not JSON: {e}")))?
        .get("version")
        .cloned();
    match version.as_ref().and_then(serde_json::Value::as_u64) {
        Some(v) if (1..=u64::from(VERSION)).contains(&v) => {}
        _ => {
            let version = version.map_or("none".to_owned(), |v| v.to_string().chars().take(40).collect());
            return Err(invalid(format!("its version is {version}; this program reads 1 to {VERSION}")));
        }
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
    manifest.config.check().map_err(|e| invalid(e.to_string()))?;
    if manifest.config.copying.is_some() && !manifest.quoted_words {
        return Err(invalid("copying needs quoted_words".into()));
    }
    Ok(manifest)
}

fn read_weights(
    config: &HypernetConfig,
    bytes: &[u8],
    path: &Path,
    device: &Device,
) -> Result<Hypernet, HypernetError> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| HypernetError::Weights { path: path.to_owned(), reason: e.to_string() })?;
    let wanted: BTreeSet<String> = specs(config).into_iter().map(|s| s.name).collect();
    if let Some(name) = tensors.names().into_iter().find(|name| !wanted.contains(*name)) {
        let name: String = name.chars().take(200).collect();
        let reason = "does not belong to the hypernetwork that the manifest describes";
        return Err(HypernetError::tensor(path, &name, reason));
    }
    let read = |name: &str, shape: &[usize]| {
        let view = tensors.tensor(name).map_err(|_| HypernetError::tensor(path, name, "is missing"))?;
        if view.shape() != shape {
            let reason = format!("has shape {:?}, the manifest asks for {shape:?}", view.shape());
            return Err(HypernetError::tensor(path, name, reason));
        }
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            safetensors::Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            safetensors::Dtype::BF16 => data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => {
                let reason = format!("has type {other:?}; f32 and bf16 are read");
                return Err(HypernetError::tensor(path, name, reason));
            }
        };
        match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            Some((i, x)) => Err(HypernetError::tensor(path, name, format!("value {i} is {x}"))),
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
                let reason = format!("{} values were given for shape {:?}", values.len(), spec.shape);
                return Err(HypernetError::tensor(Path::new("values given"), &spec.name, reason));
            }
            insert(if spec.trained { &mut parameters } else { &mut buffers }, &spec, values, device);
        }
        Ok(Self { config, parameters, buffers })
    }
}
