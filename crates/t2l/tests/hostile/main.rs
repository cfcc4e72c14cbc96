//! Every file of `fixtures/hostile` ends as an error that names it and says what is wrong, in little memory and time.
//!
//! `cases.json` there has, for each reader, what the error of each file or folder says. The readers' own tests have the
//! cases that are built rather than stored.

#[cfg(target_os = "linux")]
mod memory;
mod seeds;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use t2l::adapter;
use t2l::backbone::chat::{ChatTemplate, Message};
use t2l::backbone::tokenizer::ModelTokenizer;
use t2l::backbone::{Backbone, Decoder};
use t2l::core::device;
use t2l::hypernet::{Checkpoint, import};

/// Longest that refusing one of them may take, on a machine that has other work too.
const PATIENCE: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile")
}

/// By reader, what the error of each file or folder says.
static CASES: LazyLock<BTreeMap<String, BTreeMap<String, String>>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(root().join("cases.json")).expect("cases.json");
    serde_json::from_str(&text).expect("reader, file, words")
});

/// Tries every file or folder of a reader; `named` says whether errors have to name it.
fn refused(reader: &str, named: bool, read: impl Fn(&Path) -> Result<(), String>) {
    let folder = root().join(reader);
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let none = BTreeMap::new();
    let cases = CASES.get(reader).unwrap_or(&none);
    let mut wrong: Vec<String> =
        cases.keys().filter(|name| !there.contains(*name)).map(|name| format!("{name} is not there")).collect();
    for name in &there {
        let (path, started) = (folder.join(name), Instant::now());
        let outcome = read(&path);
        let took = started.elapsed();
        let words = cases.get(name).map_or("?", String::as_str);
        let path = path.display().to_string();
        match outcome {
            Ok(()) => wrong.push(format!("{name} is read")),
            Err(message) if !message.contains(words) => wrong.push(format!("{name}: {message}; not: {words}")),
            Err(message) if named && !message.contains(&path) => wrong.push(format!("{name} is not named: {message}")),
            Err(message) if message.len() > 2_000 => wrong.push(format!("{name}: a message of {}", message.len())),
            Err(_) if took > PATIENCE => wrong.push(format!("{name} took {took:?}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{reader}:\n{}", wrong.join("\n"));
    println!("{} {reader} refused", there.len());
}

fn words<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

#[test]
fn adapters() {
    let device = device::parse("cpu").expect("cpu");
    refused("adapters", true, |path| words(adapter::load(path, None, &device)));
}

#[test]
fn gguf() {
    let device = device::parse("cpu").expect("cpu");
    refused("gguf", true, |path| words(Backbone::load(path, &device)));
    // As adapters they are wrong too, in other ways.
    for entry in std::fs::read_dir(root().join("gguf")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let error = adapter::load(&path, None, &device).expect_err("refused").to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn models() {
    let device = device::parse("cpu").expect("cpu");
    refused("models", true, |path| words(Decoder::load(path, &device)));
}

#[test]
fn tokenizers() {
    refused("tokenizers", false, |path| {
        let tokenizer = ModelTokenizer::from_tokenizer_json(path).map_err(|error| error.to_string())?;
        tokenizer.encode(&"a".repeat(20_000)).map_err(|error| error.to_string())?;
        words(tokenizer.decode(&[0, 1, 2], false))
    });
}

#[test]
fn templates() {
    refused("templates", false, |path| {
        let source = std::fs::read_to_string(path).expect("text");
        let template = ChatTemplate::new(source, None, None).map_err(|error| error.to_string())?;
        words(template.render(&[Message::user("Hello")], true))
    });
}

#[test]
fn checkpoints() {
    let device = device::parse("cpu").expect("cpu");
    refused("checkpoints", true, |path| words(Checkpoint::load(path, &device)));
}

#[test]
fn imports() {
    let device = device::parse("cpu").expect("cpu");
    refused("imports", true, |path| words(import::sakana(path, None, &device)));
}
