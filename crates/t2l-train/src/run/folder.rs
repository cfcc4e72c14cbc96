//! The folder of a run: to which process it belongs, and that nobody's files are overwritten but a run's own.

use std::fs::File;
use std::path::Path;

use t2l_core::files::PARTIAL;

use super::{STATE, lock};
use crate::{TrainConfig, TrainError, files};

/// What a run that was killed before its first checkpoint may have left, and what belongs to a run otherwise.
const OURS: [&str; 7] = ["lock", "last", "best", "metrics.jsonl", "curves.svg", "tensorboard", "group.json"];

/// Makes a run's folder, or takes up the one that is there, for as long as the lock is held. What a killed process left
/// half written is removed.
///
/// # Errors
/// A folder with other files, in use, or that cannot be written.
pub fn take(folder: &Path, config: &TrainConfig) -> Result<File, TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    if !folder.join(STATE).exists() {
        check_vacant(folder, config)?;
    }
    let lock = lock(folder)?;
    remove_unfinished(folder)?;
    Ok(lock)
}

/// Removes files and folders that were being written, here and where the parts of a run with many are exported. A folder
/// may hold the only copy of a finished export, from between two renames; the loop exports it again.
fn remove_unfinished(folder: &Path) -> Result<(), TrainError> {
    for folder in [folder.to_owned(), folder.join("last"), folder.join("best")] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.map_err(TrainError::io(&folder))?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.to_string_lossy().starts_with(PARTIAL) {
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.map_err(TrainError::io(&path))?;
            }
        }
    }
    Ok(())
}

/// Writes the resolved configuration into the folder.
///
/// # Errors
/// A configuration that TOML cannot hold, a file that cannot be written.
pub fn write_config(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    let path = folder.join("config.toml");
    let text = resolved(config).map_err(|reason| TrainError::Config { path: path.clone(), reason })?;
    files::write_whole(&path, text.as_bytes())
}

/// Whether a run of this configuration could begin in a folder, before anything is loaded for it. One that can be gone
/// on with is judged when its state is read.
///
/// # Errors
/// The folder holds something which no run of this configuration has left there, or cannot be read.
pub fn check_folder(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    if !folder.exists() || folder.join(STATE).exists() {
        return Ok(());
    }
    check_vacant(folder, config)
}

/// Refuses a folder that holds something which no run of this configuration has left there.
fn check_vacant(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    check_holds_only(folder, |name| {
        OURS.contains(&name) || name == "config.toml" && written_by_us(&folder.join(name), config)
    })
}

/// Refuses a folder that holds something which is neither `ours`, by its name, nor half-written.
///
/// # Errors
/// The first such file by name, or a folder that cannot be read.
pub fn check_holds_only(folder: &Path, ours: impl Fn(&str) -> bool) -> Result<(), TrainError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TrainError::io(folder))? {
        names.push(entry.map_err(TrainError::io(folder))?.file_name());
    }
    names.sort();
    for name in names {
        let text = name.to_string_lossy();
        if !(ours(&text) || text.starts_with(PARTIAL)) {
            return Err(TrainError::NotARun { folder: folder.to_owned(), file: name.into() });
        }
    }
    Ok(())
}

/// The text of a run's own `config.toml`.
///
/// # Errors
/// A configuration that TOML cannot hold.
fn resolved(config: &TrainConfig) -> Result<String, String> {
    toml::to_string_pretty(&placed(config)).map_err(|e| e.to_string())
}

/// The configuration with paths that mean the same from the run's folder as from here.
fn placed(config: &TrainConfig) -> TrainConfig {
    let here = std::path::absolute(".").unwrap_or_default();
    config.clone().seen_from(&here)
}

/// Whether a file is what a run of this configuration writes: the same settings, every one of them, and no word more.
fn written_by_us(path: &Path, config: &TrainConfig) -> bool {
    let Ok(text) = files::read_text(path, files::SMALL) else { return false };
    let Ok(theirs) = TrainConfig::parse(&text, config.trainer) else { return false };
    let whole = toml::to_string_pretty(&theirs).is_ok_and(|whole| whole == text);
    whole && theirs.digest() == placed(config).digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trainer;

    #[test]
    fn only_what_a_run_leaves_may_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = TrainConfig::defaults(Trainer::Sft);
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        let refused = |config: &TrainConfig| check_vacant(folder.path(), config).err().map(|e| e.to_string());
        assert_eq!(refused(&config), None);
        for name in ["lock", "metrics.jsonl", ".t2l-partial-X2"] {
            write(name, "");
        }
        write("config.toml", &resolved(&config).expect("serialises"));
        assert_eq!(refused(&config), None);
        // Another run's, and one with a remark of the user's, which would be lost.
        let mut longer = config.clone();
        longer.run.steps += 1;
        assert!(refused(&longer).is_some_and(|e| e.contains("config.toml")));
        write("config.toml", &format!("# mine\n{}", resolved(&config).expect("serialises")));
        assert!(refused(&config).is_some_and(|e| e.contains("config.toml")));
        write("config.toml", "");
        assert!(refused(&config).is_some_and(|e| e.contains("config.toml")));
        write("an-essay.txt", "");
        let error = refused(&config).expect("refused");
        assert!(error.contains("an-essay.txt") && error.contains(&*folder.path().to_string_lossy()), "{error}");
    }
}
