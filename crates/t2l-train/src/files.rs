//! Files that appear whole or not at all, and digests of them.

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::TrainError;

/// Writes beside `path`, synchronises, and renames over it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(TrainError::io(folder))?;
    file.write_all(bytes).map_err(TrainError::io(path))?;
    file.as_file().sync_all().map_err(TrainError::io(path))?;
    file.persist(path).map_err(|e| TrainError::io(path)(e.error))?;
    sync_folder(folder)
}

/// Makes renames in a folder outlast a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    std::fs::File::open(folder).and_then(|d| d.sync_all()).map_err(TrainError::io(folder))
}

/// SHA-256 of the parts one after another, in hexadecimal.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
