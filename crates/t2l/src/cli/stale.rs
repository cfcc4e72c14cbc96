//! Adapters of an earlier run in the folder that a new one replaces.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use t2l::adapter::peft;

/// Removes the numbered adapters in `root` that are not among `fresh`. Files that no run of ours writes are left, with
/// the folder that they lie in.
pub fn remove(root: &Path, fresh: &[PathBuf]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root).with_context(|| root.display().to_string())? {
        let entry = entry.with_context(|| root.display().to_string())?;
        let folder = root.join(entry.file_name());
        let ours = entry.file_type().is_ok_and(|t| t.is_dir()) && entry.file_name().to_str().is_some_and(is_numbered);
        if ours && folder.join(peft::CONFIG).is_file() && !fresh.contains(&folder) {
            remove_adapter(&folder).with_context(|| folder.display().to_string())?;
            eprintln!("removed {}, which was there before", folder.display());
        }
    }
    Ok(())
}

/// `NNNN-…`, as `generate` names folders; more digits from the ten thousandth on.
fn is_numbered(name: &str) -> bool {
    name.split_once('-').is_some_and(|(n, _)| n.len() >= 4 && n.bytes().all(|b| b.is_ascii_digit()))
}

fn remove_adapter(folder: &Path) -> std::io::Result<()> {
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
    use super::*;

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
        let mut left: Vec<_> =
            std::fs::read_dir(root.path()).expect("read").map(|e| e.expect("an entry").file_name()).collect();
        left.sort();
        let expected =
            ["-mine", "0001-new", "0002-new", "0004-mine", "0005-photographs", "0006-file", "12-mine", "mine"];
        assert_eq!(left, expected);
        assert_eq!(std::fs::read_dir(root.path().join("0004-mine")).expect("read").count(), 1);
        assert!(fresh[0].join(peft::WEIGHTS).is_file());
    }
}
