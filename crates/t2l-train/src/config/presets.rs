//! What each trainer does by default where the configuration file is silent.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{TrainConfig, unknown};
use crate::Weighting;

/// What is trained, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainer {
    /// A hypernetwork, through the frozen language model.
    #[default]
    Sft,
    /// The same, conditioned on each input instead of its task: a baseline.
    Hyperdecoder,
    /// One adapter for each task.
    Lora,
    /// One adapter for all tasks.
    Multitask,
    /// A hypernetwork, on a library of adapters.
    Recon,
}

impl Trainer {
    /// Its name, as the command line and configurations spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Hyperdecoder => "hyperdecoder",
            Self::Lora => "lora",
            Self::Multitask => "multitask",
            Self::Recon => "recon",
        }
    }
}

impl TrainConfig {
    /// The defaults of a trainer.
    pub fn defaults(trainer: Trainer) -> Self {
        let mut config = Self { trainer, ..Self::default() };
        match trainer {
            Trainer::Sft => {}
            Trainer::Hyperdecoder => config.hypernet.conditioning = t2l_hypernet::Conditioning::Input,
            Trainer::Lora => {
                config.optimizer.learning_rate = 8e-5;
                config.loss.weighting = Weighting::Token;
                config.loss.label_smoothing = 0.0;
                config.loss.l2_generated = 0.0;
                config.sampling.tasks_per_step = 4;
                config.sampling.points_per_task = 8;
                config.lora.patience = 3;
            }
            Trainer::Multitask => {
                config.optimizer.weight_decay = 1e-3;
                config.loss.l2_generated = 0.0;
            }
            Trainer::Recon => {
                config.optimizer.weight_decay = 1e-3;
                config.sampling.tasks_per_step = 4;
                config.hypernet.init = t2l_hypernet::Init::Reconstruction;
            }
        }
        config
    }

    /// Reads a configuration for a trainer: what the text says, and the trainer's defaults for the rest.
    ///
    /// # Errors
    /// What is wrong with the text, with line and column where there is one: not TOML, an unknown key, a value of the
    /// wrong type, or a configuration for another trainer.
    pub fn parse(text: &str, trainer: Trainer) -> Result<Self, String> {
        // On its own first, so that errors point at lines of the text.
        let given: Self = toml::from_str(text).map_err(|e| unknown::told(&e))?;
        let table: Table = toml::from_str(text).map_err(|e| e.to_string())?;
        if table.contains_key("trainer") && given.trainer != trainer {
            return Err(format!("is for `t2l train {}`, not for {}", given.trainer.name(), trainer.name()));
        }
        let mut merged = Table::try_from(Self::defaults(trainer)).map_err(|e| e.to_string())?;
        let says_init = table.get("hypernet").is_some_and(|section| section.get("init").is_some());
        overlay(&mut merged, table);
        if given.hypernet.multitask.is_some()
            && !says_init
            && let Some(Value::Table(section)) = merged.get_mut("hypernet")
        {
            let zero = Value::try_from(t2l_hypernet::Init::Zero).map_err(|e| e.to_string())?;
            section.insert("init".into(), zero);
        }
        merged.try_into().map_err(|e| e.to_string())
    }
}

/// Puts every value of `over` into `table`, section by section.
fn overlay(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(over)) => overlay(section, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_over_the_trainers_defaults() {
        let config = TrainConfig::parse("[optimizer]\nlearning_rate = 0.5", Trainer::Multitask).expect("parses");
        assert_eq!((config.optimizer.learning_rate, config.optimizer.weight_decay), (0.5, 1e-3));
        assert_eq!(TrainConfig::parse("", Trainer::Sft).expect("parses"), TrainConfig::default());
    }

    #[test]
    fn a_resolved_configuration_reads_back_and_is_refused_by_another_trainer() {
        let all = [Trainer::Sft, Trainer::Hyperdecoder, Trainer::Lora, Trainer::Multitask, Trainer::Recon];
        for trainer in all {
            let config = TrainConfig::defaults(trainer);
            config.check().expect("defaults are in range");
            let text = toml::to_string_pretty(&config).expect("serialises");
            assert_eq!(TrainConfig::parse(&text, trainer).expect("parses"), config);
            let other = if trainer == Trainer::Sft { Trainer::Lora } else { Trainer::Sft };
            assert!(TrainConfig::parse(&text, other).expect_err("refused").contains(trainer.name()));
        }
    }

    #[test]
    fn adapters_and_hypernetworks_have_their_own_patience() {
        let text = "[lora]\npatience = 2\n[run]\npatience = 5";
        let patience = |trainer| TrainConfig::parse(text, trainer).expect("parses").patience();
        let all = [Trainer::Sft, Trainer::Hyperdecoder, Trainer::Recon, Trainer::Lora, Trainer::Multitask];
        assert_eq!(all.map(patience), [5, 5, 5, 2, 2]);
    }

    #[test]
    fn on_top_of_an_adapter_heads_start_at_zero_unless_the_file_says_otherwise() {
        let init = |text: &str| TrainConfig::parse(text, Trainer::Sft).expect("parses").hypernet.init;
        assert_eq!(init("[hypernet]\nmultitask = \"x\""), t2l_hypernet::Init::Zero);
        assert_eq!(init("[hypernet]\nmultitask = \"x\"\ninit = \"ours\""), t2l_hypernet::Init::Ours);
        assert_eq!(init(""), t2l_hypernet::Init::Ours);
    }
}
