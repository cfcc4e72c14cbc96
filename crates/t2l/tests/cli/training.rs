//! A whole small run: trained, stopped, resumed, plotted, and its checkpoint used.

use std::path::Path;

use super::{models_here, t2l, text, tiny_tasks};

fn config(folder: &Path, extra: &str) -> String {
    let path = folder.join("config.toml");
    let data = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let text = format!(
        "[data]\ndir = {:?}\nsplit = \"train\"\nunseen_split = \"unseen\"\n[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\n\
         [sampling]\ntasks_per_step = 2\nmax_tokens = 64\n[run]\nsteps = 4\ncheckpoint_every = 1\nvalidate_every = 4\n{extra}",
        data
    );
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("utf-8").to_owned()
}

#[test]
fn a_run_is_stopped_and_resumed_to_the_same_bits() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "");
    let run = |name: &str, extra: &[&str]| {
        let out = folder.path().join(name);
        let mut arguments = vec!["train", "sft", &config, "-o", out.to_str().expect("utf-8")];
        arguments.extend(extra);
        let output = t2l(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        out
    };
    let whole = run("whole", &[]);
    let parts = run("parts", &["--max-steps", "2"]);
    assert_eq!(std::fs::read_to_string(parts.join("metrics.jsonl")).expect("metrics").lines().count(), 2);
    run("parts", &[]);
    for file in ["metrics.jsonl", "state.safetensors", "last/hypernet.safetensors"] {
        assert_eq!(
            std::fs::read(whole.join(file)).expect(file),
            std::fs::read(parts.join(file)).expect(file),
            "{file}"
        );
    }
    let plotted = t2l(&["train", "plot", whole.to_str().expect("utf-8")]);
    assert!(plotted.status.success(), "{}", text(&plotted.stderr));
    assert!(std::fs::read_to_string(whole.join("curves.svg")).expect("drawing").contains("</svg>"));

    // Its checkpoint generates.
    let adapter = folder.path().join("adapter");
    let checkpoint = whole.join("last");
    let generated = t2l(&[
        "generate",
        "Double the number.",
        "--checkpoint",
        checkpoint.to_str().expect("utf-8"),
        "-o",
        adapter.to_str().expect("utf-8"),
    ]);
    assert!(generated.status.success(), "{}", text(&generated.stderr));
}

#[test]
fn an_unknown_key_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "stepz = 3\n");
    let output = t2l(&["train", "sft", &config, "-o", folder.path().join("run").to_str().expect("utf-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("stepz"), "{}", text(&output.stderr));
}
