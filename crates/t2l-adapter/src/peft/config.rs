//! adapter_config.json: what it may say, and what of it is refused.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use crate::AdapterError;

/// Ranks above this are not believed.
const RANK_LIMIT: usize = 1 << 16;

/// What matters of a configuration.
#[derive(Debug)]
pub(super) struct PeftConfig {
    pub(super) base_model: String,
    pub(super) use_rslora: bool,
    pub(super) fan_in_fan_out: bool,
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
}

impl PeftConfig {
    pub(super) fn read(path: &Path) -> Result<Self, AdapterError> {
        let text = std::fs::read_to_string(path).map_err(AdapterError::io(path))?;
        let wrong = |reason: String| AdapterError::Config { path: path.to_owned(), reason };
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        refuse_other_maths(path, &json)?;
        let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or(false);
        let rank = match json.get("r").map_or(Some(8), Value::as_u64).and_then(|r| usize::try_from(r).ok()) {
            Some(r) if (1..=RANK_LIMIT).contains(&r) => r,
            _ => return Err(wrong(format!("r is {}; it must be from 1 to {RANK_LIMIT}", json["r"]))),
        };
        let alpha = json.get("lora_alpha").map_or(Some(8.0), Value::as_f64).filter(|a| a.is_finite());
        let patterns = |key: &str| -> Result<Vec<(Regex, f64)>, AdapterError> {
            let Some(patterns) = json.get(key).filter(|v| !v.is_null()) else { return Ok(vec![]) };
            let patterns = patterns.as_object().ok_or_else(|| wrong(format!("{key} is not an object")))?;
            patterns
                .iter()
                .map(|(name, value)| {
                    let regex = Regex::new(&format!(r"^(.*\.)?({name})$"))
                        .map_err(|e| wrong(format!("{key} {name:?}: {e}")))?;
                    let value = value
                        .as_f64()
                        .filter(|v| v.is_finite())
                        .ok_or_else(|| wrong(format!("{key} {name:?} is {value}")))?;
                    Ok((regex, value))
                })
                .collect()
        };
        Ok(Self {
            base_model: json.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default().to_owned(),
            use_rslora: flag("use_rslora"),
            fan_in_fan_out: flag("fan_in_fan_out"),
            rank,
            alpha: alpha.ok_or_else(|| wrong(format!("lora_alpha is {}", json["lora_alpha"])))?,
            ranks: patterns("rank_pattern")?,
            alphas: patterns("alpha_pattern")?,
        })
    }

    /// Rank and alpha of a module by its dotted name: the first pattern in file order wins.
    pub(super) fn of(&self, module: &str) -> (f64, f64) {
        let first = |patterns: &[(Regex, f64)]| patterns.iter().find(|(r, _)| r.is_match(module)).map(|p| p.1);
        (first(&self.ranks).unwrap_or(self.rank as f64), first(&self.alphas).unwrap_or(self.alpha))
    }
}

/// Refuses, by name, whatever would make the adapter mean something else than `ΔW = s·B·A`.
fn refuse_other_maths(path: &Path, json: &Map<String, Value>) -> Result<(), AdapterError> {
    let unsupported = |setting: String| AdapterError::Unsupported { path: path.to_owned(), setting };
    match json.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        other => return Err(unsupported(format!("peft_type {}", other.unwrap_or("(missing)")))),
    }
    if let Some(bias) = json.get("bias").and_then(Value::as_str)
        && bias != "none"
    {
        return Err(unsupported(format!("bias {bias:?}")));
    }
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    for key in [
        "use_dora",
        "use_qalora",
        "lora_bias",
        "modules_to_save",
        "trainable_token_indices",
        "layer_replication",
        "megatron_config",
        "target_parameters",
        "eva_config",
        "corda_config",
        "alora_invocation_tokens",
        "arrow_config",
        "ensure_weight_tying",
    ] {
        if let Some(value) = json.get(key).filter(|v| !empty(v)) {
            // Of these two only the way initial values were found is told; the saved factors are ordinary.
            if matches!(key, "eva_config" | "corda_config") {
                continue;
            }
            return Err(unsupported(format!("{key} {value}")));
        }
    }
    Ok(())
}
