//! One file that appears whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use t2l_core::files::{Ancestors, folder_of, partial_file, try_sync_folder};

use crate::AdapterError;

/// Lets `write` fill a hidden file beside `path`, then renames it into place; folders on the way are made.
///
/// A file that is there already is an error, or is replaced when `force` says so.
pub(crate) fn write_whole(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), AdapterError>,
) -> Result<(), AdapterError> {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => {
            return Err(AdapterError::io(path)(std::io::Error::other("is a folder, not a file")));
        }
        Ok(_) if !force => return Err(AdapterError::Exists { path: path.to_owned() }),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(AdapterError::io(path)(e)),
        _ => {}
    }
    let parent = folder_of(path);
    let made = Ancestors::make(parent).map_err(AdapterError::io(parent))?;
    let mut aside = partial_file(parent).map_err(AdapterError::io(parent))?;
    let mut file = BufWriter::new(aside.as_file_mut());
    write(&mut file)?;
    file.flush().map_err(AdapterError::io(path))?;
    drop(file);
    aside.as_file().sync_all().map_err(AdapterError::io(path))?;
    match if force { aside.persist(path) } else { aside.persist_noclobber(path) } {
        Ok(_) => {}
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(AdapterError::Exists { path: path.to_owned() });
        }
        Err(e) => return Err(AdapterError::io(path)(e.error)),
    }
    try_sync_folder(parent);
    made.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, force: bool, text: &str) -> Result<(), AdapterError> {
        write_whole(path, force, |file| file.write_all(text.as_bytes()).map_err(AdapterError::io(path)))
    }

    #[test]
    fn a_file_is_replaced_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.txt");
        put(&path, false, "one").unwrap();
        assert!(matches!(put(&path, false, "two"), Err(AdapterError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        put(&path, true, "three").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        assert!(put(folder.path(), true, "four").unwrap_err().to_string().ends_with("is a folder, not a file"));
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.txt");
        let failed = write_whole(&path, false, |file| {
            file.write_all(b"half").unwrap();
            Err(AdapterError::weights(&path, "stopped"))
        });
        assert_eq!(failed.unwrap_err().to_string(), format!("{}: stopped", path.display()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
