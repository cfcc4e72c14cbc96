//! Checkpoints that are torn, stale or another run's are refused by name and left as they are.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::text;
use crate::tiny::{Workshop, assert_same, contents};

const SETTINGS: &str = "[run]\nsteps = 6\ncheckpoint_every = 2\nvalidate_every = 3\n";

/// A run stopped at step 4, and one that took all six steps.
fn stopped(shop: &Workshop) -> (PathBuf, PathBuf, PathBuf) {
    let (config, run, whole) = (shop.config("config.toml", SETTINGS), shop.path("run"), shop.path("whole"));
    for (run, extra) in [(&whole, &[][..]), (&run, &["--max-steps", "4"])] {
        let output = shop.train(&config, run, extra);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    (config, run, whole)
}

/// What going on with a run is answered; it must end with an error and change nothing.
fn refusal(shop: &Workshop, config: &Path, run: &Path) -> String {
    let before = contents(run);
    let output = shop.train(config, run, &[]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(contents(run) == before, "a refused run was changed: {message}");
    message
}

#[test]
fn a_torn_or_damaged_state_is_refused_by_name() {
    let shop = Workshop::new();
    let (config, run, whole) = stopped(&shop);
    let state = run.join("state.safetensors");
    let good = std::fs::read(&state).expect("a state");
    let header = 8 + u64::from_le_bytes(good[..8].try_into().expect("eight bytes")) as usize;
    for length in [0, 1, 7, 8, 100, header - 1, header, header + 1, good.len() / 2, good.len() - 1] {
        std::fs::write(&state, &good[..length]).expect("written");
        let message = refusal(&shop, &config, &run);
        assert!(message.contains("state.safetensors: torn"), "{length} bytes: {message}");
    }
    for (at, what) in [(header, "damaged"), (good.len() - 1, "damaged"), (9, "state.safetensors: ")] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&state, bytes).expect("written");
        let message = refusal(&shop, &config, &run);
        assert!(message.contains(what) && message.contains("state.safetensors"), "byte {at}: {message}");
    }
    std::fs::write(&state, [&good[..], b"more"].concat()).expect("written");
    assert!(refusal(&shop, &config, &run).contains("state.safetensors: torn"));
    // Put back, it goes on.
    std::fs::write(&state, good).expect("written");
    assert!(shop.train(&config, &run, &[]).status.success());
    assert_same(&run, &whole);
}

#[test]
fn a_stale_state_is_refused_by_name() {
    let shop = Workshop::new();
    let (config, run, _) = stopped(&shop);
    let (state, metrics) = (run.join("state.safetensors"), run.join("metrics.jsonl"));
    // Of metrics that are no longer all there.
    let lines = std::fs::read(&metrics).expect("metrics");
    std::fs::write(&metrics, &lines[..lines.len() - 1]).expect("written");
    let message = refusal(&shop, &config, &run);
    assert!(message.contains("metrics.jsonl") && message.contains("the checkpoint was made at"), "{message}");
    std::fs::write(&metrics, lines).expect("written");
    // Of a version to come.
    let bytes = std::fs::read(&state).expect("a state");
    let text_at = |words: &[u8]| bytes.windows(words.len()).position(|w| w == words).expect("it is there");
    let at = text_at(br#"\"version\":2"#) + br#"\"version\":"#.len();
    let mut later = bytes.clone();
    later[at] = b'7';
    std::fs::write(&state, later).expect("written");
    let message = refusal(&shop, &config, &run);
    assert!(message.contains("state.safetensors: version 7 is not 2"), "{message}");
}

#[test]
fn a_state_of_another_run_is_refused_by_name() {
    let shop = Workshop::new();
    let (config, run, _) = stopped(&shop);
    let other = shop.config("other.toml", &SETTINGS.replace("steps = 6", "steps = 7"));
    let message = refusal(&shop, &other, &run);
    assert!(message.contains("state.safetensors: was written under another configuration"), "{message}");

    // Of the same settings, on fewer examples.
    let tasks = shop.path("tasks");
    std::fs::create_dir_all(tasks.join("tasks")).expect("a folder");
    for name in [
        "tasks.json",
        "splits.json",
        "tasks/double_number.jsonl",
        "tasks/first_letter.jsonl",
        "tasks/warm_or_cold.jsonl",
    ] {
        std::fs::copy(crate::tiny_tasks().join(name), tasks.join(name)).expect("copied");
    }
    // One adapter for all notes its examples too.
    let (all, plain) = (shop.path("all"), shop.config("all.toml", SETTINGS));
    assert!(shop.train_with("multitask", &plain, &all, &["--max-steps", "4"]).status.success());
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let original = std::fs::canonicalize(crate::tiny_tasks()).expect("fixtures");
    let moved = text.replace(&format!("{original:?}"), &format!("{tasks:?}"));
    assert_ne!(text, moved);
    std::fs::write(&config, moved).expect("written");
    for name in ["double_number", "first_letter"] {
        let path = tasks.join(format!("tasks/{name}.jsonl"));
        let text = std::fs::read_to_string(&path).expect("a task");
        std::fs::write(&path, text.replace("\"train\"", "\"valid\"").replacen("\"valid\"", "\"train\"", 1))
            .expect("written");
    }
    let message = refusal(&shop, &config, &run);
    assert!(message.contains("state.safetensors: was written with other tasks, examples or adapters"), "{message}");
    let message = crate::text(&shop.train_with("multitask", &config, &all, &[]).stderr);
    assert!(message.contains("state.safetensors: was written with other tasks, examples or adapters"), "{message}");

    // A file of something else.
    std::fs::copy(run.join("last/hypernet.safetensors"), run.join("state.safetensors")).expect("copied");
    let message = refusal(&shop, &config, &run);
    assert!(message.contains("state.safetensors: not a state file"), "{message}");
}

/// With its next rows all for an adapter that has ended, a state leaves nothing to take a step on.
#[test]
fn a_state_whose_rows_are_for_ended_adapters_ends_with_an_error() {
    let shop = Workshop::new();
    let config = shop.config("lora.toml", "[run]\nsteps = 6\ncheckpoint_every = 2\nvalidate_every = 0\n");
    let library = shop.path("library");
    assert!(shop.train_with("lora", &config, &library, &["--max-steps", "2"]).status.success());
    let state = library.join("groups/1-of-1-001/state.safetensors");
    let bytes = std::fs::read(&state).expect("a state");
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..end]).expect("JSON");
    let said = header["__metadata__"]["t2l_train_state"].as_str().expect("where it stands");
    let mut progress: Value = serde_json::from_str(said).expect("JSON");
    progress["parts"][0]["active"] = json!(false);
    progress["sampler"]["sampler"]["ready"] = json!([[{"task": 0, "example": 0, "description": 0, "mode": "input"}]]);
    header["__metadata__"]["t2l_train_state"] = json!(progress.to_string());
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&state, [&length[..], header.as_bytes(), &bytes[end..]].concat()).expect("written");
    let output = shop.train_with("lora", &config, &library, &[]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("no row of the batch is for an adapter that is still trained"), "{message}");
}
