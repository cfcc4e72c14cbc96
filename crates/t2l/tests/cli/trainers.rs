//! Hyperdecoders, hypernetworks on top of an adapter, other conditionings and early stopping; then all of them, and a
//! library, as baselines of one evaluation.

use std::path::Path;

use super::tiny::{Workshop, assert_same};
use super::{json, models_here, t2l, text, tiny_tasks};

const SMALL: &str = "[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\nrank = 2\n";
const SAMPLING: &str = "[sampling]\ntasks_per_step = 2\nmax_tokens = 64\n";

/// A folder of configurations and the runs under them.
struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("utf-8").to_owned()
    }

    /// Trains `trainer` under these settings, in a folder of that name.
    fn train(&self, trainer: &str, name: &str, settings: &str, extra: &[&str]) -> String {
        let tiny = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
        let data =
            format!("[data]\ndir = {tiny:?}\nsplit = \"train\"\nunseen_split = \"unseen\"\nbenchmarks = [\"all\"]\n");
        let config = self.path(&format!("{name}.toml"));
        std::fs::write(&config, format!("{data}{settings}")).expect("written");
        let out = self.path(name);
        let mut arguments = vec!["train", trainer, &config, "-o", &out];
        arguments.extend(extra);
        let output = t2l(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        out
    }
}

fn bytes(folder: &str, file: &str) -> Vec<u8> {
    std::fs::read(Path::new(folder).join(file)).unwrap_or_else(|e| panic!("{folder}/{file}: {e}"))
}

/// The validation numbers of a run's metrics, in order.
fn validations(run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(bytes(run, "metrics.jsonl")).expect("utf-8");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.filter(|line| line.get("loss").is_none()).collect()
}

fn refused(arguments: &[&str]) -> String {
    let output = t2l(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stderr)
}

#[test]
fn every_baseline_is_trained_and_scored() {
    if !models_here() {
        return;
    }
    let runs = Runs::new();
    let run = "[run]\nsteps = 2\ncheckpoint_every = 1\nvalidate_every = 2\n";
    let data = tiny_tasks();
    let data = data.to_str().expect("utf-8");

    // A hyperdecoder with codes that averages move, stopped and resumed to the same bits.
    let settings = format!("{SMALL}task_encoder = \"vq\"\n{SAMPLING}{run}");
    let decoder = runs.train("hyperdecoder", "decoder", &settings, &[]);
    let parts = runs.train("hyperdecoder", "parts", &settings, &["--max-steps", "1"]);
    runs.train("hyperdecoder", "parts", &settings, &[]);
    for file in ["metrics.jsonl", "state.safetensors", "last/hypernet.safetensors"] {
        assert_eq!(bytes(&decoder, file), bytes(&parts, file), "{file}");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&bytes(&decoder, "last/manifest.json")).expect("a manifest");
    assert_eq!(manifest["config"]["conditioning"], "input");
    let numbers = validations(&decoder);
    for group in ["seen", "unseen", "benchmarks"] {
        assert!(numbers[0][format!("{group}/own_nll")].as_f64().is_some_and(f64::is_finite), "{group}: {numbers:?}");
    }
    let decoder = runs.path("decoder/last");
    let answered = json(&t2l(&["ask", "Double it.", "4", "--checkpoint", &decoder, "--max-tokens", "2", "--json"]));
    assert_eq!(answered["description"], "Double it.");
    let adapter = runs.path("adapter");
    let message = refused(&["generate", "Double it.", "--checkpoint", &decoder, "-o", &adapter]);
    assert!(message.contains("hyperdecoder"), "{message}");
    // Before any base model is looked for.
    let message = refused(&["eval", "--data", data, "--tasks", "all", "--checkpoint", &decoder, "--model", "nowhere"]);
    assert!(message.contains("--hyperdecoder"), "{message}");

    // A multi-task adapter, and a hypernetwork on top of it, which starts there: nothing is learned at rate 0.
    let plain = format!(
        "[hypernet]\nrank = 2\n{SAMPLING}[run]\nsteps = 2\nvalidate_every = 0\n[optimizer]\nlearning_rate = 0.01\n"
    );
    let multitask = format!("{}/last", runs.train("multitask", "multitask", &plain, &[]));
    for offset in ["frozen", "trainable"] {
        let settings = format!(
            "{SMALL}multitask = {multitask:?}\noffset = {offset:?}\n{SAMPLING}\
             [run]\nsteps = 1\nvalidate_every = 1\n[optimizer]\nlearning_rate = 0.0\n"
        );
        let above = format!("{}/last", runs.train("sft", &format!("above-{offset}"), &settings, &[]));
        let generated = runs.path(&format!("generated-{offset}"));
        let output = t2l(&["generate", "Anything at all.", "--checkpoint", &above, "-o", &generated]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let difference = json(&t2l(&["adapter", "diff", &generated, &multitask, "--json"]));
        for module in difference["modules"].as_array().expect("modules") {
            // The checkpoint holds bf16.
            assert!(module["cosine"].as_f64().is_some_and(|c| c > 0.999), "{module}");
        }
    }
    let above = runs.path("above-frozen/last");
    let library = runs.train(
        "lora",
        "library",
        &plain.replace("tasks_per_step = 2", "tasks_per_step = 2\npoints_per_task = 1"),
        &[],
    );
    let baselines = ["--multitask", &multitask, "--library", &library, "--hyperdecoder", &decoder, "--shots", "1"];
    let mut arguments = vec![
        "eval",
        "--data",
        data,
        "--tasks",
        "all",
        "--checkpoint",
        &above,
        "--conditions",
        "base,own",
        "--limit",
        "1",
    ];
    arguments.extend(baselines);
    arguments.push("--json");
    let report = json(&t2l(&arguments));
    let rows = report["rows"].as_array().expect("rows");
    let scored = |condition: &str| -> Vec<&str> {
        let rows = rows.iter().filter(|r| r["condition"] == condition && r["metric"] == "nll");
        rows.map(|r| r["task"].as_str().expect("a task")).collect()
    };
    for condition in ["base", "own", "multitask", "mean_lora", "hyperdecoder", "few_shot"] {
        assert_eq!(scored(condition).len(), 3, "{condition}");
    }
    assert_eq!(scored("task_lora"), ["double_number", "first_letter"]);
    // On top of the multi-task adapter and untrained, own is that adapter.
    let nll = |condition: &str, task: &str| {
        let row = rows.iter().find(|r| r["condition"] == condition && r["task"] == task && r["metric"] == "nll");
        row.and_then(|r| r["value"].as_f64()).expect("a value")
    };
    for task in scored("own") {
        assert!((nll("own", task) - nll("multitask", task)).abs() < 2e-2, "{task}");
    }
    let message = refused(&["eval", "--data", data, "--tasks", "all", "--conditions", "base,multitask"]);
    assert!(message.contains("--multitask"), "{message}");
}

/// A library on a base model in a folder is known again, though its reports do not say where that lay.
#[test]
fn a_library_on_a_base_of_ones_own_goes_on() {
    let shop = Workshop::new();
    let config = shop.config("lora.toml", "[run]\nsteps = 2\ncheckpoint_every = 1\nvalidate_every = 2\n");
    let library = shop.path("library");
    let train = || {
        let output = shop.train_with("lora", &config, &library, &["--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&output)["adapters"].clone()
    };
    let trained = train();
    assert_eq!(trained.as_array().map(Vec::len), Some(2), "{trained}");
    assert_eq!(train(), trained);
    let place = shop.path("").display().to_string();
    for (file, base) in
        [("index.json", "\"base_model\": \"base\""), ("double_number/training.json", "\"base\": \"base\"")]
    {
        let said = std::fs::read_to_string(library.join(file)).expect(file);
        assert!(said.contains(base) && !said.contains(&place), "{said}");
    }
    let other = shop.config("lora.toml", "[run]\nsteps = 3\n");
    let output = shop.train_with("lora", &other, &library, &[]);
    assert!(text(&output.stderr).contains("was trained under another configuration"), "{}", text(&output.stderr));
}

/// Noise on embeddings changes a run, and is drawn the same again.
#[test]
fn noise_on_descriptions_follows_the_seed() {
    let shop = Workshop::new();
    let run = |name: &str, noise: f64| {
        let rest = format!("[loss]\ndescription_noise = {noise}\n[run]\nsteps = 3\nvalidate_every = 0\n");
        let (config, run) = (shop.config(&format!("{name}.toml"), &rest), shop.path(name));
        let output = shop.train(&config, &run, &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        run
    };
    let (still, noisy, again) = (run("still", 0.0), run("noisy", 0.5), run("again", 0.5));
    assert_same(&noisy, &again);
    let metrics = |run: &Path| std::fs::read(run.join("metrics.jsonl")).expect("metrics");
    assert_ne!(metrics(&still), metrics(&noisy));
}

/// One-hot and learned conditioning know the tasks they train on, and are validated on those; a run without patience
/// left ends.
#[test]
fn tasks_by_their_index_are_validated_and_a_run_ends_early() {
    if !models_here() {
        return;
    }
    let runs = Runs::new();
    for (conditioning, encoder) in [("one-hot", "softmax"), ("learned", "discrete")] {
        // Rate 0: no validation is better than the first.
        let settings = format!(
            "{SMALL}conditioning = {conditioning:?}\ntask_encoder = {encoder:?}\n{SAMPLING}\
             [run]\nsteps = 9\nvalidate_every = 1\npatience = 2\nselect = \"seen/own_nll\"\n[optimizer]\nlearning_rate = 0.0\n"
        );
        let run = runs.train("sft", conditioning, &settings, &[]);
        let numbers = validations(&run);
        assert_eq!(numbers.len(), 3, "{numbers:?}");
        assert!(numbers[0]["unseen/own_nll"].is_null(), "{numbers:?}");
        assert!(Path::new(&run).join("best/manifest.json").is_file());
    }
}
