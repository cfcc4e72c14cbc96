//! Small careful steps on the file system: what is read is bounded, what is written appears whole or not at all.

mod folder;
mod whole;

use std::fs::File;
use std::path::Path;

pub(crate) use folder::publish;
use t2l_core::files::read_at_most;
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

/// The bytes of a plain file that must not be longer than `limit`.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, AdapterError> {
    open(path)?;
    read_at_most(path, limit).map_err(AdapterError::io(path))
}
