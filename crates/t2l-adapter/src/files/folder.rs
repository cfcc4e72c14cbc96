//! Files that appear in a folder together or not at all.

use std::path::{Path, PathBuf};

use t2l_core::files::{PartialFolder, is_occupied, publish_new, try_sync_folder};

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
        return publish_new(folder, |path, e| AdapterError::io(path)(e), write);
    }
    let aside = PartialFolder::new(folder).map_err(AdapterError::io(folder))?;
    write(aside.path())?;
    replace(folder, aside.path(), names)?;
    try_sync_folder(folder);
    Ok(())
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
