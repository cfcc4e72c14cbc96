//! A workshop in a folder of its own: a random base model and encoder of a few thousand values, tasks, and the program.
//! Needs nothing downloaded, and a step takes a millisecond.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use super::tiny_tasks;

/// Layers of the base model.
const LAYERS: usize = 3;
/// Sizes of its stream and of its MLP.
const HIDDEN: usize = 32;
const INNER: usize = 48;

pub struct Workshop(TempDir);

impl Workshop {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_base(&folder.path().join("base"));
        write_encoder(&folder.path().join("encoder"));
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a configuration of a small run: `[data]`, `[model]`, `[hypernet]` and `[sampling]`, then `rest`.
    pub fn config(&self, name: &str, rest: &str) -> PathBuf {
        let tasks = std::fs::canonicalize(tiny_tasks()).expect("fixtures");
        let text = format!(
            "[data]\ndir = {tasks:?}\nsplit = \"train\"\nunseen_split = \"unseen\"\n\
             [model]\nbase = \"base\"\nencoder = \"encoder\"\n\
             [hypernet]\narch = \"S\"\nlatent = 8\nhead_in = 8\nrank = 2\n\
             [sampling]\ntasks_per_step = 2\nmax_tokens = 32\n{rest}"
        );
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The program, with a cache of its own, on one thread: beside others it is no slower, and kills hit it anywhere.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = super::command(program);
        command.env("T2L_CACHE", self.path("cache")).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
        command
    }

    fn train_command(&self, config: &Path, run: &Path, extra: &[&str]) -> Command {
        self.trainer_command("sft", config, run, extra)
    }

    fn trainer_command(&self, trainer: &str, config: &Path, run: &Path, extra: &[&str]) -> Command {
        let mut command = self.command(program());
        command.args(["train", trainer]).arg(config).arg("-o").arg(run).args(extra);
        command
    }

    /// Trains until the program ends.
    pub fn train(&self, config: &Path, run: &Path, extra: &[&str]) -> Output {
        self.train_command(config, run, extra).output().expect("it runs")
    }

    /// The same with another trainer than `sft`.
    pub fn train_with(&self, trainer: &str, config: &Path, run: &Path, extra: &[&str]) -> Output {
        self.trainer_command(trainer, config, run, extra).output().expect("it runs")
    }

    /// Starts to train; what it says goes into `said`.
    pub fn start(&self, config: &Path, run: &Path, said: &Path) -> Running {
        let said = std::fs::File::create(said).expect("a file");
        let child = self.train_command(config, run, &[]).stderr(said).stdout(Stdio::null()).spawn();
        Running(child.expect("it starts"))
    }
}

/// A program that is killed where a test fails, rather than left behind.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("t2l")
}

/// Files of a folder and of those below, with their contents; but for the lock and what was drawn.
pub fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for name in super::entries(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if name != "lock" {
            all.push((name, std::fs::read(path).expect("a file")));
        }
    }
    all
}

/// Fails with the name of the first file that is not the same.
pub fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (contents(found), contents(expected));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
}

/// Waits until something is so; fails after five minutes, which only a machine with much else to do needs.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !so() {
        assert!(started.elapsed().as_secs() < 300, "waited five minutes for {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn write_base(folder: &Path) {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![265, HIDDEN]),
        ("lm_head.weight".to_owned(), vec![265, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let mut add =
            |name: &str, shape: &[usize]| shapes.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        for (name, output) in [("q_proj", HIDDEN), ("k_proj", HIDDEN / 2), ("v_proj", HIDDEN / 2), ("o_proj", HIDDEN)] {
            add(&format!("self_attn.{name}"), &[output, HIDDEN]);
        }
        add("mlp.gate_proj", &[INNER, HIDDEN]);
        add("mlp.up_proj", &[INNER, HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, INNER]);
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
    }
    let config = json!({
        "model_type": "llama", "vocab_size": 265, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "eos_token_id": 2,
    });
    write_model(folder, &config, &shapes);
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-tokenizer");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tokenizer.join(name), folder.join(name)).expect("copied");
    }
}

fn write_encoder(folder: &Path) {
    const WIDTH: usize = 8;
    const INNER: usize = 12;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![64, WIDTH]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, WIDTH]),
        ("embeddings.position_embeddings.weight".into(), vec![64, WIDTH]),
        ("embeddings.LayerNorm.weight".into(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".into(), vec![WIDTH]),
    ];
    let mut add = |name: &str, shape: &[usize]| shapes.push((format!("encoder.layer.0.{name}"), shape.to_vec()));
    for (name, output, input) in [
        ("attention.self.query", WIDTH, WIDTH),
        ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH),
        ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", INNER, WIDTH),
        ("output.dense", WIDTH, INNER),
    ] {
        add(&format!("{name}.weight"), &[output, input]);
        add(&format!("{name}.bias"), &[output]);
    }
    for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
        add(&format!("{name}.weight"), &[WIDTH]);
        add(&format!("{name}.bias"), &[WIDTH]);
    }
    let config = json!({
        "model_type": "bert", "vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": INNER, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    });
    write_model(folder, &config, &shapes);
    // Letters alone and inside words: every description has tokens of its own.
    let letters = || (b'a'..=b'z').map(char::from);
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let tokens = special.into_iter().chain(letters().map(String::from)).chain(letters().map(|c| format!("##{c}")));
    std::fs::write(folder.join("vocab.txt"), tokens.collect::<Vec<_>>().join("\n")).expect("written");
}

/// Writes config.json and random weights, of about the size that real ones have.
fn write_model(folder: &Path, config: &serde_json::Value, shapes: &[(String, Vec<usize>)]) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let mut bytes = Vec::new();
    for (_, shape) in shapes {
        let values =
            (0..shape.iter().product()).map(|_| if shape.len() == 1 { 1.0 + 0.2 * random() } else { random() });
        bytes.push(values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
    }
    let views = shapes.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    let weights = safetensors::serialize(views, None).expect("serialises");
    std::fs::write(folder.join("model.safetensors"), weights).expect("written");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
}
