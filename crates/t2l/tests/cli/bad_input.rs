//! What is refused, with which words and which exit code.

use super::{models_here, t2l, text};

fn refused(arguments: &[&str]) -> String {
    let output = t2l(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn an_unknown_flag_or_command_exits_with_2() {
    assert_eq!(t2l(&["generate", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(t2l(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(t2l(&[]).status.code(), Some(2));
}

#[test]
fn an_unknown_device_lists_those_there_are() {
    insta::assert_snapshot!(refused(&["models", "list", "--device", "abacus"]), @r#"error: unknown device "abacus"; this build has: cpu, flex"#);
    let message = refused(&["models", "list", "--device", "cuda:0"]);
    assert!(message.contains("needs the cargo feature \"cuda\""), "{message}");
}

#[test]
fn generate_without_a_description_says_how_to_give_one() {
    insta::assert_snapshot!(refused(&["generate", "-o", "/nonexistent/x"]), @"error: no description given; write one after `generate`, or name a file of them with -f");
}

#[test]
fn lessons_want_steps_and_inputs() {
    assert_eq!(t2l(&["ask", "Sort.", "b a", "--distil", "0"]).status.code(), Some(2));
    assert_eq!(t2l(&["ask", "Sort.", "b a", "--inputs", "/nonexistent/inputs"]).status.code(), Some(2));
    let message = refused(&["ask", "Sort.", "b a", "--distil", "2", "--inputs", "/nonexistent/inputs"]);
    assert!(message.contains("/nonexistent/inputs"), "{message}");
    insta::assert_snapshot!(refused(&["chat", "--distil", "2"]), @"error: --distil: there is no description to learn");
    let message = refused(&["chat", "Sort.", "--distil", "2", "--inputs", "-"]);
    assert_eq!(message, "error: --inputs -: standard input is the conversation\n");
    let blank = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(blank.path(), "\n  \n").expect("written");
    let path = blank.path().to_str().expect("utf-8");
    let message = refused(&["generate", "Sort.", "-o", "/nonexistent/x", "--distil", "2", "--inputs", path]);
    assert_eq!(message, format!("error: {path}: has no input, one a line\n"));
}

#[test]
fn a_missing_file_is_named() {
    let message = refused(&["generate", "-f", "/nonexistent/file", "-o", "/nonexistent/x"]);
    assert!(message.contains("/nonexistent/file"), "{message}");
    let message = refused(&["adapter", "inspect", "/nonexistent/adapter"]);
    assert!(message.contains("/nonexistent/adapter: "), "{message}");
    let message = refused(&["eval", "--data", "/nonexistent/data", "--tasks", "all"]);
    assert!(message.contains("/nonexistent/data"), "{message}");
    let message = refused(&["train", "sft", "/nonexistent/config.toml", "-o", "/nonexistent/run"]);
    assert!(message.contains("/nonexistent/config.toml"), "{message}");
}

#[test]
fn a_report_that_could_not_be_written_is_refused_before_the_work() {
    let out = |path: &str| refused(&["eval", "--data", "/nonexistent/data", "--tasks", "all", "-o", path]);
    assert!(out("/nonexistent/report.json").contains("/nonexistent: "));
    assert!(out("report.md").contains("the Markdown table goes there"));
    let report = tempfile::NamedTempFile::new().expect("a file");
    let report = report.path().to_str().expect("utf-8");
    assert!(out(report).contains("is there already; use --force to replace it"));
    // With it the work begins, here with data that is not there.
    let forced = ["eval", "--data", "/nonexistent/data", "--tasks", "all", "-o", report, "--force"];
    assert!(refused(&forced).contains("/nonexistent/data"));
}

#[test]
fn numbers_and_parts_out_of_range_are_refused_on_the_command_line() {
    let refused = |arguments: &[&str]| {
        let output = t2l(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        text(&output.stderr)
    };
    for temperature in ["-1", "nan", "inf", "warm"] {
        let message = refused(&["chat", "--temperature", temperature]);
        assert!(message.contains("--temperature") && message.contains("must be a number from 0"), "{message}");
    }
    for top_p in ["0", "-0.5", "1.1", "nan"] {
        let message = refused(&["chat", "--top-p", top_p]);
        assert!(message.contains("--top-p") && message.contains("above 0 and up to 1"), "{message}");
    }
    let message = refused(&["eval", "--data", "/nonexistent/data", "--tasks", "all", "--part", "half"]);
    assert!(message.contains("[possible values: train, valid, dev, test, all]"), "{message}");
    for command in [&["ask", "Sort.", "b a"][..], &["chat"]] {
        let output = t2l(&[command, &["--max-tokens", "0"]].concat());
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains("'0' for '--max-tokens <N>'"), "{message}");
    }
}

#[test]
fn a_time_that_is_none_is_refused() {
    for hours in ["1e17", "-1", "nan", "inf"] {
        let output = t2l(&["train", "lora", "config.toml", "-o", "run", &format!("--max-hours={hours}")]);
        assert_eq!(output.status.code(), Some(2), "{hours}");
        assert!(text(&output.stderr).contains("is not a duration"), "{}", text(&output.stderr));
    }
}

#[test]
fn an_unknown_model_lists_those_there_are() {
    insta::assert_snapshot!(refused(&["models", "path", "gpt-5"]), @r#"error: unknown model "gpt-5": it is no folder or file that is here, and none of smollm2-135m-instruct, all-minilm-l6-v2, gemma-3-270m"#);
}

#[test]
fn a_damaged_checkpoint_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = folder.path().join("checkpoint");
    std::fs::create_dir(&checkpoint).expect("a folder");
    std::fs::write(checkpoint.join("manifest.json"), "{\"version\": 99}").expect("written");
    std::fs::write(checkpoint.join("hypernet.safetensors"), "not tensors").expect("written");
    let target = folder.path().join("out");
    let message = refused(&[
        "generate",
        "Sort words.",
        "--checkpoint",
        checkpoint.to_str().expect("utf-8"),
        "-o",
        target.to_str().expect("utf-8"),
    ]);
    assert!(message.contains("manifest.json") && message.contains("version is 99"), "{message}");
    assert!(!target.exists());
}

#[test]
fn empty_and_huge_descriptions_are_refused() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("out");
    let target = target.to_str().expect("utf-8");
    let message = refused(&["generate", "   ", "-o", target]);
    assert!(message.contains("the description is empty"), "{message}");
    let huge = "word ".repeat(20_000);
    let message = refused(&["generate", &huge, "-o", target]);
    assert!(message.contains("at most 65536 are accepted"), "{message}");
    assert!(!std::path::Path::new(target).exists());
}

#[test]
fn an_occupied_target_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("precious.txt"), "mine").expect("written");
    let target = folder.path().to_str().expect("utf-8");
    let message = refused(&["generate", "Sort words.", "-o", target]);
    assert!(message.contains("is not empty; use --force to write into it anyway"), "{message}");
    assert_eq!(std::fs::read_to_string(folder.path().join("precious.txt")).expect("read"), "mine");
}

#[test]
fn a_hypernetwork_that_reads_no_descriptions_says_so() {
    use t2l::core::{AdapterLayout, LoraScaling, TargetModule, device};
    use t2l::hypernet::{
        Arch, Checkpoint, Conditioning, Dtype, Hypernet, HypernetConfig, Init, Manifest, ModelRef, Rendering, VERSION,
    };

    let modules = vec![TargetModule::new("q_proj", 4, 4)];
    let layout = AdapterLayout { base_model: "tiny".into(), layers: 1, modules };
    let scaling = LoraScaling { alpha: 2.0, rank: 1, use_rslora: false };
    let config =
        HypernetConfig { conditioning: Conditioning::OneHot, ..HypernetConfig::new(Arch::L, layout, scaling, 3) };
    let device = device::parse("cpu").expect("cpu");
    let hypernet = Hypernet::new(config.clone(), Init::Ours, 1, &device).expect("a hypernetwork");
    let model = |id: &str| ModelRef { id: id.into(), name: None, sha256: None };
    let manifest = Manifest {
        version: VERSION,
        created_by: "test".into(),
        config,
        base_model: model("tiny"),
        encoder: model("none"),
        quoted_words: false,
        rendering: Rendering { max_tokens: 8, input_share: 0.5, system_turn: false },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (checkpoint, target) = (folder.path().join("checkpoint"), folder.path().join("out"));
    Checkpoint { manifest, hypernet }.save(&checkpoint, Dtype::F32).expect("saved");
    let (checkpoint, target) = (checkpoint.to_str().expect("utf-8"), target.to_str().expect("utf-8"));
    let message = refused(&["generate", "Sort words.", "--checkpoint", checkpoint, "-o", target]);
    assert!(message.contains("not trained on descriptions") && message.contains("OneHot"), "{message}");
    assert!(!std::path::Path::new(target).exists());
}
