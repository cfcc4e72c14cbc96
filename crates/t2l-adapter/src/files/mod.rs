//! Small careful steps on the file system: what is read is bounded, what is written appears whole or not at all.

mod folder;
mod whole;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(crate) use folder::{publish, publish_new};
pub(crate) use whole::write_whole;

use crate::AdapterError;

/// Opens a plain file and says how long it is; pipes and folders are refused before they can block.
pub(crate) fn open(path: &Path) -> Result<(File, u64), AdapterError> {
    let about = std::fs::metadata(path).map_err(AdapterError::io(path))?;
    if !about.is_file() {
        return Err(AdapterError::io(path)(std::io::Error::other("is not a plain file")));
    }
    let file = File::open(path).map_err(AdapterError::io(path))?;
    let bytes = file.metadata().map_err(AdapterError::io(path))?.len();
    Ok((file, bytes))
}

/// The bytes of a file that must not be longer than `limit`.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, AdapterError> {
    let (file, length) = open(path)?;
    let too_long = || AdapterError::Config { path: path.to_owned(), reason: format!("is longer than {limit} bytes") };
    if length > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(AdapterError::io(path))?;
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
}

/// Makes a folder's entries durable where the system has a way to.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        // Some file systems cannot sync a folder; the rename has happened all the same.
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}
