//! `args.yaml`: how a published checkpoint was trained.

use std::path::Path;

use serde::{Deserialize, Serialize};
use t2l_core::files::read_at_most;

use super::error::{ImportError, printable};

/// Longest args.yaml or JSON configuration that is read.
pub(super) const CONFIG_LIMIT: u64 = 4 << 20;

/// Most values in args.yaml, counted each time they are repeated; the published ones have about a hundred.
const MOST_NODES: usize = 10_000;

/// The keys that matter, under their published names, with the published code's defaults for keys that older files lack.
///
/// Everything else is skipped unread: among it is `save_freq`, usually the integer 10^100. `encoder_type` and
/// `head_use_bias` are skipped on purpose: the published constructor ignores both, and the tensors tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(non_snake_case)]
pub(super) struct Args {
    pub training_task: String,
    pub shared_AB_head: bool,
    pub autoreg_gen: bool,
    pub learnable_pos_emb: bool,
    pub learnable_AB_offset: bool,
    pub hypernet_latent_size: usize,
    pub use_one_hot_task_emb: bool,
    pub factorized: bool,
    pub pred_z_score: bool,
    pub delta_w_scaling: f64,
    pub emb_model: Option<String>,
    pub model_dir: Option<String>,
    pub mt_lora_path: Option<String>,
    pub inp_max_len: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            training_task: "sft".into(),
            shared_AB_head: false,
            autoreg_gen: false,
            learnable_pos_emb: false,
            learnable_AB_offset: false,
            hypernet_latent_size: 128,
            use_one_hot_task_emb: false,
            factorized: false,
            pred_z_score: true,
            delta_w_scaling: 10_000.0,
            emb_model: None,
            model_dir: None,
            mt_lora_path: None,
            inp_max_len: 512,
        }
    }
}

impl Args {
    pub fn load(path: &Path) -> Result<Self, ImportError> {
        let bytes = read_at_most(path, CONFIG_LIMIT).map_err(crate::HypernetError::io(path))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| ImportError::file(path, format!("is not UTF-8: {e}")))?;
        // Aliases repeat what they name; a file of 4 KB must not stand for more than one of some hundred.
        let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_nodes: MOST_NODES } };
        let args: Self = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
            // The first line says what and where; the rest quotes the file.
            let words = e.to_string();
            let line = words.lines().next().unwrap_or_default();
            ImportError::file(path, printable_line(line.strip_prefix("error: ").unwrap_or(line)))
        })?;
        if !matches!(args.training_task.as_str(), "sft" | "recon") {
            let task = printable(&args.training_task);
            return Err(ImportError::file(path, format!("training_task is {task}; sft and recon are known")));
        }
        Ok(args)
    }
}

fn printable_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Args, ImportError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("args.yaml");
        std::fs::write(&path, text).expect("written");
        Args::load(&path)
    }

    #[test]
    fn a_hundred_digits_do_not_matter() {
        let text =
            format!("shared_AB_head: true\nsave_freq: 1{}\nlr: 2.5e-05\nnested:\n  a:\n  - b\n", "0".repeat(100));
        assert!(load(&text).expect("args").shared_AB_head);
    }

    #[test]
    fn missing_keys_take_the_published_defaults() {
        assert_eq!(load("seed: 42\nemb_model: null\n").expect("args"), Args::default());
    }

    #[test]
    fn aliases_of_aliases_end() {
        let laughs = (1..30).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1)).collect::<String>();
        // Skipped or refused; not expanded.
        let _ = load(&format!("a0: &a0 [1, 1, 1]\n{laughs}"));
        load(&format!("a0: &a0 [1, 1, 1]\n{laughs}emb_model: *a29\n")).expect_err("no text");
    }

    #[test]
    fn hostile_yaml_is_an_error() {
        let deep = format!("a: {}", "[".repeat(100_000));
        let cases = [
            deep,
            "training_task: !!python/object/apply:os.system [id]\n".into(),
            "training_task: rl\n".into(),
            "hypernet_latent_size: -1\n".into(),
            format!("hypernet_latent_size: 1{}\n", "0".repeat(100)),
            "shared_AB_head: [\n".into(),
            "\u{0}".into(),
        ];
        for case in cases {
            let error = load(&case).expect_err(&case.chars().take(60).collect::<String>()).to_string();
            assert!(error.contains("args.yaml") && error.len() < 600, "{error}");
        }
    }
}
