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

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// The program, with a home of its own unless the real models are wanted.
fn t2l(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("t2l").expect("the program is built");
    command.args(arguments).env_remove("T2L_CHECKPOINT").env_remove("T2L_DATA").output().expect("it runs")
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
