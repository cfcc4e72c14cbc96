//! docs/training.md does what it says: its files, and its commands in their order, for one step instead of many.

use std::path::Path;

use super::tiny::program;
use super::{command, models_here, text};

/// The contents of the page's code blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    page.split(&start).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

/// The words of a command line: apart at spaces, together in double quotes.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('"').enumerate();
    quoted
        .flat_map(|(i, part)| match i % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

#[test]
fn the_page_on_training_can_be_followed() {
    if !models_here() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::fs::create_dir(folder.path().join("my-tasks")).expect("a folder");
    let json = blocks(&page, "json");
    for (name, text) in ["tasks.json", "double.jsonl", "reverse.jsonl"].iter().zip(&json) {
        write(&format!("my-tasks/{name}"), text);
    }
    let config = blocks(&page, "toml").concat();
    assert!(config.contains("steps = 2000"), "{config}");
    write("config.toml", &config.replace("steps = 2000", "steps = 1"));

    let commands = blocks(&page, "sh").concat();
    let lines = commands.lines().filter_map(|line| line.split('#').next()?.trim().strip_prefix("t2l "));
    let mut run = 0;
    for line in lines {
        // The page's run starts from no checkpoint; any other of the same shape does here.
        let line = line.replace("between start ", "between my-run/best ");
        let output = command(program()).args(words(&line)).current_dir(folder.path()).output().expect("it runs");
        assert!(output.status.success(), "t2l {line}: {}", text(&output.stderr));
        run += 1;
    }
    assert!(run >= 8, "{run} commands");
    assert!(folder.path().join("my-run/best/hypernet.safetensors").is_file());
}

#[test]
fn a_users_configuration_outlives_a_run_into_its_own_folder() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = std::fs::canonicalize(super::tiny_tasks()).expect("fixtures");
    let config = folder.path().join("config.toml");
    let settings = format!("[data]\ndir = {data:?} # mine\n[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\n");
    std::fs::write(&config, &settings).expect("written");
    let mut command = command(program());
    command.args(["train", "sft", "config.toml", "-o", "."]).current_dir(folder.path());
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds config.toml"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&config).expect("still there"), settings);
}
