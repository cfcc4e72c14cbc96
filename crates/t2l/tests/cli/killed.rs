//! Outputs appear whole or not at all, also when the process is killed half-way; the next run clears what it left.

use std::fs::{File, create_dir};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tiny::program;
use super::{command, entries, models_here, t2l, text};

const PARTIAL: &str = ".t2l-partial-";

/// Starts the program and kills it as soon as `seen` is true; whether it was still at work.
fn killed(arguments: &[&str], seen: impl Fn() -> bool) -> bool {
    let mut command = command(program());
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it runs");
    let started = Instant::now();
    while !seen() && child.try_wait().expect("waits").is_none() && started.elapsed() < Duration::from_secs(120) {
        std::thread::yield_now();
    }
    child.kill().expect("kills");
    !child.wait().expect("waits").success()
}

fn partial(folder: &Path) -> bool {
    folder.exists() && entries(folder).iter().any(|name| name.starts_with(PARTIAL))
}

/// Names that are no left-overs.
fn whole(folder: &Path) -> Vec<String> {
    entries(folder).into_iter().filter(|name| !name.starts_with(PARTIAL)).collect()
}

fn run(arguments: &[&str]) {
    let output = t2l(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A safetensors file of zeros, most of it a hole.
fn zeros(path: &Path, tensors: &[(String, [usize; 2])]) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape[0] * shape[1];
        let about: Value = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), about);
    }
    let header = Value::Object(header).to_string();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).expect("written");
    let length = 8 + header.len() + end;
    File::options().write(true).open(path).expect("opens").set_len(length as u64).expect("sized");
}

const LAYERS: usize = 8;
const WIDTH: usize = 1536;

/// An adapter, in files large enough to be caught being written.
fn adapter(folder: &Path) {
    create_dir(folder).expect("a folder");
    let config = json!({"peft_type": "LORA", "r": 256, "lora_alpha": 256, "target_modules": ["q_proj"]});
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("written");
    let place = |layer: usize| format!("base_model.model.model.layers.{layer}.self_attn.q_proj.lora_");
    let factors = (0..LAYERS).flat_map(|layer| {
        [(format!("{}A.weight", place(layer)), [256, WIDTH]), (format!("{}B.weight", place(layer)), [WIDTH, 256])]
    });
    zeros(&folder.join("adapter_model.safetensors"), &factors.collect::<Vec<_>>());
}

fn model(folder: &Path) {
    create_dir(folder).expect("a folder");
    let config = json!({"model_type": "llama", "num_attention_heads": 24, "num_key_value_heads": 24});
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let name = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj.weight");
    let weights: Vec<_> = (0..LAYERS).map(|layer| (name(layer), [WIDTH, WIDTH])).collect();
    zeros(&folder.join("model.safetensors"), &weights);
}

#[test]
fn merging_and_converting() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    adapter(&root.join("lora"));
    model(&root.join("model"));
    let path = |name: &str| root.join(name).to_str().expect("utf-8").to_owned();
    let (lora, model) = (path("lora"), path("model"));
    let out = root.join("out");
    create_dir(&out).expect("a folder");
    for (name, words) in [
        ("merged", vec!["adapter", "merge", &lora, "--model", &model, "-o"]),
        ("lora.gguf", vec!["adapter", "convert", &lora, "--model", &model]),
        ("again", vec!["adapter", "convert", &lora]),
    ] {
        let target = path(&format!("out/{name}"));
        let mut arguments = words;
        arguments.insert(if arguments[1] == "convert" { 3 } else { arguments.len() }, &target);
        assert!(killed(&arguments, || partial(&out)), "{name}: over before it could be killed");
        assert_eq!(whole(&out), Vec::<String>::new(), "{name}");
        assert!(partial(&out), "{name}: killed half-way");
        run(&arguments);
        assert_eq!(entries(&out), [name]);
        // What was there is replaced whole, or stays.
        if name != "merged" {
            let before = t2l(&["adapter", "inspect", &target]).stdout;
            arguments.push("--force");
            let inside = || partial(&out) || Path::new(&target).is_dir() && partial(Path::new(&target));
            assert!(killed(&arguments, inside), "{name}: over before it could be killed");
            assert_eq!(whole(&out), [name]);
            assert_eq!(t2l(&["adapter", "inspect", &target]).stdout, before);
            run(&arguments);
            assert_eq!(entries(&out), [name]);
            assert!(!Path::new(&target).is_dir() || !partial(Path::new(&target)));
        }
        let _ = std::fs::remove_file(&target).or_else(|_| std::fs::remove_dir_all(&target));
    }
}

#[test]
fn generating_into_several_folders() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let descriptions: Vec<String> = (1..=24).map(|i| format!("Write the number {i} as a word.")).collect();
    let mut arguments = vec!["generate", "-o", out.to_str().expect("utf-8")];
    arguments.extend(descriptions.iter().map(String::as_str));
    assert!(killed(&arguments, || out.exists() && whole(&out).len() >= 3), "over before it could be killed");
    let made = whole(&out);
    assert!((3..24).contains(&made.len()), "{made:?}");
    for name in &made {
        assert_eq!(entries(&out.join(name)), ["adapter_config.json", "adapter_model.safetensors"], "{name}");
        run(&["adapter", "inspect", out.join(name).to_str().expect("utf-8")]);
    }
    // Another run is told of them, and with --force leaves its own alone.
    assert!(text(&t2l(&arguments).stderr).contains("is not empty; use --force"));
    std::fs::create_dir(out.join(".t2l-partial-left")).expect("a folder");
    run(&["generate", "Sort the words.", "Reverse the words.", "-o", arguments[2], "--force"]);
    assert_eq!(entries(&out), ["0001-sort-the-words", "0002-reverse-the-words"]);
}
