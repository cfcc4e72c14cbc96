//! `t2l import` from outside.

use std::path::Path;

use t2l_testing::{Cases, fixtures};

use super::{json, t2l, text};

fn utf8(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

#[test]
fn reference_folders_become_checkpoints() {
    let Some(fixtures) = fixtures() else { return };
    Cases::each(&fixtures.join("hypernet"), "hypermod.pt", |case| {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("deep/checkpoint");
        let answer = json(&t2l(&["import", "sakana", utf8(case), "-o", utf8(&target), "--json"]));
        assert_eq!(answer["encoder"], "Alibaba-NLP/gte-large-en-v1.5");
        let loaded = t2l::hypernet::Checkpoint::load(&target, &t2l::core::device::parse("cpu").expect("cpu"));
        assert_eq!(answer["sha256"], loaded.expect("loaded").sha256());
        // Again, with the base model's config, in place of the first: refused, then allowed.
        let config = case.join("expected/base_model_config/config.json");
        let again = ["import", "sakana", utf8(case), "-o", utf8(&target), "--base-config", utf8(&config)];
        let output = t2l(&again);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("is not empty; use --force"), "{}", text(&output.stderr));
        let output = t2l(&[&again[..], &["--force"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).trim(), utf8(&target));
        // Only its own encoder will do, and it has to be found.
        let out = folder.path().join("adapter");
        let generate = |more: &[&str]| {
            let start = ["generate", "Sort words.", "--checkpoint", utf8(&target), "-o", utf8(&out)];
            let output = t2l(&[&start[..], more].concat());
            assert!(!output.status.success() && !out.exists());
            text(&output.stderr)
        };
        let message = generate(&[]);
        assert!(message.contains("Alibaba-NLP/gte-large-en-v1.5") && message.contains("--encoder"), "{message}");
        let message = generate(&["--encoder", "all-minilm-l6-v2"]);
        assert!(message.contains("trained with encoder Alibaba-NLP/gte-large-en-v1.5"), "{message}");
        assert!(message.contains("sentence-transformers/all-MiniLM-L6-v2"), "{message}");
        Ok(())
    });
}

#[test]
fn what_cannot_be_imported_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("in"), folder.path().join("out"));
    let refused = || {
        let output = t2l(&["import", "sakana", utf8(&source), "-o", utf8(&target)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!target.exists());
        text(&output.stderr)
    };
    assert!(refused().contains("args.yaml"));
    std::fs::create_dir(&source).expect("a folder");
    std::fs::write(source.join("args.yaml"), "training_task: sft\n").expect("written");
    assert!(refused().contains("adapter_config.json"));
    std::fs::write(source.join("adapter_config.json"), r#"{"r": 2, "lora_alpha": 4}"#).expect("written");
    assert!(refused().contains("hypermod.pt"));
    std::fs::write(source.join("hypermod.pt"), b"\x80\x02cos\nsystem\n.").expect("written");
    assert!(refused().contains("hypermod.pt"));
}
