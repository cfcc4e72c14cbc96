//! Putting files in their place, and looking after a cache.

use super::*;
use crate::{KNOWN, Models, store};

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
        assert_eq!(heard.notes, [reason]);
        assert!(empty_but_for_folders(folder.path()));
    }
    // Something endless is not read to its end.
    let reason = failed(store::install(&mut std::io::repeat(7), file(), folder.path(), &mut ()));
    assert!(reason.contains("more than"), "{reason}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_pull() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("sub")).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", folder.path().join("sub/model.bin.part")).expect("links");
    match store::install(&mut &CONTENT[..], file(), folder.path(), &mut ()) {
        Err(SourceError::Fatal(ModelError::Io { path, source })) => {
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            assert!(path.ends_with("sub/model.bin.part"), "{}", path.display());
        }
        other => panic!("{other:?}"),
    }
    assert!(empty_but_for_folders(folder.path()));
}

#[test]
fn what_is_here_is_kept_and_what_is_damaged_is_fetched_again() {
    let cache = tempfile::tempdir().expect("a folder");
    let models = Models::with_manifest(cache.path().to_owned(), model(file(), &[]));
    assert!(matches!(models.path("m"), Err(ModelError::NotFetched { name: "m" })));
    assert!(matches!(models.path("x"), Err(ModelError::Unknown { .. })));
    let place = cache.path().join("models/m/sub");
    std::fs::create_dir_all(&place).expect("a folder");
    std::fs::write(place.join("model.bin"), CONTENT).expect("writes");
    let found = models.pull("org/m", &mut ()).expect("is here");
    assert_eq!(std::fs::read(found).expect("reads"), CONTENT);

    // The same size, other bytes: only a pull looks at the hash.
    std::fs::write(place.join("model.bin"), b"the weirdos").expect("writes");
    assert!(models.path("m").is_ok());
    let mut heard = Heard::default();
    let error = models.pull("m", &mut heard).expect_err("no source");
    assert!(matches!(error, ModelError::NoSource { .. }), "{error}");
    assert!(heard.notes[0].contains("is damaged"), "{:?}", heard.notes);
    assert!(!place.join("model.bin").exists());

    // Another size: not here.
    std::fs::write(place.join("model.bin"), b"cut").expect("writes");
    assert!(matches!(models.path("m"), Err(ModelError::NotFetched { .. })));
}

#[test]
fn an_existing_path_is_a_model_of_its_own() {
    let cache = tempfile::tempdir().expect("a folder");
    let models = Models::with_manifest(cache.path().to_owned(), model(file(), &[]));
    assert_eq!(models.resolve(cache.path().to_str().expect("utf-8")).expect("exists"), cache.path());
    assert!(models.resolve("/nonexistent/model").is_err());
}

#[test]
fn the_manifest_is_in_order() {
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    for model in KNOWN {
        assert!(!model.files.is_empty() && !model.sources.is_empty() && !model.licence.is_empty(), "{}", model.name);
        for file in model.files {
            assert!(hex(file.sha256, 64) && hex(file.git_blob, 40) && file.bytes > 0, "{}", file.path);
            // A path stays inside the model's folder, and away from what pulls keep there.
            let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':']);
            assert!(file.path.split('/').all(plain), "{}", file.path);
        }
    }
    assert_eq!(KNOWN.iter().map(|m| m.name).collect::<std::collections::BTreeSet<_>>().len(), KNOWN.len());
}
