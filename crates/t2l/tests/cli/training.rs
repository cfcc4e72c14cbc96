//! A whole small run: trained, stopped, resumed, plotted, and its checkpoint used.

use std::path::Path;

use super::tiny::Workshop;
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
fn the_end_of_a_run_names_what_was_kept() {
    let shop = Workshop::new();
    let said = |name: &str, every: u64| {
        let rest = format!("[run]\nsteps = 1\nvalidate_every = {every}\n");
        let output = shop.train(&shop.config(&format!("{name}.toml"), &rest), &shop.path(name), &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stderr).replace(&shop.path("").display().to_string(), "@");
        said.lines().last().expect("a line").to_owned()
    };
    insta::assert_snapshot!(said("unjudged", 0), @"complete at step 1; written to @unjudged/last");
    insta::assert_snapshot!(said("judged", 1), @"complete at step 1; written to @judged/last, what validated best to @judged/best");
}

/// Derived tasks are mixed in, a run with them goes on where it was stopped, and none comes of a task that is unseen.
#[test]
fn tasks_are_derived_and_trained_on_too() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let tiny = tiny_tasks();
    let derive = |to: &str, more: &[&str]| {
        t2l(&[&["data", "derive", tiny.to_str().expect("utf-8"), "-o", &path(to), "--tasks", "30"], more].concat())
    };
    let output = derive("derived", &["--split", "train", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tasks = told["tasks"].as_u64().expect("a number");
    assert!(tasks >= 10 && told["asked"] == 30, "{told}");
    let of_each: u64 = told["families"].as_object().expect("families").values().filter_map(|n| n.as_u64()).sum();
    assert_eq!(of_each, tasks);
    let again = derive("derived", &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is not empty; name a new folder"), "{}", text(&again.stderr));

    let config = config(folder.path(), "");
    let plain = std::fs::read_to_string(&config).expect("the configuration");
    let mix_in = |from: &str| {
        let extra = format!("extra_dir = {:?}\n[hypernet]\n", path(from));
        let mixed = plain.replacen("[hypernet]\n", &extra, 1);
        std::fs::write(&config, mixed.replacen("[sampling]\n", "[sampling]\nextra_share = 0.5\n", 1)).expect("written");
    };
    let train = |name: &str, more: &[&str]| t2l(&[&["train", "sft", &config, "-o", &path(name)], more].concat());
    let run = |name: &str, more: &[&str]| {
        let output = train(name, more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read(folder.path().join(name).join("state.safetensors")).expect("the state")
    };
    mix_in("derived");
    let whole = run("whole", &[]);
    run("parts", &["--max-steps", "2"]);
    assert!(whole == run("parts", &[]), "goes on to other bits");

    assert!(derive("of-all", &[]).status.success());
    mix_in("of-all");
    let refused = train("refused", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("which is in the unseen split"), "{}", text(&refused.stderr));

    std::fs::write(&config, &plain).expect("written");
    assert!(whole != run("plain", &[]), "further tasks change nothing");
}

#[test]
fn an_unknown_key_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "stepz = 3\n");
    let output = t2l(&["train", "sft", &config, "-o", folder.path().join("run").to_str().expect("utf-8")]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("unknown field `stepz`") && message.ends_with("did you mean `steps`?\n"), "{message}");
}

#[test]
fn a_folder_of_tasks_that_is_not_there_is_named_with_its_setting() {
    let shop = Workshop::new();
    let tiny = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let (config, run) = (shop.path("config.toml"), shop.path("run"));
    for (key, dirs) in [
        ("data.dir", "dir = \"nowhere\"\n".to_owned()),
        ("data.extra_dir", format!("dir = {tiny:?}\nextra_dir = \"nowhere\"\n")),
    ] {
        let settings = format!("[data]\n{dirs}[model]\nbase = \"base\"\nencoder = \"encoder\"\n");
        std::fs::write(&config, settings).expect("written");
        let output = shop.train(&config, &run, &[]);
        assert_eq!(output.status.code(), Some(1));
        let named = format!("error: {key}: {}: ", shop.path("nowhere").display());
        assert!(text(&output.stderr).contains(&named), "{}", text(&output.stderr));
    }
}

/// Before anything is tokenised or embedded.
#[test]
fn more_layers_than_there_are_are_refused_at_once() {
    let shop = Workshop::new();
    let config = shop.config("config.toml", "[run]\nsteps = 1\n");
    let plain = std::fs::read_to_string(&config).expect("the configuration");
    for (key, more) in [("copying_layers", "[model]\nquoted_words = true\n"), ("instructed_layers", "[model]\n")] {
        let settings = plain.replacen("[model]\n", more, 1);
        let settings = settings.replacen("[hypernet]\n", &format!("[hypernet]\n{key} = 99\n"), 1);
        std::fs::write(&config, settings).expect("written");
        let output = shop.train(&config, &shop.path("run"), &[]);
        assert_eq!(output.status.code(), Some(1));
        let expected = format!(
            "loading the base model\nerror: setting hypernet.{key} = 99: is more than the base model's 3 layers\n"
        );
        assert!(text(&output.stderr).ends_with(&expected), "{}", text(&output.stderr));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_library_is_trained_in_shards_and_then_reconstructed() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let lora = path("lora.toml");
    let tiny = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let text_of = |rest: &str| format!("[data]\ndir = {tiny:?}\nsplit = \"train\"\nunseen_split = \"unseen\"\n{rest}");
    let write = |name: &str, rest: &str| std::fs::write(path(name), text_of(rest)).expect("written");
    write(
        "lora.toml",
        "[hypernet]\nrank = 2\n[sampling]\ntasks_per_step = 2\npoints_per_task = 1\nmax_tokens = 64\n\
         [run]\nsteps = 2\ncheckpoint_every = 1\nvalidate_every = 2\n[lora]\nvalidation_examples = 2\n",
    );
    let train = |arguments: &[&str]| {
        let mut all = vec!["train"];
        all.extend(arguments);
        let output = t2l(&all);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };

    // Both tasks side by side, stopped and resumed; then one shard after the other.
    let (whole, parts, library) = (path("whole"), path("parts"), path("library"));
    train(&["lora", &lora, "-o", &whole]);
    train(&["lora", &lora, "-o", &parts, "--max-steps", "1"]);
    assert_eq!(names(Path::new(&parts)), ["groups", "index.json", "lock"]);
    train(&["lora", &lora, "-o", &parts]);
    for task in ["double_number", "first_letter"] {
        for file in ["adapter_model.safetensors", "adapter_config.json", "training.json"] {
            let read = |run: &str| std::fs::read(Path::new(run).join(task).join(file)).expect(file);
            assert_eq!(read(&whole), read(&parts), "{task}/{file}");
        }
    }
    train(&["lora", &lora, "-o", &library, "--shard", "1/2"]);
    assert!(!Path::new(&library).join("first_letter").exists());
    let output = super::json(&t2l(&["train", "lora", &lora, "-o", &library, "--shard", "2/2", "--json"]));
    assert_eq!(output["state"], "complete");
    assert_eq!(output["adapters"].as_array().map(Vec::len), Some(2));
    assert!(output["adapters"][0]["nll"].as_f64().is_some_and(f64::is_finite));
    assert_eq!(names(Path::new(&library)), ["double_number", "first_letter", "groups", "index.json", "lock"]);
    assert_eq!(names(&Path::new(&library).join("groups/1-of-2-001")), ["config.toml", "lock", "metrics.jsonl"]);
    // What is finished is skipped, and not trained on under other settings.
    let index = std::fs::read(Path::new(&library).join("index.json")).expect("index");
    train(&["lora", &lora, "-o", &library]);
    assert_eq!(std::fs::read(Path::new(&library).join("index.json")).expect("index"), index);
    write("hotter.toml", "[optimizer]\nlearning_rate = 0.5\n");
    let refused = t2l(&["train", "lora", &path("hotter.toml"), "-o", &library]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("another configuration"), "{}", text(&refused.stderr));

    // Hypernetworks on that library, and one adapter for both tasks.
    for (target, told) in [
        ("factorized", "text"),
        ("z-scored", "text"),
        ("delta-w", "text"),
        ("z-scored", "one-hot"),
        ("delta-w", "learned"),
    ] {
        let name = format!("recon-{target}-{told}");
        write(
            &format!("{name}.toml"),
            &format!(
                "[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\nrank = 2\nconditioning = {told:?}\n\
                 [recon]\nlibrary = {library:?}\ntarget = {target:?}\n[run]\nsteps = 2\nvalidate_every = 2\n"
            ),
        );
        train(&["recon", &path(&format!("{name}.toml")), "-o", &path(&name)]);
        assert!(Path::new(&path(&name)).join("last/hypernet.safetensors").is_file());
        // Who knows tasks by their index knows none that it was not trained on.
        let metrics = std::fs::read_to_string(Path::new(&path(&name)).join("metrics.jsonl")).expect("metrics");
        assert!(metrics.contains("seen/own_nll"), "{metrics}");
        assert_eq!(metrics.contains("unseen/own_nll"), told == "text", "{metrics}");
    }
    // Half a library: its tasks have descriptions, but who knows them by their index would be judged on both.
    let half = path("half");
    std::fs::create_dir(&half).expect("a folder");
    std::fs::rename(Path::new(&whole).join("double_number"), Path::new(&half).join("double_number")).expect("moved");
    let halved = |told: &str| {
        write(
            "half.toml",
            &format!(
                "[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\nrank = 2\nconditioning = {told:?}\n\
                 [recon]\nlibrary = {half:?}\ntarget = \"factorized\"\n[run]\nsteps = 1\nvalidate_every = 0\n"
            ),
        );
        t2l(&["train", "recon", &path("half.toml"), "-o", &path(&format!("half-{told}"))])
    };
    let refused = halved("one-hot");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("holds no adapter of the task \"first_letter\""),
        "{}",
        text(&refused.stderr)
    );
    let accepted = halved("none");
    assert!(accepted.status.success(), "{}", text(&accepted.stderr));
    // A run goes on with the library that it began with.
    let began = path("recon-factorized-text.toml");
    let named = std::fs::read_to_string(&began).expect("a configuration");
    let other = named.replace(&format!("{library:?}"), &format!("{half:?}"));
    assert_ne!(named, other);
    std::fs::write(&began, other).expect("written");
    let refused = t2l(&["train", "recon", &began, "-o", &path("recon-factorized-text")]);
    assert!(text(&refused.stderr).contains("other tasks, examples or adapters"), "{}", text(&refused.stderr));
    write(
        "multitask.toml",
        "[hypernet]\nrank = 2\n[sampling]\ntasks_per_step = 2\nmax_tokens = 64\n[run]\nsteps = 2\nvalidate_every = 0\n",
    );
    train(&["multitask", &path("multitask.toml"), "-o", &path("multitask")]);
    let inspected = super::json(&t2l(&["adapter", "inspect", &path("multitask/last"), "--json"]));
    assert_eq!(inspected["rank"], 2);
}
