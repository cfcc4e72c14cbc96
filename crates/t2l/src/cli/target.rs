//! Where results go: what is in the way there is found before anything is loaded.

use std::path::Path;

use anyhow::{Context, bail};
use t2l::core::files::{folder_of, is_occupied};

/// Refuses a file, and a folder that holds something, unless `force` says that it may be replaced. What a killed run left
/// half-written there is cleared away and does not count.
pub fn refuse_occupied(folder: &Path, force: bool) -> anyhow::Result<()> {
    refuse_file(folder)?;
    if !force && is_occupied(folder).with_context(|| folder.display().to_string())? {
        bail!("{}: is not empty; use --force to write into it anyway", folder.display());
    }
    Ok(())
}

/// Refuses a place for a file where there is one, unless `force` says that it may be replaced.
pub fn refuse_existing(file: &Path, force: bool) -> anyhow::Result<()> {
    if file.is_dir() {
        bail!("{}: is a folder, not a file", file.display());
    }
    if !force && file.exists() {
        bail!("{}: is there already; use --force to replace it", file.display());
    }
    Ok(())
}

fn refuse_file(folder: &Path) -> anyhow::Result<()> {
    if folder.is_file() {
        bail!("{}: is a file; name a folder", folder.display());
    }
    Ok(())
}

/// Refuses a folder that holds something, where nothing is ever replaced.
pub fn want_new(folder: &Path) -> anyhow::Result<()> {
    refuse_file(folder)?;
    if is_occupied(folder).with_context(|| folder.display().to_string())? {
        bail!("{}: is not empty; name a new folder", folder.display());
    }
    Ok(())
}

/// Refuses a place for a report and the Markdown table beside it where they could not both be written, or where either is
/// there, unless `force` says that it may be replaced.
pub fn check_report(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.file_name().is_none() || path.is_dir() {
        bail!("{}: is a folder, not a file", path.display());
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("md")) {
        let named = path.with_extension("json");
        bail!("{}: the Markdown table goes there; name the report itself, as {}", path.display(), named.display());
    }
    let folder = folder_of(path);
    if !folder.metadata().with_context(|| folder.display().to_string())?.is_dir() {
        bail!("{}: is not a folder", folder.display());
    }
    refuse_existing(path, force)?;
    refuse_existing(&path.with_extension("md"), force)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_need_a_folder_and_a_name_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |name: &str| check_report(&folder.path().join(name), false);
        let message = |name: &str| check(name).expect_err(name).to_string();
        assert!(check("report.json").is_ok() && check("report").is_ok());
        assert!(check_report(Path::new("report.json"), false).is_ok());
        assert!(message("report.md").contains("report.json"));
        assert!(message("report.MD").contains("Markdown"));
        assert!(message("missing/report.json").ends_with("missing"));
        assert!(message("").ends_with("is a folder, not a file"));
        std::fs::write(folder.path().join("file"), "").expect("written");
        assert!(message("file/report.json").ends_with("is not a folder"));
        for there in ["old.json", "table.md"] {
            std::fs::write(folder.path().join(there), "").expect("written");
        }
        assert!(message("old.json").ends_with("old.json: is there already; use --force to replace it"));
        assert!(message("table.json").ends_with("table.md: is there already; use --force to replace it"));
        assert!(check_report(&folder.path().join("old.json"), true).is_ok());
    }

    #[test]
    fn only_force_replaces() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(refuse_occupied(folder.path(), false).is_ok());
        assert!(refuse_occupied(&folder.path().join("new"), false).is_ok());
        std::fs::write(folder.path().join("file"), "").expect("written");
        assert!(refuse_occupied(folder.path(), false).is_err());
        assert!(refuse_occupied(folder.path(), true).is_ok());
    }
}
