//! What is being written lies under a hidden name beside its place until it is whole.
//!
//! A process that is killed leaves it there. Its writer holds a lock on it, which ends with the writer however that
//! ends; so whoever writes into the same folder next can tell what was left from what is being written, and clears it.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use tempfile::{Builder, NamedTempFile, TempDir};

/// How names begin of files and folders that are being written.
pub const PARTIAL: &str = ".t2l-partial-";

/// A folder under a hidden name, removed with everything in it unless it has been moved to its place.
#[derive(Debug)]
pub struct PartialFolder {
    folder: TempDir,
    _lock: Option<File>,
}

impl PartialFolder {
    /// Makes one in `parent`, as open as any new folder there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn new(parent: &Path) -> Result<Self> {
        Self::tagged(parent, "")
    }

    /// Makes one whose name goes on with `tag`, so that its writer knows it again.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn tagged(parent: &Path, tag: &str) -> Result<Self> {
        clear_once(parent);
        let prefix = format!("{PARTIAL}{tag}");
        let mut builder = Builder::new();
        builder.prefix(&prefix);
        // As any new folder, minus what the user's mask takes; temporary ones would be closed to everybody else.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        loop {
            let folder = builder.tempdir_in(parent)?;
            // Where folders cannot be opened or locked, none is ever taken for left over either.
            let lock = File::open(folder.path()).ok();
            // Between being made and being locked it looks left over; then somebody may have taken it away.
            match lock.as_ref().map(File::try_lock) {
                Some(Err(TryLockError::WouldBlock)) => continue,
                Some(Ok(())) if !folder.path().exists() => continue,
                _ => return Ok(Self { folder, _lock: lock }),
            }
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves what is there, if anything still is.
    pub fn keep(self) {
        let _ = self.folder.keep();
    }
}

/// A file under a hidden name in `parent`, as open as any new file there; removed unless it is persisted.
///
/// # Errors
/// The system's refusal.
pub fn partial_file(parent: &Path) -> Result<NamedTempFile> {
    clear_once(parent);
    let mut builder = Builder::new();
    builder.prefix(PARTIAL);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(parent)?;
        match file.as_file().try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Ok(()) if !file.path().exists() => continue,
            _ => return Ok(file),
        }
    }
}

/// Removes from a folder what killed processes left half-written there; what somebody is still writing stays.
///
/// Whatever cannot be looked at or removed stays too: this is housekeeping, and the work goes on without it.
pub fn clear_partial(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PARTIAL));
        let (true, Ok(kind)) = (ours, entry.file_type()) else { continue };
        // Links are not followed, and opening a pipe would block.
        if !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Some(_lock) = File::open(&path).ok().filter(|file| file.try_lock().is_ok()) else { continue };
        // The only copy of what was being replaced: its writer puts it back.
        if kind.is_dir() && path.join(REPLACED).exists() {
            continue;
        }
        let _ = if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}

/// In a partial folder: the one that it replaces, which may be the only copy for an instant.
pub const REPLACED: &str = "replaced";

/// Once for each folder in a process: what this process leaves it clears itself.
fn clear_once(folder: &Path) {
    static CLEARED: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let Ok(absolute) = std::path::absolute(folder) else { return };
    if CLEARED.lock().unwrap_or_else(PoisonError::into_inner).insert(absolute) {
        clear_partial(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_left_goes_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let written = [partial_file(root).unwrap().into_temp_path().to_path_buf()];
        assert!(!written[0].exists(), "dropped");
        let file = partial_file(root).unwrap();
        let inner = PartialFolder::new(root).unwrap();
        std::fs::write(inner.path().join("half"), "").unwrap();
        std::fs::write(root.join(".t2l-partial-left"), "").unwrap();
        std::fs::create_dir_all(root.join(".t2l-partial-dir/deep")).unwrap();
        std::fs::create_dir_all(root.join(".t2l-partial-only/replaced")).unwrap();
        std::fs::write(root.join(".hidden"), "mine").unwrap();
        clear_partial(root);
        let mut expected = [".hidden", ".t2l-partial-only"].map(str::to_owned).to_vec();
        for path in [file.path(), inner.path()] {
            expected.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        expected.sort();
        assert_eq!(names(root), expected);
        assert!(inner.path().join("half").exists());
        drop((file, inner));
        assert_eq!(names(root), [".hidden", ".t2l-partial-only"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("mine"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join(".t2l-partial-link")).unwrap();
        clear_partial(folder.path());
        assert_eq!(names(other.path()), ["mine"]);
        clear_partial(&folder.path().join("missing"));
    }
}
