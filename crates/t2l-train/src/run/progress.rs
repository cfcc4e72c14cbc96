//! Where a run stands, beside its tensors.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Version of the state file.
const VERSION: u64 = 2;

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this format.
    pub version: u64,
    /// Digest of the resolved configuration; resuming under another is refused.
    pub config_digest: String,
    /// Steps taken.
    pub step: u64,
    /// The trainee's position.
    pub sampler: Value,
    /// Bytes of the metrics file at this point.
    pub metrics_bytes: u64,
    /// Every part of the trainee.
    pub parts: Vec<PartProgress>,
    /// Digest of the data; empty where an earlier version did not note it.
    #[serde(default)]
    pub data: String,
    /// Checksum of the tensors' bytes.
    #[serde(default)]
    pub checksum: String,
}

/// Where one part stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartProgress {
    /// Steps of its optimizer.
    pub steps: u64,
    /// Best value of its selection number so far, and its step.
    pub best: Option<(f64, u64)>,
    /// Validations since then.
    pub waited: u64,
    /// Whether it is still trained.
    pub active: bool,
}

impl PartProgress {
    fn start() -> Self {
        Self { steps: 0, best: None, waited: 0, active: true }
    }

    /// Notes a validation. Returns whether it is the best so far; without `patience` left the part's training ends.
    pub fn judge(&mut self, value: f64, step: u64, patience: u64) -> bool {
        if value.is_finite() && self.best.is_none_or(|(best, _)| value < best) {
            self.best = Some((value, step));
            self.waited = 0;
            return true;
        }
        self.waited += 1;
        self.active = patience == 0 || self.waited < patience;
        false
    }
}

impl Progress {
    /// A run that has not taken a step.
    pub fn start(config_digest: String, data: String, sampler: Value, parts: usize) -> Self {
        Self {
            version: VERSION,
            config_digest,
            data,
            step: 0,
            sampler,
            metrics_bytes: 0,
            parts: vec![PartProgress::start(); parts],
            checksum: String::new(),
        }
    }

    /// Reads what a state file says. Version 1 had one part and kept its best beside the step.
    ///
    /// # Errors
    /// Why it is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if value["version"] == 1 {
            value["parts"] = json!([{ "steps": value["step"], "best": value["best"], "waited": 0, "active": true }]);
            value["version"] = json!(VERSION);
        }
        if value["version"] != VERSION {
            return Err(format!("version {} is not {VERSION}", value["version"]));
        }
        serde_json::from_value(value).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_a_part_after_so_many_validations_without_a_new_best() {
        let mut part = PartProgress::start();
        assert!(part.judge(2.0, 10, 2));
        assert!(!part.judge(2.5, 20, 2) && part.active);
        assert!(part.judge(1.5, 30, 2));
        assert!(!part.judge(f64::NAN, 40, 2) && part.active);
        assert!(!part.judge(1.6, 50, 2) && !part.active);
        assert_eq!(part.best, Some((1.5, 30)));
    }

    #[test]
    fn version_1_is_read_and_later_ones_are_refused() {
        let old = r#"{"version":1,"config_digest":"d","step":7,"sampler":null,"metrics_bytes":3,"best":[1.5,4],"checksum":"c"}"#;
        let progress = Progress::parse(old).expect("parses");
        assert_eq!((progress.parts[0].steps, progress.parts[0].best), (7, Some((1.5, 4))));
        assert!(Progress::parse(&old.replace("\"version\":1", "\"version\":9")).is_err());
        assert!(Progress::parse("[]").is_err());
    }
}
