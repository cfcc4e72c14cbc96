//! Weight files as read-only memory, so that a model larger than RAM can be read piece by piece.

use std::{fs::File, io, path::Path};

use memmap2::Mmap;

/// Maps a whole file for reading. An empty file maps to no bytes.
///
/// # Errors
/// A file that cannot be opened, or that is none.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    // SAFETY: the mapping is private to this process and never written. What remains is that another
    // program could shorten or rewrite the file while it is read; model files are written once and
    // then only read, and every reader accepts any bytes it may find there.
    unsafe { Mmap::map(&file) }
}
