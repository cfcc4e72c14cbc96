//! Peak memory while the files are refused: of the program on the worst that it opens by itself, and of this test with
//! every reader.

use std::path::Path;
use std::process::{Command, Stdio};

use super::root;

/// Peak resident memory in KiB while a command runs, and what it said on standard error.
///
/// The kernel keeps the peak as long as the process lives, so looking often and late is enough.
fn peak(command: &mut Command) -> (u64, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("waits").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(peak);
        std::thread::yield_now();
    }
    let output = child.wait_with_output().expect("its words");
    (peak, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_program_refuses_in_little_memory() {
    let program = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("t2l"));
        command.env_remove("T2L_CHECKPOINT").env_remove("T2L_DATA");
        command
    };
    let usual = peak(program().args(["models", "list"])).0;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    // A gigabyte of nothing, of which the header claims to describe some.
    let holes = folder.path().join("holes");
    std::fs::create_dir(&holes).expect("a folder");
    let good = root().join("adapters/values-nan");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(good.join(name), holes.join(name)).expect("copied");
    }
    let file = std::fs::File::options().write(true).open(holes.join("adapter_model.safetensors")).expect("opens");
    file.set_len(1 << 30).expect("sized");

    let cases: [(&[&str], std::path::PathBuf); 9] = [
        (&["adapter", "inspect"], root().join("adapters/header-of-99-megabytes")),
        (&["adapter", "inspect"], root().join("adapters/patterns-that-explode")),
        (&["adapter", "inspect"], root().join("gguf/array-of-2-63-strings.gguf")),
        (&["adapter", "inspect"], holes),
        (&["import", "sakana"], root().join("imports/zip-bomb")),
        (&["import", "sakana"], root().join("imports/view-without-end")),
        (&["import", "sakana"], root().join("imports/yaml-laughs")),
        (&["generate", "Sort.", "--checkpoint"], root().join("checkpoints/modules-2-62-wide")),
        (&["generate", "Sort.", "--checkpoint"], root().join("checkpoints/layers-2-62")),
    ];
    for (words, path) in cases {
        let mut command = program();
        command.args(words).arg(&path);
        if words[0] != "adapter" {
            command.arg("-o").arg(&out);
        }
        let (peak, said) = peak(&mut command);
        let named = Path::new(&path).file_name().expect("a name").to_string_lossy().into_owned();
        assert!(said.starts_with("error: ") && said.contains(&named), "{named}: {said}");
        let more = peak.saturating_sub(usual);
        assert!(more < 24 << 10, "{named}: {more} KiB more than the usual {usual}");
    }
    assert!(!out.exists());
}

#[test]
fn every_reader_refuses_in_little_memory() {
    let this = std::env::current_exe().expect("this test");
    // Templates may build 64 MiB, twice where it is copied; nothing else comes near.
    for (reader, mebibytes) in [
        ("adapters", 96),
        ("gguf", 96),
        ("models", 96),
        ("tokenizers", 96),
        ("templates", 320),
        ("checkpoints", 96),
        ("imports", 96),
    ] {
        let (peak, said) = peak(Command::new(&this).args([reader, "--exact"]));
        assert!(peak > 0 && peak < mebibytes << 10, "{reader}: {peak} KiB; {said}");
        println!("{reader}: {} MiB at most", peak >> 10);
    }
}
