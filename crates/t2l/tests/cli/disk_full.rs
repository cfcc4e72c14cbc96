//! Outputs appear whole or not at all, also when the disk fills up half-way. A limit on the size of files stands for it.

use std::process::{Command, Output};

use super::{entries, models_here, t2l, text, tiny_tasks};

/// Runs the program where no file may grow over `kilobytes`.
fn with_little_room(kilobytes: usize, arguments: &[&str]) -> Output {
    // ulimit counts blocks of 512 bytes; ignoring the signal turns the limit into an error of the write.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    let mut command = Command::new("sh");
    command.args(["-c", &script, assert_cmd::cargo::cargo_bin("t2l").to_str().expect("utf-8")]).args(arguments);
    command.env_remove("T2L_CHECKPOINT").env_remove("T2L_DATA").output().expect("it runs")
}

#[test]
fn an_adapter_that_does_not_fit_leaves_nothing() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("adapter");
    let arguments = ["generate", "Sort the words.", "-o", target.to_str().expect("utf-8")];
    let output = with_little_room(100, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("adapter_model.safetensors"), "{}", text(&output.stderr));
    assert_eq!(entries(folder.path()), Vec::<String>::new());
    // With room, the same command writes it.
    assert!(with_little_room(1 << 20, &arguments).status.success());
    assert!(target.join("adapter_model.safetensors").is_file());
}

#[test]
fn a_full_standard_output_is_an_error_and_a_closed_one_is_not() {
    let program = assert_cmd::cargo::cargo_bin("t2l");
    let run = |words: &str, stdout: std::process::Stdio| {
        let mut command = Command::new(&program);
        command.args(words.split(' ')).env_remove("T2L_CHECKPOINT").env_remove("T2L_DATA").stdout(stdout);
        let output = command.stderr(std::process::Stdio::piped()).spawn().and_then(|c| c.wait_with_output());
        output.map(|o| (o.status.code(), text(&o.stderr))).expect("it runs")
    };
    for words in ["models list", "models list --json"] {
        if let Ok(full) = std::fs::File::create("/dev/full") {
            let (code, message) = run(words, full.into());
            assert_eq!(code, Some(1), "{words}: {message}");
            assert!(message.starts_with("error: standard output: "), "{words}: {message}");
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(run(words, writer.into()), (Some(0), String::new()), "{words}");
    }
}

#[test]
fn a_run_keeps_its_last_checkpoint() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let data = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let settings = format!(
        "[data]\ndir = {data:?}\nsplit = \"train\"\n[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\n\
         [sampling]\ntasks_per_step = 2\nmax_tokens = 64\n[run]\nsteps = 4\ncheckpoint_every = 1\nvalidate_every = 0\n"
    );
    std::fs::write(&config, settings).expect("written");
    let run = folder.path().join("run");
    let arguments = ["train", "sft", config.to_str().expect("utf-8"), "-o", run.to_str().expect("utf-8")];
    let first = t2l(&[&arguments[..], &["--max-steps", "2"]].concat());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let before = (entries(&run), std::fs::read(run.join("state.safetensors")).expect("a state"));

    let full = with_little_room(100, &arguments);
    assert_eq!(full.status.code(), Some(1), "{}", text(&full.stderr));
    assert!(text(&full.stderr).contains(".safetensors: File too large"), "{}", text(&full.stderr));
    assert_eq!(std::fs::read(run.join("state.safetensors")).expect("a state"), before.1);
    assert_eq!(entries(&run), before.0);

    let whole = t2l(&arguments);
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    assert_eq!(std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics").lines().count(), 4);
}
