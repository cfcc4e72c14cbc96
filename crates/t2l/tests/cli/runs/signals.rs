//! Signals, flags and the lock: how a run ends before its end, and who may write its folder.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::tiny::{Running, Workshop, assert_same, program, wait_for};
use crate::{json, text};

const SETTINGS: &str = "[run]\nsteps = 3000\ncheckpoint_every = 1000\nvalidate_every = 0\n";
/// Steps of the most batches there may be: each takes far longer than what is done meanwhile.
const ENDLESS: &str = "accumulation = 4096\n[run]\nsteps = 1000\nvalidate_every = 0\n";

fn signal(program: &Running, name: &str) {
    let id = program.0.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().expect("it runs").success());
}

fn says(said: &Path, words: &str) -> bool {
    std::fs::read_to_string(said).is_ok_and(|text| text.contains(words))
}

#[test]
fn a_signal_ends_a_run_with_a_checkpoint_and_130() {
    let shop = Workshop::new();
    let config = shop.config("config.toml", SETTINGS);
    for name in ["INT", "TERM"] {
        let (run, said) = (shop.path(name), shop.path("said"));
        let mut program = shop.start(&config, &run, &said);
        wait_for("a few steps", || std::fs::metadata(run.join("metrics.jsonl")).is_ok_and(|m| m.len() > 1000));
        signal(&program, name);
        assert_eq!(program.0.wait().expect("ended").code(), Some(130));
        assert!(says(&said, "once more stops at once") && says(&said, "stopped at step"));
        let lines = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics").lines().count();
        assert!(lines > 0 && lines < 3000, "{lines}");
        // The checkpoint is of the very last step: going on for none writes nothing new.
        let before = shop.path(&format!("{name}-before"));
        std::fs::create_dir(&before).expect("a folder");
        for (file, bytes) in crate::tiny::contents(&run) {
            let path = before.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, bytes).expect("written");
        }
        let output = shop.train(&config, &run, &["--max-steps", &lines.to_string(), "--json"]);
        assert_eq!(json(&output)["step"], lines);
        assert_same(&run, &before);
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let shop = Workshop::new();
    let (config, run, said) = (shop.config("config.toml", ENDLESS), shop.path("run"), shop.path("said"));
    let mut program = shop.start(&config, &run, &said);
    wait_for("the first step", || says(&said, "trainable values"));
    signal(&program, "INT");
    wait_for("the note", || says(&said, "finishing this step"));
    std::thread::sleep(Duration::from_millis(50));
    assert!(program.0.try_wait().expect("a child").is_none(), "the step is not at its end");
    signal(&program, "INT");
    assert_eq!(program.0.wait().expect("ended").code(), Some(130));
    assert!(!run.join("state.safetensors").exists());
}

#[test]
fn two_runs_cannot_write_one_folder() {
    let shop = Workshop::new();
    let (config, run, said) = (shop.config("config.toml", ENDLESS), shop.path("run"), shop.path("said"));
    let mut first = shop.start(&config, &run, &said);
    wait_for("the first step", || says(&said, "trainable values"));
    let second = shop.train(&config, &run, &[]);
    assert_eq!(second.status.code(), Some(1));
    let message = text(&second.stderr);
    assert!(message.contains("another run is writing this folder") && message.contains("/run"), "{message}");
    // A killed process holds no lock.
    first.0.kill().expect("killed");
    first.0.wait().expect("ended");
    let third = shop.train(&config, &run, &["--max-steps", "0"]);
    assert!(third.status.success(), "{}", text(&third.stderr));
}

#[test]
fn flags_end_a_run_cleanly_and_it_goes_on() {
    let shop = Workshop::new();
    let config = shop.config("config.toml", "[run]\nsteps = 12\ncheckpoint_every = 5\nvalidate_every = 4\n");
    let [whole, parts] = ["whole", "parts"].map(|name| shop.path(name));
    assert!(shop.train(&config, &whole, &[]).status.success());
    let ended = |extra: &[&str]| {
        let output = json(&shop.train(&config, &parts, &[extra, &["--json"]].concat()));
        (output["state"].as_str().unwrap_or_default().to_owned(), output["step"].as_u64())
    };
    assert_eq!(ended(&["--max-steps", "3"]), ("stopped".into(), Some(3)));
    // A millionth of an hour is over before the first step is.
    let (state, step) = ended(&["--max-hours", "0.000001"]);
    assert_eq!(state, "stopped");
    assert!(step.is_some_and(|s| (3..12).contains(&s)), "{step:?}");
    assert_eq!(ended(&["--max-hours", "1", "--max-steps", "99"]), ("complete".into(), Some(12)));
    assert_same(&parts, &whole);
    for hours in ["-1", "NaN", "1e300"] {
        let flag = format!("--max-hours={hours}");
        let mut command = shop.command(program());
        let output = command.args(["train", "sft"]).arg(&config).arg("-o").arg(&parts).arg(&flag).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{hours}");
        assert!(text(&output.stderr).contains("is not a duration"), "{}", text(&output.stderr));
    }
}
