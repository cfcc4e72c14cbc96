//! The metrics file: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TrainError;

/// An append-only JSON Lines file that can be wound back to where a checkpoint was made.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens `path`, keeping its first `keep` bytes.
    ///
    /// # Errors
    /// The file cannot be opened, or is shorter than `keep`.
    pub fn open(path: &Path, keep: u64) -> Result<Self, TrainError> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(TrainError::io(path))?;
        let length = file.metadata().map_err(TrainError::io(path))?.len();
        if length < keep {
            return Err(TrainError::State {
                path: path.to_owned(),
                reason: format!("has {length} bytes, the checkpoint was made at {keep}"),
            });
        }
        file.set_len(keep).map_err(TrainError::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(TrainError::io(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one object.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, entry: Map<String, Value>) -> Result<(), TrainError> {
        let mut line = Value::Object(entry).to_string();
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(TrainError::io(&self.path))
    }

    /// Length in bytes, everything written.
    ///
    /// # Errors
    /// The file cannot be synchronised.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.file.sync_data().map_err(TrainError::io(&self.path))?;
        Ok(self.file.metadata().map_err(TrainError::io(&self.path))?.len())
    }
}
