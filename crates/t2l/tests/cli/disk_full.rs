//! Outputs appear whole or not at all, also when the disk fills up half-way. A limit on the size of files stands for it.

use std::path::Path;
use std::process::Output;

use super::tiny::{Workshop, assert_same, contents, program};
use super::{command, entries, models_here, text};

/// Runs the program where no file may grow over `kilobytes`.
fn with_little_room(kilobytes: usize, arguments: &[&str]) -> Output {
    // ulimit counts blocks of 512 bytes; ignoring the signal turns the limit into an error of the write.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    let mut command = command("sh");
    command.args(["-c", &script]).arg(program()).args(arguments).output().expect("it runs")
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
    let run = |words: &str, stdout: std::process::Stdio| {
        let mut command = command(program());
        command.args(words.split(' ')).stdout(stdout).stderr(std::process::Stdio::piped());
        let output = command.spawn().and_then(|c| c.wait_with_output());
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

/// Whatever does not fit — the metrics, the exported checkpoint, the state — the run ends with that file's name, and goes
/// on from its last checkpoint to the files of a run that always had room.
#[test]
fn a_run_keeps_its_last_checkpoint() {
    let shop = Workshop::new();
    let config = shop.config("config.toml", "[run]\nsteps = 20\ncheckpoint_every = 5\nvalidate_every = 10\n");
    let whole = shop.path("whole");
    let output = shop.train(&config, &whole, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let blocks = |name: &str| whole.join(name).metadata().expect(name).len() / 512;
    let (exported, state) = (blocks("last/hypernet.safetensors"), blocks("state.safetensors"));
    assert!(state > exported + 8 && exported > 8, "{exported}, {state}");
    for (limit, named) in [(2, "metrics.jsonl"), (exported - 4, "hypernet.safetensors"), (state - 4, "run-")] {
        let run = shop.path(&format!("run-{limit}"));
        assert!(shop.train(&config, &run, &["--max-steps", "5"]).status.success());
        let before = contents(&run);
        let full = with_little_room_for(&shop, limit, &config, &run);
        let message = text(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{message}");
        assert!(message.contains(named) && message.contains("File too large"), "{limit}: {message}");
        // Nothing half-written is left, and the state is the one of before.
        let after = contents(&run);
        let names: Vec<&String> = after.iter().map(|(name, _)| name).filter(|name| !name.contains("best/")).collect();
        assert_eq!(names, before.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let state = |all: &[(String, Vec<u8>)]| all.iter().find(|(name, _)| name == "state.safetensors").cloned();
        assert!(state(&after) == state(&before), "{limit}: the state was changed");
        let output = shop.train(&config, &run, &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_same(&run, &whole);
    }
}

/// Trains where no file may grow over so many blocks of 512 bytes.
fn with_little_room_for(shop: &Workshop, blocks: u64, config: &Path, run: &Path) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" train sft \"$1\" -o \"$2\"");
    let mut command = shop.command("sh");
    command.args(["-c", &script]).args([program().as_path(), config, run]).output().expect("it runs")
}
