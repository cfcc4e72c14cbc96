//! The file a run resumes from: parameters, moments and everything that decides what happens next.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use t2l_core::Parameters;

use crate::optimizer::Optimizer;
use crate::{OptimizerConfig, TrainError, files};

const VERSION: u32 = 1;
const KEY: &str = "t2l_train_state";

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this format.
    pub version: u32,
    /// Digest of the resolved configuration; resuming under another is refused.
    pub config_digest: String,
    /// Steps taken.
    pub step: u64,
    /// State of the sampler.
    pub sampler: serde_json::Value,
    /// Bytes of the metrics file at this point.
    pub metrics_bytes: u64,
    /// Best value of the selection metric so far, and its step.
    pub best: Option<(f64, u64)>,
    /// Checksum of the tensors' bytes.
    #[serde(default)]
    pub checksum: String,
}

impl Progress {
    /// A run that has not taken a step.
    pub fn start(config_digest: String, sampler: serde_json::Value) -> Self {
        Self {
            version: VERSION,
            config_digest,
            step: 0,
            sampler,
            metrics_bytes: 0,
            best: None,
            checksum: String::new(),
        }
    }
}

/// Writes the state whole or not at all: beside the old one first, then in its place.
///
/// # Errors
/// The file cannot be written; the previous one is untouched.
pub fn save(
    path: &Path,
    parameters: &Parameters,
    optimizer: &Optimizer,
    progress: &Progress,
) -> Result<(), TrainError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (prefix, group) in [("p.", parameters), ("m.", &optimizer.first), ("v.", &optimizer.second)] {
        for (name, p) in group.iter() {
            let bytes = p.values.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
            tensors.push((format!("{prefix}{name}"), p.shape.clone(), bytes));
        }
    }
    let progress = Progress { checksum: files::digest(tensors.iter().map(|t| t.2.as_slice())), ..progress.clone() };
    let invalid = |reason: String| TrainError::State { path: path.to_owned(), reason };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| invalid(e.to_string()))?;
        views.push((name.as_str(), view));
    }
    let progress = serde_json::to_string(&progress).map_err(|e| invalid(e.to_string()))?;
    let bytes =
        safetensors::serialize(views, Some([(KEY.to_owned(), progress)].into())).map_err(|e| invalid(e.to_string()))?;
    files::write_whole(path, &bytes)
}

/// Reads a state back into parameters of the same names and shapes.
///
/// # Errors
/// The file is torn, of another version, of another configuration, or holds other tensors.
pub fn load(
    path: &Path,
    parameters: &mut Parameters,
    config: &OptimizerConfig,
    config_digest: &str,
    device: &Device,
) -> Result<(Optimizer, Progress), TrainError> {
    let invalid = |reason: String| TrainError::State { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|e| invalid(format!("torn or not a state file: {e}")))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| invalid("not a state file".into()))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if progress.version != VERSION {
        return Err(invalid(format!("version {} is not {VERSION}", progress.version)));
    }
    if progress.config_digest != config_digest {
        return Err(invalid(
            "was written under another configuration; train in another folder, or restore the configuration".into(),
        ));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| invalid(format!("torn: {e}")))?;
    let mut optimizer = Optimizer::new(config.clone(), parameters);
    optimizer.steps = progress.step;
    let mut in_order: Vec<&[u8]> = Vec::new();
    for (prefix, group) in [("p.", &mut *parameters), ("m.", &mut optimizer.first), ("v.", &mut optimizer.second)] {
        for (name, p) in group.iter_mut() {
            let name = format!("{prefix}{name}");
            let view = tensors.tensor(&name).map_err(|_| invalid(format!("has no tensor {name}")))?;
            if view.shape() != p.shape || view.dtype() != Dtype::F32 {
                return Err(invalid(format!(
                    "tensor {name} is {:?} {:?}, not f32 {:?}",
                    view.dtype(),
                    view.shape(),
                    p.shape
                )));
            }
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let count = values.len();
            p.values = Tensor::from_data(TensorData::new(values, [count]), device);
        }
    }
    for prefix in ["p.", "m.", "v."] {
        for (name, _) in optimizer.first.iter() {
            let data = tensors.tensor(&format!("{prefix}{name}")).map_err(|e| invalid(e.to_string()))?.data();
            in_order.push(data);
        }
    }
    if files::digest(in_order.iter().copied()) != progress.checksum {
        return Err(invalid("checksum does not match: the file is damaged".into()));
    }
    Ok((optimizer, progress))
}
