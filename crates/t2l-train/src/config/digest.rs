//! Which configurations are the same run.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DataConfig, LoraConfig, ReconConfig, TrainConfig, Trainer};
use crate::files;

impl TrainConfig {
    /// Digest of everything that decides what the run computes. Where tasks, adapters and the start lie does not, nor
    /// how often files are written, nor do the sections of other trainers.
    ///
    /// Only what differs from the trainer's defaults is in it, so that a new setting leaves old runs as they are.
    pub fn digest(&self) -> String {
        let mut said = BTreeMap::new();
        differences("", &value(&self.what_decides()), &value(&Self::defaults(self.trainer).what_decides()), &mut said);
        said.insert("trainer".to_owned(), Value::from(self.trainer.name()));
        let text = serde_json::to_string(&said).unwrap_or_default();
        files::digest([text.as_bytes()])
    }

    /// The same without the data: what decides an adapter of a task, wherever the task was read from.
    pub(crate) fn digest_without_data(&self) -> String {
        Self { data: DataConfig::default(), ..self.clone() }.digest()
    }

    /// The same with what decides nothing at its default.
    fn what_decides(&self) -> Self {
        let mut what = self.clone();
        what.data.dir = Self::default().data.dir;
        what.recon.library = ReconConfig::default().library;
        what.run.checkpoint_every = Self::default().run.checkpoint_every;
        what.run.start_from = None;
        // Whether there are further tasks or an adapter underneath decides, and what they hold; not where they lie.
        what.data.extra_dir = what.data.extra_dir.map(|_| "".into());
        if what.data.extra_dir.is_none() {
            what.sampling.extra_share = Self::default().sampling.extra_share;
        }
        what.hypernet.multitask = what.hypernet.multitask.map(|_| "".into());
        if !matches!(self.trainer, Trainer::Lora | Trainer::Multitask) {
            what.lora = LoraConfig::default();
        }
        if self.trainer != Trainer::Recon {
            what.recon = ReconConfig::default();
        }
        what
    }
}

fn value(config: &TrainConfig) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// Collects the values that are not the default's, under their dotted names.
fn differences(name: &str, ours: &Value, default: &Value, into: &mut BTreeMap<String, Value>) {
    match (ours, default) {
        (Value::Object(ours), Value::Object(default)) => {
            for (key, ours) in ours {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                differences(&name, ours, default.get(key).unwrap_or(&Value::Null), into);
            }
        }
        _ if ours == default => {}
        _ => {
            into.insert(name.to_owned(), ours.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, trainer: Trainer) -> TrainConfig {
        TrainConfig::parse(text, trainer).expect("parses")
    }

    #[test]
    fn sections_of_other_trainers_do_not_change_the_digest() {
        let digest = |text: &str, trainer| config(text, trainer).digest();
        let recon = "[recon]\ndelta_w_scaling = 3.0";
        assert_eq!(digest("", Trainer::Sft), digest(recon, Trainer::Sft));
        assert_ne!(digest("", Trainer::Recon), digest(recon, Trainer::Recon));
        assert_ne!(digest("", Trainer::Lora), digest("[lora]\npatience = 9", Trainer::Lora));
        assert_ne!(digest("", Trainer::Lora), digest("", Trainer::Multitask));
    }

    #[test]
    fn where_files_lie_does_not_change_the_digest() {
        let elsewhere = "[data]\ndir = \"/elsewhere\"\n[recon]\nlibrary = \"/there\"\n[run]\nstart_from = \"/start\"";
        for trainer in [Trainer::Sft, Trainer::Recon] {
            assert_eq!(config("", trainer).digest(), config(elsewhere, trainer).digest());
        }
        let above = |path: &str| config(&format!("[hypernet]\nmultitask = {path:?}"), Trainer::Sft).digest();
        assert_eq!(above("one"), above("two"));
        assert_ne!(above("one"), config("", Trainer::Sft).digest());
        let extra = |text: &str| config(&format!("[data]\nextra_dir = {text}"), Trainer::Sft).digest();
        assert_eq!(extra("\"one\""), extra("\"two\""));
        assert_ne!(extra("\"one\""), config("", Trainer::Sft).digest());
        assert_ne!(extra("\"one\""), extra("\"one\"\nextra_split = \"some\""));
        assert_ne!(extra("\"one\""), extra("\"one\"\n[sampling]\nextra_share = 0.5"));
        let share = config("[sampling]\nextra_share = 0.5", Trainer::Sft).digest();
        assert_eq!(share, config("", Trainer::Sft).digest());
        let folder = |base: &str| config(&format!("[model]\nbase = {base:?}"), Trainer::Sft).digest();
        assert_ne!(folder("one"), folder("two"));
    }

    /// Digests in files of users: a new setting, or another order of settings, must leave them as they are.
    #[test]
    fn stored_digests_stay() {
        let text = "[run]\nsteps = 500\n[optimizer]\nlearning_rate = 0.5\n[hypernet]\ntarget_modules = [\"q_proj\"]";
        let lora = config(text, Trainer::Lora);
        assert_eq!(lora.digest(), "b393253f2413072d90af56a9447abcabc15fa9209418f5659a2584d3d9bfb81c");
        assert_eq!(
            config("", Trainer::Sft).digest(),
            "e89f24127bedfe20330d23c5a2dc510ba7f37eb5c7f22781bcca87bc9373544d"
        );
    }
}
