//! A Hub that has another file, says nothing, breaks off, or goes on for ever.

use std::time::Instant;

use super::server::{Hub, Manner};
use super::*;
use crate::hub;

/// Long enough to arrive in several reads.
fn long() -> &'static [u8] {
    static LONG: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    LONG.get_or_init(|| (0..100_000_u32).map(|i| (i % 251) as u8).collect())
}

fn fetch(endpoint: &str, file: &ModelFile, folder: &Path, heard: &mut Heard) -> Result<(), SourceError> {
    hub::fetch(&settings(endpoint), "org/m", &[file], folder, heard)
}

fn installed(folder: &Path, content: &[u8]) -> bool {
    std::fs::read(folder.join("sub/model.bin")).is_ok_and(|found| found == content)
        && !folder.join(hub::DOWNLOADS).exists()
}

#[test]
fn a_published_file_is_downloaded_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = Hub::publishing(sha256(long()), long(), &[Manner::Whole]);
    let mut heard = Heard::default();
    fetch(&hub.endpoint, file_of(long()), folder.path(), &mut heard).expect("fetches");
    assert!(installed(folder.path(), long()));
    assert_eq!(hub.downloads(), [0]);
    assert_eq!(heard.counts["sub/model.bin"], (100_000, 100_000));
}

#[test]
fn small_files_are_compared_by_their_git_id() {
    for (id, word) in [(GIT_BLOB, None), ("0000000000000000000000000000000000000000", Some("with Git id 0000"))] {
        let folder = tempfile::tempdir().expect("a folder");
        let listing = format!(r#"{{"siblings":[{{"rfilename":"sub/model.bin","size":11,"blobId":"{id}"}}]}}"#);
        let hub = Hub::new(Some(listing), CONTENT, &[Manner::Whole]);
        let outcome = fetch(&hub.endpoint, file(), folder.path(), &mut Heard::default());
        match word {
            None => assert!(outcome.is_ok() && installed(folder.path(), CONTENT)),
            Some(word) => {
                let reason = failed(outcome);
                assert!(reason.contains(word), "{reason}");
                assert!(hub.downloads().is_empty());
            }
        }
    }
}

#[test]
fn a_hub_with_another_file_is_passed_over_before_anything_is_downloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = "0".repeat(64);
    for (listing, word) in [
        (
            format!(r#"{{"siblings":[{{"rfilename":"sub/model.bin","lfs":{{"sha256":"{other}"}}}}]}}"#),
            "is published with SHA-256 0000",
        ),
        (r#"{"siblings":[{"rfilename":"else","size":11}]}"#.to_owned(), "sub/model.bin is not published there"),
        (r#"{"siblings":[{"rfilename":"sub/model.bin","size":11}]}"#.to_owned(), "without a hash"),
        (r#"{"siblings":3}"#.to_owned(), "unexpected answer"),
        ("<html>".to_owned(), "unexpected answer"),
    ] {
        let hub = Hub::new(Some(listing), CONTENT, &[Manner::Whole]);
        let reason = failed(fetch(&hub.endpoint, file(), folder.path(), &mut Heard::default()));
        assert!(reason.contains(word), "{reason}");
        assert!(hub.downloads().is_empty());
        assert!(empty_but_for_folders(folder.path()));
    }
}

#[test]
fn a_silent_or_missing_hub_is_noticed_within_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let hub = Hub::new(None, CONTENT, &[Manner::Whole]);
    failed(fetch(&hub.endpoint, file(), folder.path(), &mut Heard::default()));
    let reason = failed(fetch("http://127.0.0.1:9", file(), folder.path(), &mut Heard::default()));
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[test]
fn offline_asks_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { offline: true, ..settings("http://127.0.0.1:9") };
    let reason = failed(hub::fetch(&settings, "org/m", &[file()], folder.path(), &mut ()));
    assert!(reason.contains("HF_HUB_OFFLINE"), "{reason}");
}

#[test]
fn a_broken_connection_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = Hub::publishing(sha256(long()), long(), &[Manner::Cut(60_000), Manner::Whole]);
    let mut heard = Heard::default();
    fetch(&hub.endpoint, file_of(long()), folder.path(), &mut heard).expect("fetches");
    assert!(installed(folder.path(), long()));
    assert_eq!(hub.downloads(), [0, 60_000]);
    assert!(heard.noted("going on from there"), "{:?}", heard.notes);
}

#[test]
fn the_next_pull_goes_on_where_the_last_one_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let manners = [Manner::Cut(30_000), Manner::Cut(20_000), Manner::Cut(10_000), Manner::Whole];
    let hub = Hub::publishing(sha256(long()), long(), &manners);
    let reason = failed(fetch(&hub.endpoint, file_of(long()), folder.path(), &mut Heard::default()));
    assert!(reason.contains("sub/model.bin"), "{reason}");
    assert!(!folder.path().join("sub/model.bin").exists());
    fetch(&hub.endpoint, file_of(long()), folder.path(), &mut Heard::default()).expect("fetches");
    assert!(installed(folder.path(), long()));
    assert_eq!(hub.downloads(), [0, 30_000, 50_000, 60_000]);
}

#[test]
fn what_cannot_be_gone_on_from_is_started_afresh() {
    for leftover in [long().to_vec(), [long(), b"more"].concat()] {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = folder.path().join(hub::DOWNLOADS).join("models--org--m/blobs");
        std::fs::create_dir_all(&blobs).expect("a folder");
        std::fs::write(blobs.join("e.part"), leftover).expect("writes");
        let hub = Hub::publishing(sha256(long()), long(), &[Manner::Whole]);
        let mut heard = Heard::default();
        fetch(&hub.endpoint, file_of(long()), folder.path(), &mut heard).expect("fetches");
        assert!(installed(folder.path(), long()));
        assert!(heard.noted("starting afresh"), "{:?}", heard.notes);
    }
}

#[test]
fn a_wrong_leftover_is_found_by_the_hash_and_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = folder.path().join(hub::DOWNLOADS).join("models--org--m/blobs");
    std::fs::create_dir_all(&blobs).expect("a folder");
    std::fs::write(blobs.join("e.part"), b"something else").expect("writes");
    let hub = Hub::publishing(sha256(long()), long(), &[Manner::Whole]);
    let reason = failed(fetch(&hub.endpoint, file_of(long()), folder.path(), &mut Heard::default()));
    assert!(reason.contains("discarded"), "{reason}");
    assert!(empty_but_for_folders(folder.path()));
    fetch(&hub.endpoint, file_of(long()), folder.path(), &mut Heard::default()).expect("fetches");
    assert!(installed(folder.path(), long()));
}

#[test]
fn downloads_that_stall_never_end_or_make_no_sense_are_given_up() {
    for (manner, word) in [
        (Manner::Stall(1000), "nothing came"),
        (Manner::Endless, "is longer than 100000 bytes"),
        (Manner::Nonsense, "makes no sense"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let hub = Hub::publishing(sha256(long()), long(), &[manner]);
        let started = Instant::now();
        let reason = failed(fetch(&hub.endpoint, file_of(long()), folder.path(), &mut Heard::default()));
        assert!(reason.contains(word), "{manner:?}: {reason}");
        assert!(started.elapsed() < Duration::from_secs(10), "{manner:?}: {:?}", started.elapsed());
        assert!(!folder.path().join("sub/model.bin").exists());
    }
}
