//! A decoder as the text encoder, from training to generation; weights that are not the checkpoint's are refused.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;
use t2l::adapter::peft;
use t2l::core::{AdapterLayout, LoraScaling, TargetModule, device};
use t2l::encoder::weights_sha256;
use t2l::hypernet::{
    Arch, Checkpoint, Copying, Dtype, Hypernet, HypernetConfig, Init, Instructed, Manifest, ModelRef, Rendering,
    VERSION,
};

use super::{models_here, t2l, text, tiny_tasks};

/// A tiny decoder's folder, with a tokenizer that knows one word.
fn decoder(folder: &Path, family: &str) -> PathBuf {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf-models").join(family);
    let folder = folder.join(family);
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(model.join(name), folder.join(name)).expect("copied");
    }
    let model = json!({"type": "WordLevel", "vocab": {"?": 3, "words": 4, ".": 5}, "unk_token": "?"});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null, "model": model,
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    folder
}

fn words(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

#[test]
fn a_decoder_encodes_and_another_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, other) = (decoder(folder.path(), "qwen2"), decoder(folder.path(), "llama"));
    let layout =
        AdapterLayout { base_model: "tiny".into(), layers: 1, modules: vec![TargetModule::new("q_proj", 4, 4)] };
    let scaling = LoraScaling { alpha: 2.0, rank: 1, use_rslora: false };
    let config = HypernetConfig::new(Arch::M, layout, scaling, 32);
    let device = device::parse("cpu").expect("cpu");
    let hypernet = Hypernet::new(config.clone(), Init::Reconstruction, 1, &device).expect("a hypernetwork");
    let manifest = Manifest {
        version: VERSION,
        created_by: "test".into(),
        config,
        base_model: ModelRef { id: "tiny".into(), name: None, sha256: None },
        encoder: ModelRef { id: "my-decoder".into(), name: None, sha256: weights_sha256(&own).expect("read") },
        quoted_words: false,
        rendering: Rendering { max_tokens: 8, input_share: 0.5, system_turn: false },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    };
    let checkpoint = folder.path().join("checkpoint");
    Checkpoint { manifest, hypernet }.save(&checkpoint, Dtype::F32).expect("saved");
    let generate = |encoder: &Path| {
        let out = folder.path().join("out");
        let output = t2l(&[
            "generate",
            "Sort words.",
            "--checkpoint",
            words(&checkpoint),
            "--encoder",
            words(encoder),
            "-o",
            words(&out),
        ]);
        (output.status.success(), text(&output.stderr), out.exists())
    };
    let (done, message, written) = generate(&other);
    assert!(!done && !written, "{message}");
    assert!(message.contains("trained with encoder my-decoder") && message.contains("SHA-256"), "{message}");
    let (done, message, written) = generate(&own);
    assert!(done && written, "{message}");
}

/// Two steps of a small hypernetwork on tiny tasks, with further settings of `[hypernet]`, and of `[model]` and then `[run]`.
fn train(folder: &Path, name: &str, encoder: &Path, hypernet: &str, more: &str) -> (Output, PathBuf) {
    let data = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let (config, run) = (folder.join(format!("{name}.toml")), folder.join(name));
    let settings = format!(
        "[data]\ndir = {data:?}\nsplit = \"train\"\n[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\n{hypernet}[sampling]\n\
         tasks_per_step = 1\nmax_tokens = 64\n[optimizer]\nwarmup_share = 0.0\n[model]\nencoder = {encoder:?}\n{more}steps = 2\n\
         validate_every = 0\n"
    );
    std::fs::write(&config, settings).expect("written");
    (t2l(&["train", "sft", words(&config), "-o", words(&run)]), run)
}

#[test]
fn what_is_quoted_is_copied_where_that_is_asked_for() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let encoder = decoder(folder.path(), "qwen2");
    let (output, plain) = train(folder.path(), "plain", &encoder, "", "[run]\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let from = |run: &Path| format!("quoted_words = true\n[run]\nstart_from = {:?}\n", run.join("last"));
    let (output, copying) = train(folder.path(), "copying", &encoder, "copying_layers = 4\n", &from(&plain));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let load = |run: &Path| Checkpoint::load(&run.join("last"), &device::parse("cpu").expect("cpu")).expect("loads");
    assert_eq!(load(&copying).hypernet.config.copying, Some(Copying { layers: 4, words: 576 }));
    // Stopped after a step and gone on with, it ends in the same bytes.
    let (config, again) = (folder.path().join("copying.toml"), folder.path().join("again"));
    for more in [&["--max-steps", "1"][..], &[]] {
        let output = t2l(&[&["train", "sft", words(&config), "-o", words(&again)], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let weights = |run: &Path| std::fs::read(run.join("last/hypernet.safetensors")).expect("weights");
    assert!(weights(&again) == weights(&copying));
    // One that copies already goes on so, and only so.
    let (output, _) = train(folder.path(), "further", &encoder, "copying_layers = 4\n", &from(&copying));
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (layers, setting) in [(0, ""), (3, "copying_layers = 3\n")] {
        let (output, _) = train(folder.path(), &format!("in-{layers}"), &encoder, setting, &from(&copying));
        let reason = format!("copies in 4 layers, and hypernet.copying_layers is {layers}");
        assert!(text(&output.stderr).contains(&reason), "{}", text(&output.stderr));
    }
    let (output, _) = train(folder.path(), "many", &encoder, "copying_layers = 31\n", &from(&plain));
    assert!(text(&output.stderr).contains("is more than the base model's 30 layers"), "{}", text(&output.stderr));
    let between = folder.path().join("between");
    let ends = [plain.join("last"), copying.join("last")];
    let output = t2l(&["train", "between", words(&ends[0]), words(&ends[1]), "-o", words(&between)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // What is copied is what is quoted: one value in each of the last layers' columns, and nothing without quotation marks.
    let copied = |name: &str, description: &str| -> Vec<f32> {
        let out = folder.path().join(name);
        let output = t2l(&["generate", description, "--checkpoint", words(&between), "-o", words(&out)]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let adapter = peft::load(&out, &device::parse("cpu").expect("cpu")).expect("an adapter");
        let last = |layer| adapter.get(layer, "v_proj").expect("a place").b.clone().narrow(1, 7, 1);
        (26..30).flat_map(|layer| last(layer).into_data().iter::<f32>().collect::<Vec<_>>()).collect()
    };
    let yes = copied("yes", "Say \"Yes\".");
    assert!(yes.iter().filter(|x| **x != 0.0).count() > 700, "{yes:?}");
    assert!(yes != copied("no", "Say \"No\"."));
    assert!(copied("bare", "Say Yes.").iter().all(|x| *x == 0.0));
}

#[test]
fn what_a_description_does_as_an_instruction_goes_into_the_adapter() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let encoder = decoder(folder.path(), "qwen2");
    let train = |name: &str, setting: &str, more: &str| train(folder.path(), name, &encoder, setting, more);
    let (output, plain) = train("plain", "", "[run]\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let from = |run: &Path| format!("[run]\nstart_from = {:?}\n", run.join("last"));
    let (output, run) = train("told", "instructed_layers = 2\n", &from(&plain));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let load = |run: &Path| Checkpoint::load(&run.join("last"), &device::parse("cpu").expect("cpu")).expect("loads");
    let config = load(&run).hypernet.config;
    assert_eq!((config.instructed, config.embedding), (Some(Instructed { layers: 2 }), 32 + 2 * 192));
    // Stopped after a step and gone on with, it ends in the same bytes.
    let (settings, again) = (folder.path().join("told.toml"), folder.path().join("again"));
    for more in [&["--max-steps", "1"][..], &[]] {
        let output = t2l(&[&["train", "sft", words(&settings), "-o", words(&again)], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let weights = |run: &Path| std::fs::read(run.join("last/hypernet.safetensors")).expect("weights");
    assert!(weights(&again) == weights(&run));
    // One that has effects already goes on so, and only so.
    let (output, _) = train("further", "instructed_layers = 2\n", &from(&run));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (output, _) = train("fewer", "", &from(&run));
    let reason = "has instruction effects in 2 layers, and hypernet.instructed_layers is 0";
    assert!(text(&output.stderr).contains(reason), "{}", text(&output.stderr));
    let (output, _) = train("many", "instructed_layers = 31\n", &from(&plain));
    assert!(text(&output.stderr).contains("is more than the base model's 30 layers"), "{}", text(&output.stderr));
    // The encoder takes all words for one: what tells these apart is what the base model makes of them.
    let effects = |name: &str, description: &str| -> Vec<f32> {
        let out = folder.path().join(name);
        let last = run.join("last");
        let output = t2l(&["generate", description, "--checkpoint", words(&last), "-o", words(&out)]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let adapter = peft::load(&out, &device::parse("cpu").expect("cpu")).expect("an adapter");
        let first = |layer| adapter.get(layer, "v_proj").expect("a place").b.clone().narrow(1, 0, 1);
        (28..30).flat_map(|layer| first(layer).into_data().iter::<f32>().collect::<Vec<_>>()).collect()
    };
    let (one, other) = (effects("one", "Translate into French."), effects("other", "Count the vowels aloud."));
    assert!(one.iter().zip(&other).filter(|(a, b)| (*a - *b).abs() > 1e-4).count() > 300, "{one:?}");
}

#[test]
fn quoted_words_reach_the_adapter_letter_by_letter() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let encoder = decoder(folder.path(), "qwen2");
    let train = |name: &str, encoder: &Path, more: &str| train(folder.path(), name, encoder, "", more);
    let (output, plain) = train("plain", &encoder, "[run]\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let quoted = format!("quoted_words = true\n[run]\nstart_from = {:?}\n", plain.join("last"));
    let (output, _) = train("other", &decoder(folder.path(), "llama"), &quoted);
    assert!(text(&output.stderr).contains("was trained with another encoder"), "{}", text(&output.stderr));
    // Nothing is quoted in these tasks: what was widened learns nothing of it, a fresh one has it from the start.
    let (output, widened) = train("widened", &encoder, &quoted);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (output, run) = train("fresh", &encoder, "quoted_words = true\n[run]\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for run in [&widened, &run] {
        let checkpoint = Checkpoint::load(&run.join("last"), &device::parse("cpu").expect("cpu")).expect("loads");
        assert!(checkpoint.manifest.quoted_words);
        assert_eq!(checkpoint.hypernet.config.embedding, 32 + 576);
    }
    // The encoder knows none of these words, and takes them for one.
    let factors = |name: &str, description: &str| {
        let (last, out) = (run.join("last"), folder.path().join(name));
        let output = t2l(&["generate", description, "--checkpoint", words(&last), "-o", words(&out)]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        // Without the header, which holds the description.
        let file = std::fs::read(out.join("adapter_model.safetensors")).expect("an adapter");
        let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
        file[8 + header..].to_vec()
    };
    let large = factors("large", "Say \"Yes\".");
    assert!(large != factors("small", "Say \"yes\"."), "quoted in other letters");
    assert!(large == factors("again", "Say “Yes”."), "quoted with other marks");
    assert!(factors("bare", "Say Yes.") == factors("bare-small", "Say yes."), "not quoted");
}

#[test]
fn a_hypernetwork_is_trained_on_a_decoders_embeddings() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let encoder = decoder(folder.path(), "qwen2");
    let data = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
    let config = folder.path().join("config.toml");
    let settings = format!(
        "[data]\ndir = {data:?}\nsplit = \"train\"\n[model]\nencoder = {encoder:?}\n[hypernet]\narch = \"S\"\nlatent = 16\nhead_in = 16\n\
         [sampling]\ntasks_per_step = 1\nmax_tokens = 64\n[run]\nsteps = 1\nvalidate_every = 0\n"
    );
    std::fs::write(&config, settings).expect("written");
    let run = folder.path().join("run");
    let output = t2l(&["train", "sft", words(&config), "-o", words(&run)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let device = device::parse("cpu").expect("cpu");
    let checkpoint = Checkpoint::load(&run.join("last"), &device).expect("a checkpoint");
    assert_eq!(checkpoint.hypernet.config.embedding, 32);
    assert_eq!(checkpoint.manifest.encoder.sha256, weights_sha256(&encoder).expect("read"));
}
