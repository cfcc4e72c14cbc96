//! A key or a word that no setting has, with the one that was probably meant.

/// Likeness above which one may have been meant, as for clap's flags.
const ALIKE: f64 = 0.7;

/// What the reader says, with the known word that is most like an unknown one, if one is.
pub(super) fn told(error: &toml::de::Error) -> String {
    let said = error.to_string();
    match meant(error.message()) {
        Some(known) => format!("{}; did you mean `{known}`?", said.trim_end()),
        None => said,
    }
}

/// Of "unknown field `stepz`, expected one of `steps`, `seed`": the first word in backquotes is unknown, the others are known.
fn meant(message: &str) -> Option<&str> {
    let mut words = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    let rated = words.map(|known| (strsim::jaro(unknown, known), known));
    let best = rated.filter(|(likeness, _)| *likeness > ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use crate::{TrainConfig, Trainer};

    #[test]
    fn what_was_probably_meant_is_named() {
        let message = |text: &str| TrainConfig::parse(text, Trainer::Sft).expect_err("refused");
        for (text, known) in [
            ("[run]\nstepz = 3", "steps"),
            ("[optimizer]\nlearning_rat = 0.1", "learning_rate"),
            ("[optimiser]\nlearning_rate = 0.1", "optimizer"),
            ("[recon]\ntarget = \"zscored\"", "z-scored"),
        ] {
            let message = message(text);
            assert!(message.ends_with(&format!("; did you mean `{known}`?")), "{message}");
            assert!(message.contains("line "), "{message}");
        }
        for text in ["[sampling]\nbatch_size = 8", "[run]\nsteps = \"three\"", "steps 3"] {
            assert!(!message(text).contains("did you mean"), "{text}");
        }
    }
}
