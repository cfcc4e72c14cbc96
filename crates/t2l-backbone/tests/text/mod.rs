//! GGUF files, tokenizers and chat templates against the Hugging Face stack.

mod chat;
mod gguf;
mod tokenizer;

use std::path::{Path, PathBuf};

use t2l_testing::{Cases, Skip};

/// Runs `check` on the cases that were made from SmolLM2's GGUF file, with the model's path.
pub fn with_smollm2(check: impl FnOnce(&Path, &Path) -> usize) {
    let Some(fixtures) = t2l_testing::fixtures() else { return };
    each(fixtures.join("smollm2"), t2l_testing::smollm2(), check);
}

/// Runs `check` on a folder of cases and a model; it answers how many cases it ran.
pub fn each(area: PathBuf, model: Result<PathBuf, Skip>, check: impl FnOnce(&Path, &Path) -> usize) {
    let mut cases = Cases::default();
    match model {
        Ok(model) => {
            let count = check(&area, &model);
            assert!(count > 0, "no case in {}", area.display());
            (0..count).for_each(|_| cases.record("", Ok(())));
        }
        Err(skip) => cases.record(&area.file_name().unwrap_or_default().to_string_lossy(), Err(skip)),
    }
    cases.finish(&area);
}
