//! Saving: both files are written aside and synced, then the whole folder takes its place.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::Path;

use half::bf16;
use safetensors::tensor::TensorView;
use t2l_core::files::{PARTIAL, PartialFolder, REPLACED, folder_of, try_sync_folder, write_synced};

use super::{Checkpoint, Dtype, MANIFEST, Manifest, VERSION, WEIGHTS, sha256};
use crate::HypernetError;

impl Checkpoint {
    /// Writes a folder, in place of an earlier checkpoint if there is one. Returns the SHA-256 of the weights.
    ///
    /// A reader finds the old checkpoint or the new one, never a mixture or a part. (Between two renames it finds
    /// none for an instant; a process killed right there leaves both, whole, in a folder `.t2l-partial-*` beside, from
    /// which the next save of this checkpoint puts the old one back first.)
    ///
    /// # Errors
    /// Values that are not finite, files that cannot be written, or a folder that holds anything but a checkpoint;
    /// what was there stays as it was.
    pub fn save(&self, folder: &Path, dtype: Dtype) -> Result<String, HypernetError> {
        if folder.file_name().is_none() {
            return Err(HypernetError::io(folder)(Error::new(ErrorKind::InvalidInput, "does not name a folder")));
        }
        let parent = folder_of(folder);
        let tag = tag(folder);
        put_back(folder, parent, &tag);
        check_replaceable(folder)?;
        let weights = self.serialize(&folder.join(WEIGHTS), dtype)?;
        let weights_sha256 = sha256(&weights);
        let manifest = Manifest {
            version: VERSION,
            config: self.hypernet.config.clone(),
            weights_sha256: weights_sha256.clone(),
            ..self.manifest.clone()
        };
        let mut manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| HypernetError::Manifest { path: folder.join(MANIFEST), reason: e.to_string() })?;
        manifest.push(b'\n');

        std::fs::create_dir_all(parent).map_err(HypernetError::io(parent))?;
        // Removed at the end whatever happens, with whatever is still in it.
        let aside = PartialFolder::tagged(parent, &tag).map_err(HypernetError::io(parent))?;
        let fresh = aside.path().join("new");
        std::fs::create_dir(&fresh).map_err(HypernetError::io(&fresh))?;
        for (name, bytes) in [(WEIGHTS, &weights), (MANIFEST, &manifest)] {
            let path = fresh.join(name);
            write_synced(&path, bytes).map_err(HypernetError::io(&path))?;
        }
        try_sync_folder(&fresh);
        if folder.exists() {
            let old = aside.path().join(REPLACED);
            std::fs::rename(folder, &old).map_err(HypernetError::io(folder))?;
            if let Err(error) = std::fs::rename(&fresh, folder) {
                if std::fs::rename(&old, folder).is_err() {
                    // Neither way is open: keep both copies rather than remove the only one.
                    aside.keep();
                }
                return Err(HypernetError::io(folder)(error));
            }
        } else {
            std::fs::rename(&fresh, folder).map_err(HypernetError::io(folder))?;
        }
        try_sync_folder(parent);
        Ok(weights_sha256)
    }

    fn serialize(&self, path: &Path, dtype: Dtype) -> Result<Vec<u8>, HypernetError> {
        let all = self.hypernet.parameters.iter().chain(self.hypernet.buffers.iter());
        let tensors = all.map(|(name, p)| {
            let values: Vec<f32> = p.values.to_data().iter().collect();
            let stored = |x: f32| if dtype == Dtype::Bf16 { bf16::from_f32(x).to_f32() } else { x };
            if let Some((i, x)) = values.iter().enumerate().find(|(_, x)| !stored(**x).is_finite()) {
                return Err(HypernetError::tensor(path, name, format!("value {i} is {x} and cannot be stored")));
            }
            let bytes: Vec<u8> = match dtype {
                Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Dtype::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            };
            Ok((name, p.shape.clone(), bytes))
        });
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let dtype = match dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        };
        let error =
            |e: safetensors::SafeTensorError| HypernetError::Weights { path: path.to_owned(), reason: e.to_string() };
        let views =
            tensors.iter().map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes)?)));
        safetensors::serialize(views.collect::<Result<Vec<_>, _>>().map_err(error)?, None).map_err(error)
    }
}

/// What the hidden name of a checkpoint in the making goes on with; nothing where the name would become too long.
fn tag(folder: &Path) -> String {
    let name = folder.file_name().and_then(|name| name.to_str()).filter(|name| name.len() <= 64);
    name.map_or_else(String::new, |name| format!("{name}-"))
}

/// Puts right what a save of this checkpoint left that was killed between its two renames.
fn put_back(folder: &Path, parent: &Path, tag: &str) {
    if tag.is_empty() {
        return;
    }
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|n| n.strip_prefix(PARTIAL)?.strip_prefix(tag));
        let aside = entry.path();
        let replaced = aside.join(REPLACED);
        // A longer rest is that of a checkpoint whose name begins like this one's.
        if rest.is_none_or(|rest| rest.contains('-')) || !replaced.is_dir() {
            continue;
        }
        // What another process is writing stays.
        let Some(_lock) = File::open(&aside).ok().filter(|file| file.try_lock().is_ok()) else { continue };
        if folder.exists() || std::fs::rename(&replaced, folder).is_ok() {
            let _ = std::fs::remove_dir_all(&aside);
        }
    }
}

/// Whether nothing is lost when a checkpoint takes this folder's place.
fn check_replaceable(folder: &Path) -> Result<(), HypernetError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HypernetError::io(folder)(error)),
    };
    for entry in entries {
        let name = entry.map_err(HypernetError::io(folder))?.file_name();
        if name != MANIFEST && name != WEIGHTS {
            let words = format!("holds {}, which a checkpoint in its place would remove", name.display());
            return Err(HypernetError::io(folder)(Error::new(ErrorKind::AlreadyExists, words)));
        }
    }
    Ok(())
}
