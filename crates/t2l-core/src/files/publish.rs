//! Folders that appear whole or not at all.

use std::fs::File;
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};

use super::{PartialFolder, folder_of, try_sync_folder};

/// Lets `write` fill a hidden folder, then renames it into place; folders on the way are made, and removed again should
/// anything fail. There must be nothing yet, or an empty folder.
///
/// # Errors
/// What `write` returns; the system's refusals, which `refused` gives the path they are about.
pub fn publish_new<E>(
    folder: &Path,
    refused: impl Fn(&Path, Error) -> E,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let parent = folder_of(folder);
    let made = Ancestors::make(parent).map_err(|e| refused(parent, e))?;
    let aside = PartialFolder::new(parent).map_err(|e| refused(parent, e))?;
    write(aside.path())?;
    try_sync_folder(aside.path());
    std::fs::rename(aside.path(), folder).map_err(|e| refused(folder, e))?;
    try_sync_folder(parent);
    // The one has been moved away, the other is wanted: nothing is left to clean up.
    aside.keep();
    made.keep();
    Ok(())
}

/// Writes a file of a folder that is not yet in its place, and synchronises it.
///
/// # Errors
/// The system's refusal.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Folders made on the way to the target, removed again unless kept.
#[derive(Debug)]
pub struct Ancestors(Vec<PathBuf>);

impl Ancestors {
    /// Makes a folder and those above it that are missing.
    ///
    /// # Errors
    /// The system's refusal; what was made until then is removed again.
    pub fn make(folder: &Path) -> Result<Self> {
        let missing = folder.ancestors().take_while(|a| *a != Path::new("") && !a.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        std::fs::create_dir_all(folder)?;
        Ok(made)
    }

    /// Leaves them.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Ancestors {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that somebody else has put something into stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_whole_or_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b/new");
        let publish = |fail: bool| {
            publish_new(
                &folder,
                |path, error| format!("{}: {error}", path.display()),
                |aside| {
                    write_synced(&aside.join("one"), b"1").map_err(|e| e.to_string())?;
                    if fail { Err("no".to_owned()) } else { Ok(()) }
                },
            )
        };
        assert_eq!(publish(true), Err("no".to_owned()));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing was left on the way");
        publish(false).unwrap();
        assert_eq!(std::fs::read(folder.join("one")).unwrap(), b"1");
        assert!(publish(false).unwrap_err().starts_with(&folder.display().to_string()), "what is there stays");
        assert_eq!(std::fs::read_dir(root.path().join("a/b")).unwrap().count(), 1);
    }
}
