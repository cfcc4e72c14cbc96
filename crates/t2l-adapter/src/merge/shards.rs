//! The files of a model folder.

use std::path::Path;

use serde_json::Value;

use crate::AdapterError;
use crate::files::read_small;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longer indices are not believed.
const INDEX_LIMIT: u64 = 64 << 20;
/// Weights in other forms would contradict those that are written.
const WEIGHTS: [&str; 12] =
    ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "h5", "msgpack", "onnx", "npz", "tflite", "ot"];

/// Names of the weights files: those that the index lists, or the one that holds everything.
pub(super) fn names(model: &Path) -> Result<Vec<String>, AdapterError> {
    let index = model.join(INDEX);
    if !index.exists() {
        std::fs::metadata(model).map_err(AdapterError::io(model))?;
        if !model.join(WHOLE).exists() {
            let setting =
                "merging into anything but a folder with safetensors files (GGUF or pickles do not do)".to_owned();
            return Err(AdapterError::Unsupported { path: model.to_owned(), setting });
        }
        return Ok(vec![WHOLE.to_owned()]);
    }
    let wrong = |reason: String| AdapterError::Config { path: index.clone(), reason };
    let json: Value = serde_json::from_slice(&read_small(&index, INDEX_LIMIT)?).map_err(|e| wrong(e.to_string()))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("has no weight_map".into()))?;
    let mut names = Vec::with_capacity(map.len());
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| wrong(format!("weight_map: {tensor:?} names no file")))?;
        // Nothing is read or written outside the two folders.
        if !shard.ends_with(".safetensors") || shard.contains(['/', '\\', ':']) {
            return Err(wrong(format!("weight_map: {shard:?} is not the name of a safetensors file")));
        }
        names.push(shard.to_owned());
    }
    names.sort();
    names.dedup();
    if names.is_empty() { Err(wrong("weight_map is empty".into())) } else { Ok(names) }
}

/// Copies every other plain file of the folder: configuration, tokenizer, licence.
pub(super) fn copy_rest(model: &Path, to: &Path) -> Result<(), AdapterError> {
    for entry in std::fs::read_dir(model).map_err(AdapterError::io(model))? {
        let from = entry.map_err(AdapterError::io(model))?.path();
        let Some(name) = from.file_name() else { continue };
        let hidden = name.to_string_lossy().starts_with('.');
        let weights = from.extension().is_some_and(|e| WEIGHTS.iter().any(|w| e.eq_ignore_ascii_case(w)));
        // Links are followed: the Hub's cache is made of them.
        let plain = std::fs::metadata(&from).map_err(AdapterError::io(&from))?.is_file();
        if plain && !hidden && !weights {
            std::fs::copy(&from, to.join(name)).map_err(AdapterError::io(&from))?;
        }
    }
    Ok(())
}
