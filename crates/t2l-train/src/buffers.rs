//! What a hypernetwork's run has to remember besides trained parameters: codes that averages move, and offsets that must
//! still be the same.

use burn::tensor::{Tensor, TensorData};
use serde_json::{Map, Value, json};
use t2l_hypernet::{Hypernet, Offset};

use crate::files;

/// Prefix of the tensors that training moves without gradients.
const CODES: &str = "task_encoder.";

/// A sampler's state, with what has to be remembered where there is something.
pub(crate) fn position(sampler: Value, hypernet: &Hypernet) -> Value {
    let (codes, offsets) = (codes(hypernet), offsets_digest(hypernet));
    if codes.is_empty() && offsets.is_none() {
        return sampler;
    }
    json!({ "sampler": sampler, "codes": codes, "offsets": offsets })
}

/// Puts the codes of a position back and compares the offsets; gives the sampler's state.
pub(crate) fn restore<'a>(position: &'a Value, hypernet: &mut Hypernet) -> Result<&'a Value, String> {
    let offsets = offsets_digest(hypernet);
    let names: Vec<String> = codes(hypernet).into_iter().map(|(name, _)| name).collect();
    if names.is_empty() && offsets.is_none() {
        return Ok(position);
    }
    if position["offsets"].as_str() != offsets.as_deref() {
        return Err("was trained on top of another adapter: hypernet.multitask has changed".into());
    }
    for (name, p) in hypernet.buffers.iter_mut().filter(|(name, _)| names.iter().any(|n| n == name)) {
        let values: Option<Vec<f32>> = position["codes"][name]
            .as_array()
            .and_then(|all| all.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
        let count = p.shape.iter().product::<usize>();
        let values = values.filter(|v| v.len() == count).ok_or_else(|| format!("has no values of {name}"))?;
        p.values = Tensor::from_data(TensorData::new(values, [count]), &p.values.device());
    }
    Ok(&position["sampler"])
}

fn codes(hypernet: &Hypernet) -> Map<String, Value> {
    let moved = hypernet.buffers.iter().filter(|(name, _)| name.starts_with(CODES));
    moved.map(|(name, p)| (name.to_owned(), json!(p.values.to_data().iter::<f32>().collect::<Vec<_>>()))).collect()
}

/// Digest of offsets that are not trained, and so stand in no state file.
fn offsets_digest(hypernet: &Hypernet) -> Option<String> {
    if hypernet.config.offset != Offset::Frozen {
        return None;
    }
    let offsets = hypernet.buffers.iter().filter(|(name, _)| name.starts_with("AB_offset."));
    let bytes: Vec<Vec<u8>> =
        offsets.map(|(_, p)| p.values.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect()).collect();
    Some(files::digest(bytes.iter().map(Vec::as_slice)))
}
