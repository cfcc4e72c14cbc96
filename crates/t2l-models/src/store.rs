//! Putting one file in its place: written aside, hashed on the way, renamed when it is the right one.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::SourceError;
use crate::{ModelError, ModelFile, Progress};

/// Copies `reader` to the file's place in `folder`. A wrong size or hash discards what came and is reported.
pub(crate) fn install(
    reader: &mut dyn Read,
    file: &ModelFile,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let target = folder.join(file.path);
    let parent = target.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(ModelError::io(parent))?;
    let part = part_of(&target);
    let outcome = copy(reader, file, &part, progress);
    match outcome {
        Ok(sha256) if sha256 == file.sha256 => {
            std::fs::rename(&part, &target).map_err(ModelError::io(&target))?;
            Ok(())
        }
        Ok(sha256) => {
            let _ = std::fs::remove_file(&part);
            let reason = format!("{} has SHA-256 {sha256}, expected {}; discarded", file.path, file.sha256);
            progress.note(&reason);
            Err(SourceError::Failed(reason))
        }
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

/// Passes on what is worth a line, and no counts.
pub(crate) struct NotesOnly<'a>(pub(crate) &'a mut dyn Progress);

impl Progress for NotesOnly<'_> {
    fn advance(&mut self, _: &str, _: u64, _: u64) {}

    fn note(&mut self, text: &str) {
        self.0.note(text);
    }
}

/// Holds the folder for this process until dropped; another that has it is waited for.
pub(crate) fn lock(folder: &Path, progress: &mut dyn Progress) -> Result<File, ModelError> {
    let path = folder.join(".lock");
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(ModelError::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("waiting for another process that fills {}", folder.display()));
            file.lock().map_err(ModelError::io(&path))?;
        }
        // Some network file systems have no locks; what is installed is whole even so.
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(ModelError::io(&path)(e)),
    }
    Ok(file)
}

/// Bytes of all files in a folder and its folders; what vanishes meanwhile counts nothing.
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => open.push(entry.path()),
                Ok(about) => bytes += about.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

fn part_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    target.with_file_name(name)
}

fn copy(
    reader: &mut dyn Read,
    file: &ModelFile,
    part: &Path,
    progress: &mut dyn Progress,
) -> Result<String, SourceError> {
    let mut out = File::create(part).map_err(ModelError::io(part))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut done = 0u64;
    // One byte more than expected is enough to know that it is not this file.
    let mut reader = reader.take(file.bytes + 1);
    loop {
        let count = reader.read(&mut buffer).map_err(SourceError::failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(ModelError::io(part))?;
        done += count as u64;
        progress.advance(file.path, done, file.bytes);
    }
    if done != file.bytes {
        let more = if done > file.bytes { "more than " } else { "" };
        let reason =
            format!("{} has {more}{} bytes, expected {}; discarded", file.path, done.min(file.bytes), file.bytes);
        progress.note(&reason);
        return Err(SourceError::Failed(reason));
    }
    out.sync_all().map_err(ModelError::io(part))?;
    Ok(hex(&hasher.finalize()))
}

/// Whether a file in the cache is the right one, by its contents.
pub(crate) fn verify(path: &Path, file: &ModelFile) -> Result<bool, ModelError> {
    let mut reader = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(ModelError::io(path)(e)),
    };
    if reader.metadata().map_err(ModelError::io(path))?.len() != file.bytes {
        return Ok(false);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    loop {
        let count = reader.read(&mut buffer).map_err(ModelError::io(path))?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()) == file.sha256);
        }
        hasher.update(&buffer[..count]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
