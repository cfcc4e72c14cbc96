//! Files that appear whole or not at all and are read up to a bound, and digests of them.

use std::io::{Error, ErrorKind};
use std::path::Path;

use sha2::{Digest, Sha256};
use t2l_core::files;
use t2l_data::Corpus;

use crate::TrainError;

/// Writes beside `path`, synchronises, and renames over it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    files::write_whole(path, bytes).map_err(TrainError::io(path))
}

/// Bytes of the longest configuration that is read, and of the longest file beside one.
pub const SMALL: u64 = 1 << 20;
/// Bytes of the longest record of a run that is drawn: millions of steps.
pub const METRICS: u64 = 1 << 30;

/// The text of a file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String, TrainError> {
    let bytes = files::read_at_most(path, limit).map_err(TrainError::io(path))?;
    String::from_utf8(bytes).map_err(|_| TrainError::io(path)(Error::new(ErrorKind::InvalidData, "is not UTF-8")))
}

/// Digest of the tokenised examples of a corpus.
pub fn corpus_digest(corpus: &Corpus) -> String {
    const END: &[u8] = &[0xff; 4];
    digest(corpus.examples().flat_map(|(name, e)| {
        [name.as_bytes(), END, bytemuck::cast_slice(&e.prompt), END, bytemuck::cast_slice(&e.response), END]
    }))
}

/// SHA-256 of the parts one after another, in hexadecimal.
pub fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
