//! What tells one encoder's folder from another's, and from itself after a change.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::EncoderError;

/// Folders below a model's own that are looked into: its modules'.
const DEPTH: usize = 1;

/// SHA-256 of an encoder's weights, in hexadecimal: of the file itself, else of the folder's model.safetensors, else of
/// its index of shards. `None` for a folder that has neither.
///
/// # Errors
/// A file that cannot be read.
pub fn weights_sha256(path: &Path) -> Result<Option<String>, EncoderError> {
    let named = ["model.safetensors", "model.safetensors.index.json"].map(|name| path.join(name));
    let file = if path.is_file() { Some(path.to_owned()) } else { named.into_iter().find(|file| file.is_file()) };
    let Some(file) = file else { return Ok(None) };
    Ok(Some(contents(&file)?.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// 16 hexadecimal digits that follow from an encoder's id and its files: weights, vocabulary and settings.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn fingerprint(id: &str, folder: &Path) -> Result<String, EncoderError> {
    let mut paths = Vec::new();
    if folder.is_file() {
        paths.push(folder.to_owned());
    } else {
        collect(folder, DEPTH, &mut paths)?;
    }
    paths.sort();
    let mut hasher = Sha256::new().chain_update(id.as_bytes());
    for path in paths {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        hasher.update([0]);
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update(contents(&path)?);
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Files that an encoder is read from; other formats of the same weights do not count.
fn collect(folder: &Path, depth: usize, into: &mut Vec<PathBuf>) -> Result<(), EncoderError> {
    for entry in std::fs::read_dir(folder).map_err(|e| EncoderError::io(folder, e))? {
        let path = entry.map_err(|e| EncoderError::io(folder, e))?.path();
        let read =
            path.extension().is_some_and(|e| ["safetensors", "json", "txt", "jinja"].iter().any(|known| e == *known));
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, into)?;
            }
        } else if read {
            into.push(path);
        }
    }
    Ok(())
}

/// SHA-256 of a file, read piece by piece.
fn contents(path: &Path) -> Result<[u8; 32], EncoderError> {
    let mut file = File::open(path).map_err(|e| EncoderError::io(path, e))?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut piece).map_err(|e| EncoderError::io(path, e))?;
        if read == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(piece.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_or_another_byte_gives_another_fingerprint() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        std::fs::create_dir(folder.path().join("1_Pooling")).expect("a folder");
        write("model.safetensors", "weights");
        write("1_Pooling/config.json", "{}");
        let of = |id: &str| fingerprint(id, folder.path()).expect("reads");
        let first = of("one");
        assert_eq!((first.len(), &first), (16, &of("one")));
        assert_ne!(first, of("two"));
        write("model.onnx", "the same weights");
        assert_eq!(first, of("one"));
        write("1_Pooling/config.json", "{ }");
        let pooled = of("one");
        assert_ne!(first, pooled);
        write("model.safetensors", "weightz");
        assert_ne!(pooled, of("one"));
        assert!(fingerprint("one", &folder.path().join("none")).is_err());
        let file = |name: &str| fingerprint("one", &folder.path().join(name)).expect("reads");
        assert_ne!(file("model.onnx"), file("model.safetensors"));
    }

    #[test]
    fn weights_are_a_file_or_what_a_folder_calls_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |path: &Path| weights_sha256(path).expect("reads");
        assert_eq!(of(folder.path()), None);
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, "abc").expect("written");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((of(folder.path()).as_deref(), of(&file).as_deref()), (Some(known), Some(known)));
    }
}
