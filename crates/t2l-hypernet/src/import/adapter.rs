//! `adapter_config.json`: rank and scaling of the adapters that a published checkpoint generates.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use t2l_core::LoraScaling;
use t2l_core::files::read_at_most;

use super::args::CONFIG_LIMIT;
use super::error::ImportError;

#[derive(Debug, Deserialize)]
pub(super) struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    #[serde(default)]
    target_modules: Value,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

impl AdapterConfig {
    pub fn load(path: &Path) -> Result<Self, ImportError> {
        let bytes = read_at_most(path, CONFIG_LIMIT).map_err(crate::HypernetError::io(path))?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|e| ImportError::file(path, format!("cannot be read: {e}")))?;
        // What would give adapters another shape or another meaning than the hypernetwork's heads.
        let changes =
            ["rank_pattern", "alpha_pattern", "layers_to_transform", "use_dora", "fan_in_fan_out", "lora_bias"];
        for key in changes {
            let unset = match config.rest.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(_) => false,
            };
            if !unset {
                return Err(ImportError::file(
                    path,
                    format!("sets {key}, which a hypernetwork's adapters cannot have"),
                ));
            }
        }
        Ok(config)
    }

    pub fn scaling(&self) -> LoraScaling {
        LoraScaling { alpha: self.lora_alpha, rank: self.r, use_rslora: self.use_rslora }
    }

    /// Fails where a list of modules is given that is not the hypernetwork's.
    pub fn check_modules(&self, path: &Path, modules: &[String]) -> Result<(), ImportError> {
        let Value::Array(list) = &self.target_modules else { return Ok(()) };
        let has = |module: &String| list.iter().any(|name| name.as_str() == Some(module));
        if list.len() != modules.len() || !modules.iter().all(has) {
            let heads = modules.join(", ");
            let reason = format!("its target_modules are not those that the hypernetwork has heads for ({heads})");
            return Err(ImportError::file(path, reason));
        }
        Ok(())
    }
}
