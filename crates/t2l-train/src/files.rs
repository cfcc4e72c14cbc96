//! Files that appear whole or not at all, and digests of them.

use std::path::Path;

use sha2::{Digest, Sha256};
use t2l_core::files;

use crate::TrainError;

/// Writes beside `path`, synchronises, and renames over it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    files::write_whole(path, bytes).map_err(TrainError::io(path))
}

/// Makes renames in a folder outlast a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    files::sync_folder(folder).map_err(TrainError::io(folder))
}

/// SHA-256 of the parts one after another, in hexadecimal.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
