//! The program from outside, as a shell session would drive it.

mod adapters;
mod bad_input;
mod contracts;
#[cfg(unix)]
mod disk_full;
mod docs;
mod encoder;
mod import;
#[cfg(unix)]
mod killed;
mod runs;
mod tiny;
mod trainers;
mod training;

use std::ffi::OsStr;
#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_dir as symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use t2l::models::Models;

/// The cache of the programs that tests run, in the folder of the build: what they leave there, and a link to the user's
/// models.
static CACHE: LazyLock<PathBuf> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    std::fs::create_dir_all(&cache).expect("a folder");
    let models = std::path::absolute(Models::new(None).expect("a cache").cache().join("models")).expect("a path");
    let link = cache.join("models");
    if std::fs::read_link(&link).ok().as_ref() != Some(&models) {
        let _ = std::fs::remove_file(&link);
        // Another process may have been quicker.
        let _ = symlink(&models, &link);
    }
    cache
});

/// A command with the cache of the tests, and nothing else of the user's.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("T2L_CHECKPOINT").env_remove("T2L_DATA").env("T2L_CACHE", &*CACHE);
    command
}

/// Runs the program.
fn t2l(arguments: &[&str]) -> Output {
    command(tiny::program()).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
}

/// Whether both models are here; says so when they are not.
fn models_here() -> bool {
    let here = t2l_testing::smollm2().and(t2l_testing::minilm());
    if let Err(skip) = &here {
        println!("0 cases, 1 skipped: real models ({skip})");
    }
    here.is_ok()
}

/// Names in a folder, in order; none where there is no folder.
fn entries_of(folder: &Path) -> Vec<String> {
    if folder.is_dir() { entries(folder) } else { vec![] }
}

/// Names in a folder, in order.
fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn tiny_tasks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-tasks")
}
