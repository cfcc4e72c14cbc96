//! What each trainer does by default where the configuration file is silent.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::TrainConfig;
use crate::Weighting;

/// What is trained, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainer {
    /// A hypernetwork, through the frozen language model.
    #[default]
    Sft,
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
        let given: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        let table: Table = toml::from_str(text).map_err(|e| e.to_string())?;
        if table.contains_key("trainer") && given.trainer != trainer {
            return Err(format!("is for `t2l train {}`, not for {}", given.trainer.name(), trainer.name()));
        }
        let mut merged = Table::try_from(Self::defaults(trainer)).map_err(|e| e.to_string())?;
        overlay(&mut merged, table);
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
        for trainer in [Trainer::Sft, Trainer::Lora, Trainer::Multitask, Trainer::Recon] {
            let config = TrainConfig::defaults(trainer);
            config.check().expect("defaults are in range");
            let text = toml::to_string_pretty(&config).expect("serialises");
            assert_eq!(TrainConfig::parse(&text, trainer).expect("parses"), config);
            let other = if trainer == Trainer::Sft { Trainer::Lora } else { Trainer::Sft };
            assert!(TrainConfig::parse(&text, other).expect_err("refused").contains(trainer.name()));
        }
    }

    #[test]
    fn patience_is_for_adapters_without_a_hypernetwork() {
        let patience = |trainer| TrainConfig::parse("[lora]\npatience = 2", trainer).expect("parses").patience();
        let all = [Trainer::Sft, Trainer::Recon, Trainer::Lora, Trainer::Multitask];
        assert_eq!(all.map(patience), [0, 0, 2, 2]);
    }
}
