//! Models by the names that manifests and users give them.

use std::path::PathBuf;

use t2l_hypernet::ModelRef;
use t2l_models::{ModelError, Models, Progress};

use crate::Error;

/// How a manifest refers to a model: a name that `t2l models list` shows, a folder, or a file.
pub fn model_ref(models: &Models, name: &str) -> ModelRef {
    match models.known(name) {
        Some(known) => ModelRef {
            id: known.hub_id.to_owned(),
            name: Some(known.name.to_owned()),
            sha256: known.files.first().map(|file| file.sha256.to_owned()),
        },
        None => ModelRef { id: name.to_owned(), name: None, sha256: None },
    }
}

/// Where a model that a manifest names lies; fetched when it is not here.
///
/// # Errors
/// It is neither known nor here, or cannot be fetched.
pub fn fetch(models: &Models, reference: &ModelRef, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
    let name = reference.name.as_deref().unwrap_or(&reference.id);
    match models.resolve(name) {
        Err(ModelError::NotFetched { name }) => Ok(models.pull(name, progress)?),
        other => Ok(other?),
    }
}
