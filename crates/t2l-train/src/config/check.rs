//! The range of every setting.

use super::{TrainConfig, Trainer};
use crate::TrainError;

impl TrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), TrainError> {
        positive("sampling.tasks_per_step", self.sampling.tasks_per_step)?;
        positive("sampling.points_per_task", self.sampling.points_per_task)?;
        if !(8..=1 << 20).contains(&self.sampling.max_tokens) {
            return wrong("sampling.max_tokens", self.sampling.max_tokens, "must be from 8 to 1048576");
        }
        positive("sampling.bucket_window", self.sampling.bucket_window)?;
        if !(1..=4096).contains(&self.sampling.accumulation) {
            return wrong("sampling.accumulation", self.sampling.accumulation, "must be from 1 to 4096");
        }
        positive("lora.validation_examples", self.lora.validation_examples)?;
        share("sampling.input_share", self.sampling.input_share, false)?;
        share("sampling.extra_share", self.sampling.extra_share, true)?;
        self.check_extra()?;
        self.check_quoted_words()?;
        self.check_copying()?;
        self.check_instructed()?;
        share("loss.label_smoothing", self.loss.label_smoothing, true)?;
        share("loss.lora_dropout", self.loss.lora_dropout, true)?;
        share("hypernet.dropout", self.hypernet.dropout, true)?;
        share("optimizer.warmup_share", self.optimizer.warmup_share, false)?;
        share("optimizer.beta1", self.optimizer.beta1, true)?;
        share("optimizer.beta2", self.optimizer.beta2, true)?;
        at_least_zero("optimizer.learning_rate", self.optimizer.learning_rate)?;
        at_least_zero("optimizer.weight_decay", self.optimizer.weight_decay)?;
        at_least_zero("optimizer.epsilon", self.optimizer.epsilon)?;
        at_least_zero("optimizer.max_grad_norm", self.optimizer.max_grad_norm)?;
        at_least_zero("loss.l2_generated", self.loss.l2_generated)?;
        at_least_zero("loss.neftune_alpha", self.loss.neftune_alpha)?;
        at_least_zero("loss.description_noise", self.loss.description_noise)?;
        at_least_zero("loss.margin_weight", self.loss.margin_weight)?;
        at_least_zero("loss.margin", self.loss.margin)?;
        positive("loss.margin_rows", self.loss.margin_rows)?;
        at_least_zero("recon.delta_w_scaling", self.recon.delta_w_scaling)?;
        if self.run.steps == 0 || self.run.checkpoint_every == 0 {
            return wrong("run.steps, run.checkpoint_every", 0, "must be at least 1");
        }
        if self.run.patience > 0 && self.run.validate_every == 0 {
            return wrong("run.validate_every", 0, "must be more than 0: run.patience counts validations");
        }
        match self.trainer {
            Trainer::Sft | Trainer::Hyperdecoder => self.check_hypernet(),
            Trainer::Lora | Trainer::Multitask => self.check_plain(),
            Trainer::Recon => self.check_recon(),
        }
    }

    /// What a hypernetwork through the language model starts from and is told.
    fn check_hypernet(&self) -> Result<(), TrainError> {
        use t2l_hypernet::{Conditioning, Init, Offset};
        let settings = &self.hypernet;
        match (&settings.multitask, settings.init) {
            (None, Init::Zero) => {
                return wrong("hypernet.init", "zero", "needs hypernet.multitask: nothing would have a gradient");
            }
            (Some(_), init) if init != Init::Zero => {
                let value = format!("{init:?}").to_lowercase();
                return wrong("hypernet.init", value, "must be \"zero\" on top of hypernet.multitask");
            }
            _ => {}
        }
        if settings.offset == Offset::None {
            return wrong("hypernet.offset", "none", "must be \"frozen\" or \"trainable\"");
        }
        let of_inputs = settings.conditioning == Conditioning::Input;
        if self.loss.description_noise > 0.0 && !of_inputs && settings.conditioning != Conditioning::Text {
            let reason = "must be 0 where hypernet.conditioning is not \"text\" or \"input\"";
            return wrong("loss.description_noise", self.loss.description_noise, reason);
        }
        match self.trainer {
            Trainer::Hyperdecoder if !of_inputs => {
                let value = format!("{:?}", settings.conditioning).to_lowercase();
                wrong("hypernet.conditioning", value, "must be \"input\": a hyperdecoder reads each input")
            }
            Trainer::Sft if of_inputs => {
                wrong("hypernet.conditioning", "input", "is what `t2l train hyperdecoder` is for")
            }
            _ => Ok(()),
        }
    }

    /// Further tasks are for those who read descriptions, or nothing: an index says nothing of them.
    fn check_extra(&self) -> Result<(), TrainError> {
        use t2l_hypernet::Conditioning;
        let Some(path) = &self.data.extra_dir else {
            return match &self.data.extra_split {
                None => Ok(()),
                Some(split) => wrong("data.extra_split", split, "needs data.extra_dir"),
            };
        };
        match (self.trainer, self.hypernet.conditioning) {
            (Trainer::Sft, Conditioning::Text | Conditioning::None) | (Trainer::Multitask, _) => Ok(()),
            (Trainer::Sft, _) => {
                wrong("data.extra_dir", path.display(), "wants hypernet.conditioning \"text\" or \"none\"")
            }
            _ => wrong("data.extra_dir", path.display(), "is for `sft` and `multitask`"),
        }
    }

    /// Words can be quoted to those who read.
    fn check_quoted_words(&self) -> Result<(), TrainError> {
        use t2l_hypernet::Conditioning;
        match (self.model.quoted_words, self.trainer, self.hypernet.conditioning) {
            (false, ..)
            | (true, Trainer::Sft | Trainer::Recon, Conditioning::Text)
            | (true, Trainer::Hyperdecoder, _) => Ok(()),
            _ => wrong("model.quoted_words", true, "is for hypernetworks that read descriptions or inputs"),
        }
    }

    /// What is copied has been read, and goes into values.
    fn check_copying(&self) -> Result<(), TrainError> {
        let layers = self.hypernet.copying_layers;
        let values = self.hypernet.target_modules.iter().any(|m| m == "v_proj");
        match (layers, self.trainer) {
            (0, _) => Ok(()),
            _ if self.hypernet.multitask.is_some() => {
                wrong("hypernet.copying_layers", layers, "would replace a rank of hypernet.multitask's adapter")
            }
            (_, Trainer::Sft | Trainer::Hyperdecoder) if self.model.quoted_words && values => Ok(()),
            (_, Trainer::Sft | Trainer::Hyperdecoder) => wrong(
                "hypernet.copying_layers",
                layers,
                "needs model.quoted_words, and v_proj among hypernet.target_modules",
            ),
            _ => wrong("hypernet.copying_layers", layers, "is for `sft` and `hyperdecoder`"),
        }
    }

    /// Instructions are descriptions, and their effects go into values.
    fn check_instructed(&self) -> Result<(), TrainError> {
        let (key, layers) = ("hypernet.instructed_layers", self.hypernet.instructed_layers);
        let values = self.hypernet.target_modules.iter().any(|m| m == "v_proj");
        let text = self.hypernet.conditioning == t2l_hypernet::Conditioning::Text;
        let taken = usize::from(self.hypernet.copying_layers > 0);
        match layers {
            0 => Ok(()),
            _ if self.hypernet.multitask.is_some() => {
                wrong(key, layers, "would replace a rank of hypernet.multitask's adapter")
            }
            _ if self.trainer != Trainer::Sft || !text => wrong(key, layers, "is for `sft` on descriptions"),
            _ if !values => wrong(key, layers, "needs v_proj among hypernet.target_modules"),
            _ if self.hypernet.rank <= taken => {
                wrong(key, layers, "needs a rank of its own: hypernet.rank is too small")
            }
            _ => Ok(()),
        }
    }

    /// Only hypernetworks through the language model stand on an adapter.
    fn check_no_multitask(&self) -> Result<(), TrainError> {
        match &self.hypernet.multitask {
            None => Ok(()),
            Some(path) => wrong("hypernet.multitask", path.display(), "is for `sft` and `hyperdecoder`"),
        }
    }

    /// Refuses objectives of a hypernetwork that is trained through the base model.
    fn check_no_hypernet_objective(&self) -> Result<(), TrainError> {
        let settings =
            [("loss.description_noise", self.loss.description_noise), ("loss.margin_weight", self.loss.margin_weight)];
        match settings.into_iter().find(|(_, value)| *value != 0.0) {
            Some((key, value)) => wrong(key, value, "is for `sft` and `hyperdecoder`"),
            None => Ok(()),
        }
    }

    /// Adapters without a hypernetwork.
    fn check_plain(&self) -> Result<(), TrainError> {
        self.check_no_multitask()?;
        self.check_no_hypernet_objective()?;
        let (rank, alpha) = (self.hypernet.rank, self.hypernet.alpha);
        if !(1..=1 << 12).contains(&rank) {
            return wrong("hypernet.rank", rank, "must be from 1 to 4096");
        }
        if !alpha.is_finite() {
            return wrong("hypernet.alpha", alpha, "must be a number");
        }
        if self.loss.l2_generated > 0.0 {
            return wrong("loss.l2_generated", self.loss.l2_generated, "must be 0: no adapter is generated");
        }
        if self.trainer == Trainer::Lora && self.run.select.is_some() {
            let value = self.run.select.as_deref().unwrap_or_default();
            return wrong("run.select", value, "cannot be chosen: each adapter is judged by its own task's loss");
        }
        Ok(())
    }

    fn check_recon(&self) -> Result<(), TrainError> {
        self.check_no_multitask()?;
        self.check_no_hypernet_objective()?;
        if self.hypernet.conditioning == t2l_hypernet::Conditioning::Input {
            let reason = "must be \"text\", \"one-hot\", \"learned\" or \"none\": reconstruction reads no inputs";
            return wrong("hypernet.conditioning", "input", reason);
        }
        if self.hypernet.init != t2l_hypernet::Init::Reconstruction {
            let value = format!("{:?}", self.hypernet.init).to_lowercase();
            return wrong("hypernet.init", value, "must be \"reconstruction\": nothing may start at zero here");
        }
        if self.loss.gradient_checkpointing {
            return wrong("loss.gradient_checkpointing", true, "must be false: nothing goes through the base model");
        }
        if self.recon.delta_w_scaling == 0.0 {
            return wrong("recon.delta_w_scaling", 0, "must be more than 0");
        }
        Ok(())
    }
}

fn wrong<T>(key: &'static str, value: impl ToString, reason: &'static str) -> Result<T, TrainError> {
    Err(TrainError::Setting { key, value: value.to_string(), reason })
}

fn positive(key: &'static str, value: usize) -> Result<(), TrainError> {
    if value == 0 || value > 1 << 20 { wrong(key, value, "must be from 1 to 1048576") } else { Ok(()) }
}

fn share(key: &'static str, value: f64, below_one: bool) -> Result<(), TrainError> {
    let fits = (0.0..=1.0).contains(&value) && !(below_one && value == 1.0);
    if fits { Ok(()) } else { wrong(key, value, "must be a share between 0 and 1") }
}

fn at_least_zero(key: &'static str, value: f64) -> Result<(), TrainError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { wrong(key, value, "must be a number from 0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, trainer: Trainer) -> Option<String> {
        TrainConfig::parse(text, trainer).expect("parses").check().err().map(|e| e.to_string())
    }

    #[test]
    fn what_a_hypernetwork_starts_from_is_checked() {
        let refused = |text: &str, trainer, words: &str| {
            let error = refusal(text, trainer).unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(error.contains(words), "{error}");
        };
        let multitask = "[hypernet]\nmultitask = \"there\"\n";
        assert_eq!(refusal(multitask, Trainer::Sft), None);
        assert_eq!(refusal(&format!("{multitask}offset = \"trainable\""), Trainer::Hyperdecoder), None);
        refused(&format!("{multitask}init = \"ours\""), Trainer::Sft, "hypernet.init = ours");
        refused(&format!("{multitask}offset = \"none\""), Trainer::Sft, "hypernet.offset = none");
        refused("[hypernet]\ninit = \"zero\"", Trainer::Sft, "needs hypernet.multitask");
        for trainer in [Trainer::Lora, Trainer::Multitask, Trainer::Recon] {
            refused(multitask, trainer, "hypernet.multitask = there");
        }
        refused("[hypernet]\nconditioning = \"input\"", Trainer::Sft, "t2l train hyperdecoder");
        refused("[hypernet]\nconditioning = \"input\"", Trainer::Recon, "hypernet.conditioning = input");
        refused("[hypernet]\nconditioning = \"text\"", Trainer::Hyperdecoder, "conditioning = text");
        refused("[run]\npatience = 2\nvalidate_every = 0", Trainer::Sft, "run.validate_every = 0");
        // An adapter's patience has a default: without validation it says nothing.
        assert_eq!(refusal("[run]\nvalidate_every = 0", Trainer::Lora), None);
    }

    #[test]
    fn noise_margin_and_quoted_words_are_for_those_who_read() {
        let noise = "[loss]\ndescription_noise = 0.5\n";
        assert_eq!(refusal(noise, Trainer::Sft), None);
        assert_eq!(refusal(noise, Trainer::Hyperdecoder), None);
        for trainer in [Trainer::Lora, Trainer::Multitask, Trainer::Recon] {
            assert!(refusal(noise, trainer).is_some_and(|e| e.contains("description_noise = 0.5")), "{trainer:?}");
            let margin = "[loss]\nmargin_weight = 0.5\n";
            assert!(refusal(margin, trainer).is_some_and(|e| e.contains("margin_weight = 0.5")), "{trainer:?}");
        }
        let by_index = format!("{noise}[hypernet]\nconditioning = \"one-hot\"");
        assert!(refusal(&by_index, Trainer::Sft).is_some_and(|e| e.contains("description_noise = 0.5")));
        let quoted = "[model]\nquoted_words = true\n";
        assert_eq!(refusal(quoted, Trainer::Sft), None);
        assert_eq!(refusal(quoted, Trainer::Recon), None);
        assert_eq!(refusal(quoted, Trainer::Hyperdecoder), None);
        for trainer in [Trainer::Lora, Trainer::Multitask] {
            assert!(refusal(quoted, trainer).is_some_and(|e| e.contains("quoted_words = true")), "{trainer:?}");
        }
        let by_index = format!("{quoted}[hypernet]\nconditioning = \"one-hot\"");
        assert!(refusal(&by_index, Trainer::Sft).is_some_and(|e| e.contains("quoted_words = true")));
    }

    #[test]
    fn instructions_are_descriptions_and_their_effects_go_into_values() {
        let instructed = |more: &str| format!("[hypernet]\ninstructed_layers = 4\n{more}");
        assert_eq!(refusal(&instructed(""), Trainer::Sft), None);
        let reasons = [
            ("", Trainer::Recon, "on descriptions"),
            ("", Trainer::Multitask, "on descriptions"),
            ("conditioning = \"one-hot\"\n", Trainer::Sft, "on descriptions"),
            ("target_modules = [\"q_proj\"]\n", Trainer::Sft, "needs v_proj"),
            ("multitask = \"m\"\ninit = \"zero\"\n", Trainer::Sft, "multitask's adapter"),
            ("rank = 1\ncopying_layers = 2\n[model]\nquoted_words = true\n", Trainer::Sft, "rank is too small"),
        ];
        for (more, trainer, expected) in reasons {
            let message = refusal(&instructed(more), trainer).unwrap_or_default();
            assert!(message.contains("instructed_layers = 4") && message.contains(expected), "{more}: {message}");
        }
    }

    #[test]
    fn copying_wants_quoted_words_and_values() {
        let copying = |more: &str| format!("{more}[hypernet]\ncopying_layers = 4\n");
        let quoted = copying("[model]\nquoted_words = true\n");
        assert_eq!(refusal(&quoted, Trainer::Sft), None);
        assert_eq!(refusal(&quoted, Trainer::Hyperdecoder), None);
        let refused = |toml: &str, trainer| refusal(toml, trainer).is_some_and(|e| e.contains("copying_layers = 4"));
        assert!(refused(&quoted, Trainer::Recon));
        assert!(refused(&copying(""), Trainer::Multitask));
        assert!(refused(&copying(""), Trainer::Sft));
        assert!(refused(&format!("{quoted}multitask = \"there\"\n"), Trainer::Sft));
        assert!(refused(&format!("{quoted}target_modules = [\"q_proj\"]\n"), Trainer::Sft));
    }

    #[test]
    fn further_tasks_are_for_those_who_can_be_told_of_them() {
        let extra = "[data]\nextra_dir = \"there\"\n";
        assert_eq!(refusal(extra, Trainer::Sft), None);
        assert_eq!(refusal(extra, Trainer::Multitask), None);
        for trainer in [Trainer::Lora, Trainer::Hyperdecoder, Trainer::Recon] {
            assert!(refusal(extra, trainer).is_some_and(|e| e.contains("data.extra_dir = there")), "{trainer:?}");
        }
        let by_index = format!("{extra}[hypernet]\nconditioning = \"one-hot\"");
        assert!(refusal(&by_index, Trainer::Sft).is_some_and(|e| e.contains("hypernet.conditioning")));
        let alone = refusal("[data]\nextra_split = \"derived\"", Trainer::Sft);
        assert!(alone.is_some_and(|e| e.contains("needs data.extra_dir")));
        let all = refusal("[sampling]\nextra_share = 1.0", Trainer::Sft);
        assert!(all.is_some_and(|e| e.contains("sampling.extra_share")));
    }

    #[test]
    fn rows_must_have_room_for_an_answer() {
        let refused = |tokens: usize| {
            let text = format!("[sampling]\nmax_tokens = {tokens}");
            TrainConfig::parse(&text, Trainer::Sft).expect("parses").check().err().map(|e| e.to_string())
        };
        assert_eq!(refused(8), None);
        assert!(refused(7).is_some_and(|e| e.starts_with("setting sampling.max_tokens = 7")));
    }
}
