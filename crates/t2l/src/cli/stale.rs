//! Adapters of an earlier run in the folder that a new one replaces.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use t2l::adapter::{Format, gguf, peft};

/// Removes the numbered adapters in `root`, of either format, that are not among `fresh`. Files that no run of ours writes
/// are left, with the folder that they lie in.
pub fn remove(root: &Path, fresh: &[PathBuf]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root).with_context(|| root.display().to_string())? {
        let entry = entry.with_context(|| root.display().to_string())?;
        let path = root.join(entry.file_name());
        if fresh.contains(&path) || !entry.file_name().to_str().is_some_and(is_numbered) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && path.join(peft::CONFIG).is_file() {
            remove_folder(&path).with_context(|| path.display().to_string())?;
        } else if kind.is_file() && Format::of(&path) == Format::Gguf && gguf::is_lora(&path) {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        } else {
            continue;
        }
        eprintln!("removed {}, which was there before", path.display());
    }
    Ok(())
}

/// `NNNN-…`, as `generate` names adapters; more digits from the ten thousandth on.
fn is_numbered(name: &str) -> bool {
    name.split_once('-').is_some_and(|(n, _)| n.len() >= 4 && n.bytes().all(|b| b.is_ascii_digit()))
}

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    // The configuration first: what is left half-way is no adapter.
    for name in [peft::CONFIG, peft::WEIGHTS] {
        match std::fs::remove_file(folder.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    match std::fs::remove_dir(folder) {
        Err(e) if e.kind() != ErrorKind::DirectoryNotEmpty => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use t2l::adapter::SaveOptions;
    use t2l::adapter::gguf::BaseShape;
    use t2l::core::{Adapter, LoraWeights, device};

    use super::*;

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(folder).expect("read");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_older_numbered_adapters_go() {
        let root = tempfile::tempdir().expect("a folder");
        let adapter = |name: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join(peft::CONFIG), "{}").expect("written");
            std::fs::write(folder.join(peft::WEIGHTS), "").expect("written");
            folder
        };
        let fresh = [adapter("0001-new"), adapter("0002-new")];
        for name in ["0001-old", "0003-old", "10000-old", "0004-mine", "mine", "12-mine", "-mine"] {
            adapter(name);
        }
        std::fs::write(root.path().join("0004-mine/notes.txt"), "mine").expect("written");
        std::fs::create_dir(root.path().join("0005-photographs")).expect("a folder");
        std::fs::write(root.path().join("0006-file"), "mine").expect("written");
        remove(root.path(), &fresh).expect("removed");
        let expected =
            ["-mine", "0001-new", "0002-new", "0004-mine", "0005-photographs", "0006-file", "12-mine", "mine"];
        assert_eq!(names(root.path()), expected);
        assert_eq!(names(&root.path().join("0004-mine")), ["notes.txt"]);
        assert!(fresh[0].join(peft::WEIGHTS).is_file());
    }

    #[test]
    fn older_numbered_gguf_adapters_go_too() {
        let root = tempfile::tempdir().expect("a folder");
        let device = device::parse("cpu").expect("a CPU");
        let mut adapter = Adapter::new("a/base", false);
        let (a, b) = (Tensor::ones([1, 2], &device), Tensor::ones([2, 1], &device));
        adapter.insert(0, "down_proj", LoraWeights { a, b, alpha: 1.0 });
        let base = BaseShape::new("llama", 1, 1).expect("a base");
        let write = |name: &str| {
            let path = root.path().join(name);
            gguf::save(&adapter, &base, &path, &SaveOptions::default()).expect("written");
            path
        };
        let fresh = [write("0001-new.gguf")];
        for name in ["0001-old.gguf", "0002-old.gguf", "mine.gguf", "12-mine.gguf"] {
            write(name);
        }
        std::fs::write(root.path().join("0003-model.gguf"), "no adapter").expect("written");
        remove(root.path(), &fresh).expect("removed");
        assert_eq!(names(root.path()), ["0001-new.gguf", "0003-model.gguf", "12-mine.gguf", "mine.gguf"]);
    }
}
