//! Files that appear whole or not at all.

mod partial;
mod publish;

use std::fs::File;
use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};
use std::path::Path;

pub use partial::{PARTIAL, PartialFolder, REPLACED, clear_partial, partial_file};
pub use publish::{Ancestors, publish_new, write_synced};

/// Writes beside `path`, synchronises, and renames over it: a reader sees the old file or the new one, never half of it.
///
/// The file has the permissions that the user's mask leaves a new one.
///
/// # Errors
/// The system's refusal, or something other than a file at `path` (it would be replaced); what was there stays.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::new(ErrorKind::AlreadyExists, "is not a file that could be replaced"));
    }
    let folder = folder_of(path);
    let mut file = partial_file(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// The bytes of a whole file, or an error before more than `limit` of them are held.
///
/// # Errors
/// The system's refusal; [`ErrorKind::FileTooLarge`] for a longer file.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    // What says that it is too long is not read; what says nothing, as a pipe, is read up to the limit.
    if file.metadata()?.len() > limit {
        return Err(too_long(limit));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long(limit)) } else { Ok(bytes) }
}

/// The lines of a text without their ends, or an error before more than `limit` bytes of one are held.
///
/// The errors are the system's, [`ErrorKind::FileTooLarge`] for a longer line, and [`ErrorKind::InvalidData`] for one that
/// is not UTF-8.
pub fn lines_at_most(mut text: impl BufRead, limit: u64) -> impl Iterator<Item = Result<String>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match text.by_ref().take(limit.saturating_add(1)).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        if line.pop_if(|end| *end == b'\n').is_some() {
            line.pop_if(|end| *end == b'\r');
        }
        if line.len() as u64 > limit {
            return Some(Err(too_long(limit)));
        }
        Some(String::from_utf8(line).map_err(|_| Error::new(ErrorKind::InvalidData, "is not UTF-8")))
    })
}

fn too_long(limit: u64) -> Error {
    Error::new(ErrorKind::FileTooLarge, format!("has more than {limit} bytes, the most that it can have"))
}

/// Whether a folder is there and holds something. What a killed process left half-written in it is cleared away and does
/// not count.
///
/// # Errors
/// The system's refusal to list it.
pub fn is_occupied(folder: &Path) -> Result<bool> {
    clear_partial(folder);
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes renames in a folder outlast a power cut, where the system can.
///
/// # Errors
/// The system's refusal.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The same for outputs that have been renamed into place all the same: some file systems cannot synchronise a folder.
pub fn try_sync_folder(folder: &Path) {
    let _ = sync_folder(folder);
}

/// The folder in which a path lies.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_whole(folder.path(), b"one").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(write_whole(&folder.path().join("missing/a.txt"), b"one").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"four").unwrap();
        assert_eq!(read_at_most(&path, 4).unwrap(), b"four");
        assert_eq!(read_at_most(&path, u64::MAX).unwrap(), b"four");
        let error = read_at_most(&path, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("more than 3 bytes"), "{error}");
        assert_eq!(read_at_most(&folder.path().join("none"), 3).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn lines_are_read_up_to_their_bound() {
        let lines = |text: &[u8], limit| -> Vec<std::result::Result<String, ErrorKind>> {
            lines_at_most(text, limit).map(|line| line.map_err(|e| e.kind())).collect()
        };
        let whole = |all: &[&str]| all.iter().map(|line| Ok((*line).to_owned())).collect::<Vec<_>>();
        assert_eq!(lines(b"one\n\r\ntwo\r\nsix", 4), whole(&["one", "", "two", "six"]));
        assert_eq!(lines(b"four\nfour", 4), whole(&["four", "four"]));
        assert_eq!(lines(b"", 4), []);
        assert_eq!(lines(b"four\n", 3)[0], Err(ErrorKind::FileTooLarge));
        assert_eq!(lines(b"\xff\nand", 3), [Err(ErrorKind::InvalidData), Ok("and".to_owned())]);
        assert!(lines_at_most(std::io::BufReader::new(std::io::repeat(b'x')), 1 << 16).next().unwrap().is_err());
    }

    #[test]
    fn a_folder_is_occupied_by_what_somebody_wants() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_occupied(folder.path()).unwrap() && !is_occupied(&folder.path().join("none")).unwrap());
        std::fs::write(folder.path().join(".t2l-partial-left"), "").unwrap();
        assert!(!is_occupied(folder.path()).unwrap());
        std::fs::write(folder.path().join("mine"), "").unwrap();
        assert!(is_occupied(folder.path()).unwrap());
        assert!(is_occupied(&folder.path().join("mine")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        write_whole(&ours, b"one").unwrap();
        std::fs::write(&other, b"one").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&other));
    }

    #[test]
    fn a_bare_name_lies_here() {
        assert_eq!(folder_of(Path::new("a.txt")), Path::new("."));
        assert_eq!(folder_of(Path::new("b/a.txt")), Path::new("b"));
    }
}
