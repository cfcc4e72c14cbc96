//! The Hugging Face Hub as a source.
//!
//! What the Hub publishes of each file is compared with ours before anything is downloaded. The client's own work runs
//! aside and is watched: one that stalls, sends too much or breaks off is given up, and what had come is resumed by the
//! next pull.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use serde::Deserialize;

use crate::error::SourceError;
use crate::settings::Settings;
use crate::store::{self, bytes_below};
use crate::{ModelError, ModelFile, Progress};

/// Inside a model's folder: what has come from the Hub and is not in its place yet.
pub(crate) const DOWNLOADS: &str = ".hub";
/// A listing is a few hundred kB at most.
const LISTING_LIMIT: u64 = 16 << 20;
/// A connection that breaks off is tried again so many times; each goes on where the last one ended.
const ATTEMPTS: usize = 3;

#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

/// Fetches the missing files of a model.
pub(crate) fn fetch(
    settings: &Settings,
    repository: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    if settings.offline {
        return Err(SourceError::failed("HF_HUB_OFFLINE is set"));
    }
    if !settings.proxied {
        reach(&settings.endpoint, settings.connect)?;
    }
    let downloads = folder.join(DOWNLOADS);
    std::fs::create_dir_all(&downloads).map_err(ModelError::io(&downloads))?;
    let api = ApiBuilder::from_env()
        .with_endpoint(settings.endpoint.clone())
        .with_cache_dir(downloads.clone())
        .with_progress(false)
        .build()
        .map_err(SourceError::failed)?;
    compare(&listing(&api, repository, settings.listing)?, files)?;
    for file in files {
        progress.note(&format!("downloading {}", file.path));
        let path = download(&api, repository, file, settings.stall, &downloads, progress)?;
        let mut reader = File::open(&path).map_err(ModelError::io(&path))?;
        // Its bytes have been counted once.
        let installed = store::install(&mut reader, file, folder, &mut store::NotesOnly(progress));
        if let Err(error) = installed {
            // What is wrong must not be resumed.
            let _ = std::fs::remove_dir_all(&downloads);
            return Err(error);
        }
    }
    let _ = std::fs::remove_dir_all(&downloads);
    Ok(())
}

fn listing(api: &Api, repository: &str, patience: Duration) -> Result<Listing, SourceError> {
    let request = api.model(repository.to_owned()).info_request().query("blobs", "true").timeout(patience);
    let answer = request.call().map_err(|e| SourceError::failed(brief(&e)))?;
    let mut text = String::new();
    answer.into_reader().take(LISTING_LIMIT).read_to_string(&mut text).map_err(|e| SourceError::failed(brief(&e)))?;
    serde_json::from_str(&text).map_err(|e| SourceError::failed(format!("unexpected answer: {e}")))
}

/// Every file must be published with our hash: SHA-256 of large ones, Git's id of small ones.
fn compare(listing: &Listing, files: &[&ModelFile]) -> Result<(), SourceError> {
    for file in files {
        let wrong = |reason: String| SourceError::failed(format!("{} {reason}", file.path));
        let found = listing.siblings.iter().find(|s| s.rfilename == file.path);
        let found = found.ok_or_else(|| wrong("is not published there".into()))?;
        let (kind, published, ours) = match (&found.lfs, &found.blob_id) {
            (Some(lfs), _) => ("SHA-256", &lfs.sha256, file.sha256),
            (None, Some(id)) => ("Git id", id, file.git_blob),
            (None, None) => return Err(wrong("is published without a hash".into())),
        };
        if published != ours {
            return Err(wrong(format!("is published with {kind} {published}, expected {ours}")));
        }
    }
    Ok(())
}

/// Connects once, so that a machine without the Hub knows within seconds.
fn reach(endpoint: &str, patience: Duration) -> Result<(), SourceError> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest).to_owned();
    let port = if endpoint.starts_with("http://") { 80 } else { 443 };
    let address = if host.contains(':') { host.clone() } else { format!("{host}:{port}") };
    let (sender, receiver) = mpsc::channel();
    // Looking a name up cannot be given a limit, so it is done aside and left behind when it takes too long.
    std::thread::spawn(move || {
        let connect = || -> std::io::Result<()> {
            let mut last = std::io::Error::new(ErrorKind::NotFound, "no address");
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, patience) {
                    Ok(_) => return Ok(()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        };
        let _ = sender.send(connect());
    });
    match receiver.recv_timeout(patience) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(SourceError::failed(format!("{host} cannot be reached: {e}"))),
        Err(_) => Err(SourceError::failed(format!("{host} does not answer within {} s", patience.as_secs_f32()))),
    }
}

/// What the client's thread says.
enum Event {
    /// So many bytes are here.
    Here(u64),
    /// It is through.
    Through(Result<PathBuf, ApiError>),
}

/// Downloads a file, going on where an earlier pull or attempt ended. What cannot be gone on from is discarded.
fn download(
    api: &Api,
    repository: &str,
    file: &ModelFile,
    stall: Duration,
    downloads: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, SourceError> {
    let mut attempt = 1;
    loop {
        let leftovers = bytes_below(downloads) > 0;
        let reason = match watched(api.model(repository.to_owned()), file, stall, progress) {
            Outcome::Here(path) => return Ok(path),
            Outcome::Full(e) => return Err(SourceError::Fatal(ModelError::io(downloads)(e))),
            Outcome::Broken(reason) if attempt < ATTEMPTS => {
                progress.note(&format!("{}: {reason}; going on from there", file.path));
                attempt += 1;
                continue;
            }
            // The next pull may go on from what is there.
            Outcome::Broken(reason) | Outcome::Stalled(reason) => reason,
            Outcome::Refused(reason) => {
                let _ = std::fs::remove_dir_all(downloads);
                if leftovers && attempt < ATTEMPTS {
                    progress.note(&format!("{}: {reason}; starting afresh", file.path));
                    attempt = ATTEMPTS;
                    continue;
                }
                reason
            }
        };
        return Err(SourceError::failed(format!("{}: {reason}", file.path)));
    }
}

/// How one attempt ended.
enum Outcome {
    /// The file is at this path.
    Here(PathBuf),
    /// The disk is full.
    Full(std::io::Error),
    /// The connection ended early.
    Broken(String),
    /// Nothing came any more. The client still holds the file.
    Stalled(String),
    /// The answer is of no use.
    Refused(String),
}

/// Downloads in a thread of its own and watches it.
fn watched(repository: ApiRepo, file: &ModelFile, stall: Duration, progress: &mut dyn Progress) -> Outcome {
    let (sender, events) = mpsc::channel();
    let (name, limit) = (file.path, file.bytes);
    std::thread::spawn(move || {
        let meter = Meter { sender: sender.clone(), done: 0, limit };
        let outcome = repository.download_with_progress(name, meter);
        let _ = sender.send(Event::Through(outcome));
    });
    loop {
        match events.recv_timeout(stall) {
            Ok(Event::Here(done)) if done > limit => return Outcome::Refused(format!("is longer than {limit} bytes")),
            Ok(Event::Here(done)) => progress.advance(name, done, limit),
            Ok(Event::Through(Ok(path))) => return Outcome::Here(path),
            Ok(Event::Through(Err(ApiError::IoError(e)))) if is_full(&e) => return Outcome::Full(e),
            Ok(Event::Through(Err(ApiError::IoError(e)))) => return Outcome::Broken(brief(&e)),
            Ok(Event::Through(Err(e))) => return Outcome::Refused(brief(&e)),
            Err(RecvTimeoutError::Timeout) => {
                return Outcome::Stalled(format!("nothing came for {} s", stall.as_secs_f32()));
            }
            // The client panics at some answers.
            Err(RecvTimeoutError::Disconnected) => {
                return Outcome::Refused("the answer makes no sense to the Hub's client".into());
            }
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Counts what the client's thread reads, and holds that thread for good when nobody wants more of it.
struct Meter {
    sender: Sender<Event>,
    done: u64,
    limit: u64,
}

impl hf_hub::api::Progress for Meter {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done = self.done.saturating_add(size as u64);
        let heard = self.sender.send(Event::Here(self.done)).is_ok();
        if !heard || self.done > self.limit {
            // The client cannot be told to stop; a thread that sleeps writes nothing.
            loop {
                std::thread::park();
            }
        }
    }

    fn finish(&mut self) {}
}

fn brief(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
