//! Configuration files, and what paths in them count from.

use std::path::{Component, Path, PathBuf};

use super::{TrainConfig, Trainer};
use crate::{TrainError, files};

impl TrainConfig {
    /// Reads and checks a configuration file for a trainer. Relative paths in it count from the file's folder; a model
    /// is a path where there is a file or folder of that name.
    ///
    /// # Errors
    /// Not readable, too long, not TOML, an unknown key, or a value out of range.
    pub fn load(path: &Path, trainer: Trainer) -> Result<Self, TrainError> {
        let text = files::read_text(path, files::SMALL)?;
        let config =
            Self::parse(&text, trainer).map_err(|reason| TrainError::Config { path: path.to_owned(), reason })?;
        let file = std::path::absolute(path).map_err(TrainError::io(path))?;
        let config = config.seen_from(file.parent().unwrap_or(&file));
        config.check()?;
        Ok(config)
    }

    /// The same with every relative path joined to a folder, so that it means the same wherever it is read.
    pub(crate) fn seen_from(mut self, folder: &Path) -> Self {
        self.data.dir = folder.join(&self.data.dir);
        self.data.extra_dir = self.data.extra_dir.map(|path| folder.join(path));
        self.hypernet.multitask = self.hypernet.multitask.map(|path| folder.join(path));
        self.recon.library = folder.join(&self.recon.library);
        self.run.start_from = self.run.start_from.map(|path| folder.join(path));
        self.model.base = model(folder, self.model.base);
        self.model.encoder = model(folder, self.model.encoder);
        self
    }

    /// The same with files and folders by their names alone: a recipe says nothing of where it was followed.
    pub(crate) fn by_name(mut self) -> Self {
        self.data.dir = name(&self.data.dir);
        self.data.extra_dir = self.data.extra_dir.as_deref().map(name);
        self.recon.library = name(&self.recon.library);
        self.hypernet.multitask = self.hypernet.multitask.as_deref().map(name);
        self.run.start_from = self.run.start_from.as_deref().map(name);
        for model in [&mut self.model.base, &mut self.model.encoder] {
            if Path::new(model).is_absolute() {
                *model = name(Path::new(model)).display().to_string();
            }
        }
        self
    }
}

/// The last name of a path, with that of the run where it is a run's `last` or `best`.
fn name(path: &Path) -> PathBuf {
    let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let count = if path.ends_with("last") || path.ends_with("best") { 2 } else { 1 };
    names[names.len().saturating_sub(count)..].iter().collect()
}

/// A model's path, or its name where no such path is.
fn model(folder: &Path, name: String) -> String {
    let path: PathBuf = folder.join(&name);
    match path.to_str() {
        Some(there) if !name.is_empty() && path.exists() => there.to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_count_from_the_files_folder_and_mean_the_same_in_a_resolved_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("models/mine")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("run")).expect("a folder");
        let (file, resolved) = (folder.path().join("config.toml"), folder.path().join("run/config.toml"));
        let text = "[data]\ndir = \"tasks\"\nextra_dir = \"derived\"\n[model]\nbase = \"models/mine\"\nencoder = \"all-minilm-l6-v2\"\n[run]\nstart_from = \"start\"";
        std::fs::write(&file, text).expect("written");
        let config = TrainConfig::load(&file, Trainer::Sft).expect("loads");
        assert_eq!(config.data.dir, folder.path().join("tasks"));
        assert_eq!(config.data.extra_dir, Some(folder.path().join("derived")));
        assert_eq!(config.recon.library, folder.path().join("library"));
        assert_eq!(config.run.start_from, Some(folder.path().join("start")));
        assert_eq!(Path::new(&config.model.base), folder.path().join("models/mine"));
        assert_eq!(config.model.encoder, "all-minilm-l6-v2");
        let named = config.clone().by_name();
        assert_eq!(named.data.dir, Path::new("tasks"));
        assert_eq!(named.recon.library, Path::new("library"));
        assert_eq!(named.run.start_from, Some("start".into()));
        assert_eq!(name(Path::new("/home/me/my-run/last")), Path::new("my-run/last"));
        assert_eq!([named.model.base.as_str(), &named.model.encoder], ["mine", "all-minilm-l6-v2"]);
        let text = serde_json::to_string(&named).expect("serialises");
        assert!(!text.contains(&*folder.path().parent().expect("a parent").to_string_lossy()), "{text}");
        std::fs::write(&resolved, toml::to_string_pretty(&config).expect("serialises")).expect("written");
        assert_eq!(TrainConfig::load(&resolved, Trainer::Sft).expect("loads"), config);
    }

    #[test]
    fn a_file_named_without_its_folder_gives_absolute_paths() {
        // Cargo runs tests in the package's folder.
        let error = TrainConfig::load(Path::new("no-such.toml"), Trainer::Sft).expect_err("is not there");
        assert!(error.to_string().starts_with("no-such.toml"), "{error}");
        let file = tempfile::Builder::new().suffix(".toml").tempfile_in(".").expect("a file");
        let name = Path::new(file.path().file_name().expect("a name"));
        let config = TrainConfig::load(name, Trainer::Sft).expect("loads");
        assert!(config.data.dir.is_absolute(), "{}", config.data.dir.display());
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 33).expect("a sparse file");
        let error = TrainConfig::load(file.path(), Trainer::Sft).expect_err("is too long").to_string();
        assert!(
            error.contains(&*file.path().to_string_lossy()) && error.contains("more than 1048576 bytes"),
            "{error}"
        );
    }
}
