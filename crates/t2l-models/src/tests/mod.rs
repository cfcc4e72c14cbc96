//! Sources that lie, stall or hold something else; caches that are damaged.

mod hub;
mod pull;
mod server;
mod store;
mod wheel;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

use crate::error::SourceError;
use crate::manifest::{Model, ModelFile, Source};
use crate::settings::Settings;
use crate::{ModelError, Progress};

const CONTENT: &[u8] = b"the weights";
/// Git's id of [`CONTENT`] as a blob.
const GIT_BLOB: &str = "97d17025159f7695d30642af1292ac0ba6831e84";

fn sha256(bytes: &[u8]) -> &'static str {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    Box::leak(hex.into_boxed_str())
}

fn file_of(content: &[u8]) -> &'static ModelFile {
    let (bytes, sha256) = (content.len() as u64, sha256(content));
    Box::leak(Box::new(ModelFile { path: "sub/model.bin", bytes, sha256, git_blob: GIT_BLOB }))
}

fn file() -> &'static ModelFile {
    file_of(CONTENT)
}

fn model(file: &'static ModelFile, sources: &[Source]) -> &'static [Model] {
    let files = std::slice::from_ref(file);
    let sources = Box::leak(sources.to_vec().into_boxed_slice());
    let model = Model {
        name: "m",
        hub_id: "org/m",
        role: "test",
        licence: "MIT",
        notice: None,
        by_default: true,
        files,
        sources,
    };
    Box::leak(vec![model].into_boxed_slice())
}

/// Nothing of the environment, and little patience.
fn settings(endpoint: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        offline: false,
        proxied: false,
        connect: Duration::from_secs(4),
        listing: Duration::from_secs(2),
        stall: Duration::from_secs(1),
        python: "/nonexistent/python".into(),
        pip_stall: Duration::from_secs(1),
    }
}

/// Notes, and the last count of each file.
#[derive(Default)]
struct Heard {
    notes: Vec<String>,
    counts: std::collections::BTreeMap<String, (u64, u64)>,
}

impl Heard {
    fn noted(&self, word: &str) -> bool {
        self.notes.iter().any(|n| n.contains(word))
    }
}

impl Progress for Heard {
    fn advance(&mut self, file: &str, done: u64, total: u64) {
        self.counts.insert(file.to_owned(), (done, total));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn failed(outcome: Result<(), SourceError>) -> String {
    match outcome {
        Err(SourceError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn empty_but_for_folders(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("reads").all(|e| {
        let path = e.expect("an entry").path();
        path.is_dir() && empty_but_for_folders(&path)
    })
}

fn zip_of(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
    let out = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = zip::ZipWriter::new(out.reopen().expect("opens"));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).expect("starts");
        writer.write_all(bytes).expect("writes");
    }
    writer.finish().expect("finishes");
    out
}
