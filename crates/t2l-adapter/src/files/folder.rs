//! Files that appear in a folder together or not at all.

use std::path::{Path, PathBuf};

use t2l_core::files::{PartialFolder, folder_of, is_occupied, try_sync_folder};

use crate::AdapterError;

/// Lets `write` put files of the given names into a hidden folder, then moves them to where they belong.
///
/// A folder that does not exist yet is renamed into place whole. In one that exists, these files alone are replaced, and
/// put back should that fail; the first of them, which makes sense of the others, goes first and comes last, so that no
/// moment pairs it with those of another adapter.
pub(crate) fn publish(
    folder: &Path,
    names: &[&str],
    force: bool,
    write: impl FnOnce(&Path) -> Result<(), AdapterError>,
) -> Result<(), AdapterError> {
    if is_occupied(folder).map_err(AdapterError::io(folder))? && !force {
        return Err(AdapterError::NotEmpty { path: folder.to_owned() });
    }
    if !folder.exists() {
        return publish_new(folder, write);
    }
    let aside = hidden_folder(folder)?;
    write(aside.path())?;
    replace(folder, aside.path(), names)?;
    try_sync_folder(folder);
    Ok(())
}

/// Lets `write` fill a hidden folder, then renames it into place. There must be nothing yet, or an empty folder.
pub(crate) fn publish_new(
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<(), AdapterError>,
) -> Result<(), AdapterError> {
    let parent = folder_of(folder);
    let made = Ancestors::make(parent)?;
    let aside = hidden_folder(parent)?;
    write(aside.path())?;
    try_sync_folder(aside.path());
    std::fs::rename(aside.path(), folder).map_err(AdapterError::io(folder))?;
    try_sync_folder(parent);
    // The one has been moved away, the other is wanted: nothing is left to clean up.
    aside.keep();
    made.keep();
    Ok(())
}

fn hidden_folder(parent: &Path) -> Result<PartialFolder, AdapterError> {
    PartialFolder::new(parent).map_err(AdapterError::io(parent))
}

fn replace(folder: &Path, aside: &Path, names: &[&str]) -> Result<(), AdapterError> {
    let old = |name: &str| aside.join(format!("old-{name}"));
    let mut steps: Vec<(PathBuf, PathBuf)> = vec![];
    for name in names {
        if folder.join(name).symlink_metadata().is_ok() {
            steps.push((folder.join(name), old(name)));
        }
    }
    for name in names.iter().rev() {
        steps.push((aside.join(name), folder.join(name)));
    }
    let mut done: Vec<&(PathBuf, PathBuf)> = vec![];
    for step in &steps {
        if let Err(error) = std::fs::rename(&step.0, &step.1) {
            for (from, to) in done.into_iter().rev() {
                let _ = std::fs::rename(to, from);
            }
            return Err(AdapterError::io(&step.1)(error));
        }
        done.push(step);
    }
    Ok(())
}

/// Folders made on the way to the target, removed again unless kept.
pub(super) struct Ancestors(Vec<PathBuf>);

impl Ancestors {
    pub(super) fn make(folder: &Path) -> Result<Self, AdapterError> {
        let missing = folder.ancestors().take_while(|a| *a != Path::new("") && !a.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        std::fs::create_dir_all(folder).map_err(AdapterError::io(folder))?;
        Ok(made)
    }

    pub(super) fn keep(mut self) {
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
