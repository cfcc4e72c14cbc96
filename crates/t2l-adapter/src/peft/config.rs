//! adapter_config.json: what it may say, and what of it is refused.

use std::path::{Path, PathBuf};

use regex::RegexBuilder;
use serde_json::{Map, Value};

use crate::AdapterError;
use crate::files::read_small;

/// Ranks above this are not believed.
const RANK_LIMIT: usize = 1 << 16;
/// Longer configurations are not believed.
const BYTES_LIMIT: u64 = 4 << 20;
/// More patterns than any model has modules are not believed.
const PATTERN_LIMIT: usize = 1 << 12;
/// Bytes that one compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// What matters of a configuration.
#[derive(Debug)]
pub(super) struct PeftConfig {
    path: PathBuf,
    pub(super) base_model: String,
    pub(super) use_rslora: bool,
    rank: usize,
    alpha: f64,
    /// Regular expressions over module names, in file order.
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f64)>,
}

impl PeftConfig {
    pub(super) fn read(path: &Path) -> Result<Self, AdapterError> {
        let bytes = read_small(path, BYTES_LIMIT)?;
        let fields: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|e| AdapterError::Config { path: path.to_owned(), reason: e.to_string() })?;
        let fields = Fields { path, fields };
        fields.refuse_other_maths()?;
        Ok(Self {
            path: path.to_owned(),
            base_model: match fields.get("base_model_name_or_path") {
                None => String::new(),
                Some(Value::String(name)) => name.clone(),
                Some(other) => return Err(fields.wrong("base_model_name_or_path", other, "must be a string")),
            },
            use_rslora: fields.flag("use_rslora")?,
            rank: fields.get("r").map_or(Ok(8), |r| rank(r).ok_or_else(|| fields.wrong("r", r, RANK_RULE)))?,
            alpha: fields
                .get("lora_alpha")
                .map_or(Ok(8.0), |a| alpha(a).ok_or_else(|| fields.wrong("lora_alpha", a, ALPHA_RULE)))?,
            ranks: fields.patterns("rank_pattern", rank, RANK_RULE)?,
            alphas: fields.patterns("alpha_pattern", alpha, ALPHA_RULE)?,
        })
    }

    /// Rank and alpha of each module, by its dotted name.
    pub(super) fn resolve(&self, modules: &[&str]) -> Result<Vec<(usize, f64)>, AdapterError> {
        let ranks = self.first_matches("rank_pattern", &self.ranks, modules)?;
        let alphas = self.first_matches("alpha_pattern", &self.alphas, modules)?;
        let settle = |(r, a): (Option<usize>, Option<f64>)| (r.unwrap_or(self.rank), a.unwrap_or(self.alpha));
        Ok(ranks.into_iter().zip(alphas).map(settle).collect())
    }

    /// The value of the first pattern, in file order, that matches the end of a module's name at a dot.
    ///
    /// One pattern at a time is compiled, so that many of them cannot fill the memory.
    fn first_matches<T: Copy>(
        &self,
        key: &str,
        patterns: &[(String, T)],
        modules: &[&str],
    ) -> Result<Vec<Option<T>>, AdapterError> {
        let mut found = vec![None; modules.len()];
        for (pattern, value) in patterns {
            let regex = RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$")).size_limit(PATTERN_BYTES).build();
            let regex = regex.map_err(|e| AdapterError::Config {
                path: self.path.clone(),
                reason: format!("{key}: {pattern:?} cannot be used as a regular expression: {e}"),
            })?;
            for (slot, module) in found.iter_mut().zip(modules) {
                if slot.is_none() && regex.is_match(module) {
                    *slot = Some(*value);
                }
            }
        }
        Ok(found)
    }
}

const RANK_RULE: &str = "must be a whole number from 1 to 65536";
const ALPHA_RULE: &str = "must be a finite number";

fn rank(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|r| usize::try_from(r).ok()).filter(|r| (1..=RANK_LIMIT).contains(r))
}

fn alpha(value: &Value) -> Option<f64> {
    value.as_f64().filter(|a| a.is_finite())
}

/// The configuration's fields, of which `null` counts as absent.
struct Fields<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, rule: &str) -> AdapterError {
        AdapterError::Config { path: self.path.to_owned(), reason: format!("{key} is {}; it {rule}", short(value)) }
    }

    fn flag(&self, key: &str) -> Result<bool, AdapterError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "must be true or false")),
        }
    }

    fn patterns<T>(
        &self,
        key: &str,
        read: impl Fn(&Value) -> Option<T>,
        rule: &str,
    ) -> Result<Vec<(String, T)>, AdapterError> {
        let Some(value) = self.get(key) else { return Ok(vec![]) };
        let patterns = value
            .as_object()
            .filter(|p| p.len() <= PATTERN_LIMIT)
            .ok_or_else(|| self.wrong(key, value, "must be an object of at most 4096 patterns"))?;
        let read = |(name, value): (&String, &Value)| {
            let found = read(value).ok_or_else(|| self.wrong(&format!("{key}: {name:?}"), value, rule))?;
            Ok((name.clone(), found))
        };
        patterns.iter().map(read).collect()
    }

    /// Refuses, by name, whatever makes the adapter mean something else than `W + s·B·A` on linear modules.
    fn refuse_other_maths(&self) -> Result<(), AdapterError> {
        let unsupported = |setting: String| Err(AdapterError::Unsupported { path: self.path.to_owned(), setting });
        match self.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(other) => return unsupported(format!("peft_type {}", short(other))),
            None => return unsupported("a configuration without peft_type".into()),
        }
        match self.get("bias") {
            None => {}
            Some(Value::String(bias)) if bias == "none" => {}
            Some(other) => return unsupported(format!("bias {}", short(other))),
        }
        match self.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(init)) if INITS.contains(&init.as_str()) => {}
            // PiSSA, OLoRA, CorDA and LoftQ also change the base model's own weights.
            Some(other) => return unsupported(format!("init_lora_weights {}", short(other))),
        }
        for (key, value) in &self.fields {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                _ => false,
            };
            // A switch that nobody here has heard of is a variant of LoRA that nobody here computes.
            let unknown_switch = key.starts_with("use_") && key != "use_rslora";
            if !off && (unknown_switch || OTHER_MATHS.contains(&key.as_str())) {
                return unsupported(format!("{key} {}", short(value)));
            }
        }
        Ok(())
    }
}

/// Initial values that leave the base model alone.
const INITS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Settings that change what an adapter computes, unless they are empty or false.
const OTHER_MATHS: [&str; 12] = [
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "megatron_config",
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

/// A value as an error message quotes it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
