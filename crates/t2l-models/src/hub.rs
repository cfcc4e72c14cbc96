//! The Hugging Face Hub as a source.

use std::fs::File;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::sync::ApiBuilder;
use serde::Deserialize;

use crate::error::SourceError;
use crate::{ModelError, ModelFile, Progress, store};

/// How long the Hub may take to accept a connection, and to answer what a repository holds.
const PATIENCE: Duration = Duration::from_secs(4);

const ENDPOINT: &str = "https://huggingface.co";

#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

/// Fetches the missing files of a model. What the Hub says of each (its published SHA-256, or its size where it
/// publishes no hash) is compared with ours before anything is downloaded.
pub(crate) fn fetch(
    repository: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !v.is_empty() && v != "0") {
        return Err(SourceError::failed("HF_HUB_OFFLINE is set"));
    }
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty()).unwrap_or_else(|| ENDPOINT.to_owned());
    fetch_from(endpoint, repository, files, folder, progress)
}

/// As [`fetch`], from one endpoint.
pub(crate) fn fetch_from(
    endpoint: String,
    repository: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    reach(&endpoint)?;
    let downloads = tempfile::tempdir_in(folder).map_err(ModelError::io(folder))?;
    let api = ApiBuilder::from_env()
        .with_endpoint(endpoint)
        .with_cache_dir(downloads.path().to_owned())
        .with_progress(false)
        .build()
        .map_err(SourceError::failed)?;
    let repository = api.model(repository.to_owned());
    let answer = repository
        .info_request()
        .query("blobs", "true")
        .timeout(PATIENCE)
        .call()
        .map_err(|e| SourceError::failed(brief(&e)))?;
    // A listing is a few hundred kB at most.
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(answer.into_reader(), 16 << 20), &mut text)
        .map_err(SourceError::failed)?;
    let listing: Listing =
        serde_json::from_str(&text).map_err(|e| SourceError::failed(format!("unexpected answer: {e}")))?;
    for file in files {
        let found = listing.siblings.iter().find(|s| s.rfilename == file.path);
        let found = found.ok_or_else(|| SourceError::failed(format!("has no file {}", file.path)))?;
        match (&found.lfs, found.size) {
            (Some(lfs), _) if lfs.sha256 != file.sha256 => {
                return Err(SourceError::failed(format!(
                    "{} is published with SHA-256 {}, expected {}",
                    file.path, lfs.sha256, file.sha256
                )));
            }
            (None, Some(size)) if size != file.bytes => {
                return Err(SourceError::failed(format!(
                    "{} is published with {size} bytes, expected {}",
                    file.path, file.bytes
                )));
            }
            _ => {}
        }
    }
    for file in files {
        progress.note(&format!("downloading {}", file.path));
        let meter = Meter { progress: &mut *progress, file, done: 0 };
        let path = repository.download_with_progress(file.path, meter).map_err(SourceError::failed)?;
        let mut reader = File::open(&path).map_err(ModelError::io(&path))?;
        store::install(&mut reader, file, folder, progress)?;
    }
    Ok(())
}

/// Connects once, so that a machine without the Hub knows within seconds.
fn reach(endpoint: &str) -> Result<(), SourceError> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest).to_owned();
    let port = if endpoint.starts_with("http://") { 80 } else { 443 };
    let address = if host.contains(':') { host.clone() } else { format!("{host}:{port}") };
    let (sender, receiver) = mpsc::channel();
    // Looking a name up cannot be given a limit, so it is done aside and left behind when it takes too long.
    std::thread::spawn(move || {
        let connect = || -> std::io::Result<()> {
            let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(_) => return Ok(()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        };
        let _ = sender.send(connect());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(SourceError::failed(format!("{host} cannot be reached: {e}"))),
        Err(_) => Err(SourceError::failed(format!("{host} does not answer within {} s", PATIENCE.as_secs()))),
    }
}

fn brief(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

struct Meter<'a> {
    progress: &'a mut dyn Progress,
    file: &'a ModelFile,
    done: u64,
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.progress.advance(self.file.path, self.done, self.file.bytes);
    }

    fn finish(&mut self) {}
}
