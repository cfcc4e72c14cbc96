//! The file a run resumes from: parameters, moments and everything that decides what happens next.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use t2l_core::files::read_at_most;
use t2l_core::{Parameter, Parameters, counted};

use super::progress::Progress;
use super::trainee::{Part, Trainee};
use crate::optimizer::Optimizer;
use crate::{TrainConfig, TrainError, files};

const KEY: &str = "t2l_train_state";
/// Bytes of the longest header that is read.
const HEADER: u64 = 1 << 28;
/// Bytes of the longest state of other parameters that is read.
const OTHERS: u64 = 1 << 32;
/// Parameters, first and second moments, in file order.
const GROUPS: [&str; 3] = ["p", "m", "v"];

/// Name of a part's tensor in the file.
fn stored_name(group: &str, part: &str, name: &str) -> String {
    if part.is_empty() { format!("{group}.{name}") } else { format!("{group}.{part}/{name}") }
}

/// Writes the state whole or not at all: beside the old one first, then in its place.
///
/// # Errors
/// The file cannot be written; the previous one is untouched.
pub fn save(
    path: &Path,
    trainee: &dyn Trainee,
    optimizers: &[Optimizer],
    progress: &Progress,
) -> Result<(), TrainError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (Part { name: part, parameters }, optimizer) in trainee.parts().into_iter().zip(optimizers) {
        for (group, values) in GROUPS.into_iter().zip([parameters, &optimizer.first, &optimizer.second]) {
            for (name, p) in values.iter() {
                let bytes = p.values.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
                tensors.push((stored_name(group, part, name), p.shape.clone(), bytes));
            }
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
    trainee: &mut dyn Trainee,
    optimizers: &mut [Optimizer],
    config: &TrainConfig,
) -> Result<Progress, TrainError> {
    let invalid = |reason: String| TrainError::State { path: path.to_owned(), reason };
    // That of another configuration may be longer, and is to be told so.
    let values: u64 = trainee.parts().iter().map(|part| part.parameters.count() as u64).sum();
    let limit = values.saturating_mul(12).saturating_add(HEADER).max(OTHERS);
    let bytes = read_at_most(path, limit).map_err(TrainError::io(path))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|e| invalid(format!("torn or not a state file: {e}")))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| invalid("not a state file".into()))?;
    let mut progress = Progress::parse(text).map_err(&invalid)?;
    if config.digest() != progress.config_digest {
        return Err(invalid(
            "was written under another configuration; restore that, or train in another folder (run.start_from goes on \
             from a checkpoint)"
                .into(),
        ));
    }
    let data = trainee.data();
    if !progress.data.is_empty() && progress.data != data {
        let reason = "was written with other tasks, examples or adapters; train in another folder, or restore them";
        return Err(invalid(reason.into()));
    }
    if progress.parts.len() != optimizers.len() {
        let reason = format!("has {}, the run has {}", counted(progress.parts.len(), "part"), optimizers.len());
        return Err(invalid(reason));
    }
    if progress.parts.iter().any(|part| part.steps.max(part.waited) > progress.step) {
        return Err(invalid(format!("a part counts more steps or validations than the {} steps taken", progress.step)));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| invalid(format!("torn: {e}")))?;
    let device = trainee.device();
    let names: Vec<String> = trainee.parts().iter().map(|p| p.name.to_owned()).collect();
    let mut in_order: Vec<&[u8]> = Vec::new();
    let parameters = trainee.parameters_mut().into_iter().zip(optimizers.iter_mut());
    for ((part, (parameters, optimizer)), so_far) in names.iter().zip(parameters).zip(&progress.parts) {
        optimizer.steps = so_far.steps;
        let groups: [&mut Parameters; 3] = [parameters, &mut optimizer.first, &mut optimizer.second];
        for (group, values) in GROUPS.into_iter().zip(groups) {
            for (name, p) in values.iter_mut() {
                in_order.push(read(&tensors, &stored_name(group, part, name), p, &device).map_err(&invalid)?);
            }
        }
    }
    if files::digest(in_order.iter().copied()) != progress.checksum {
        return Err(invalid("checksum does not match: the file is damaged".into()));
    }
    progress.data = data;
    Ok(progress)
}

/// Puts a tensor of the file into a parameter; gives its bytes.
fn read<'a>(tensors: &SafeTensors<'a>, name: &str, p: &mut Parameter, device: &Device) -> Result<&'a [u8], String> {
    let view = tensors.tensor(name).map_err(|_| format!("has no tensor {name}"))?;
    if view.shape() != p.shape || view.dtype() != Dtype::F32 {
        return Err(format!("tensor {name} is {:?} {:?}, not f32 {:?}", view.dtype(), view.shape(), p.shape));
    }
    let data = view.data();
    let values: Vec<f32> = data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let count = values.len();
    p.values = Tensor::from_data(TensorData::new(values, [count]), device);
    Ok(data)
}
