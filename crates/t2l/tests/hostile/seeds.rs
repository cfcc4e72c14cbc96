//! What the fuzzer starts from: one well-formed input for every target, and the files of `fixtures/hostile`.

#[path = "../../../t2l-hypernet/tests/main/import/pt.rs"]
#[allow(dead_code)]
mod pt;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use burn::tensor::{Device, Tensor};
use safetensors::tensor::TensorView;
use t2l::adapter::peft;
use t2l::core::{AdapterGenerator, AdapterLayout, LoraScaling, TargetModule, device};
use t2l::hypernet::{
    Arch, Checkpoint, Dtype, Hypernet, HypernetConfig, Init, MANIFEST, Manifest, ModelRef, Offset, Rendering, VERSION,
    WEIGHTS,
};

/// What separates files in one input; `fuzz/src/lib.rs` takes them apart again.
const SEPARATOR: &[u8] = b"\n%%%%\n";

fn joined(files: &[&[u8]]) -> Vec<u8> {
    files.join(SEPARATOR)
}

fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| device::parse("cpu").expect("cpu"));
    &DEVICE
}

#[test]
#[ignore = "writes fuzz/corpus"]
fn seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let read = |path: &str| fs::read(root.join("../fixtures").join(path)).expect(path);
    let seed = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("written");
    };
    seed("gguf", "blocks", &read("gguf/blocks.gguf"));
    let config = read("tiny-tokenizer/tokenizer_config.json");
    seed("text", "tiny", &joined(&[&read("tiny-tokenizer/tokenizer.json"), &config, "Say hé <|im_end|>".as_bytes()]));
    let (tasks, splits) = (read("tiny-tasks/tasks.json"), read("tiny-tasks/splits.json"));
    seed("tasks", "tiny", &joined(&[&tasks, b"", &splits, &read("tiny-tasks/tasks/first_letter.jsonl")]));

    // The hostile files, as the targets take them.
    let read_all = |reader: &str, names: &[&str]| -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(root.join("../fixtures/hostile").join(reader)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let bytes = |path: &Path| match names {
            [] => fs::read(path).expect("read"),
            _ => {
                let files: Vec<Vec<u8>> = names.iter().map(|n| fs::read(path.join(n)).unwrap_or_default()).collect();
                joined(&files.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
        };
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        paths.map(|path| (name(&path), bytes(&path))).collect()
    };
    for (target, reader, names) in [
        ("gguf", "gguf", &[][..]),
        ("peft", "adapters", &["adapter_config.json", "adapter_model.safetensors"]),
        ("checkpoint", "checkpoints", &["manifest.json", "hypernet.safetensors"]),
        ("pt_import", "imports", &["args.yaml", "adapter_config.json", "config.json", "hypermod.pt"]),
    ] {
        for (name, bytes) in read_all(reader, names) {
            seed(target, &name, &bytes);
        }
    }
    for (name, bytes) in read_all("tokenizers", &[]) {
        seed("text", &name, &joined(&[&bytes, &config, &[b'a'; 64]]));
    }
    for (name, bytes) in read_all("templates", &[]) {
        let template = serde_json::json!({ "chat_template": String::from_utf8_lossy(&bytes) });
        seed("text", &name, &joined(&[b"{}", template.to_string().as_bytes(), b"Hello"]));
    }

    let (config, weights) = small_model();
    seed("model", "small", &joined(&[config.as_bytes(), b"", &weights]));
    let (config, weights) = small_encoder();
    let tokenizer = read("tiny-tokenizer/tokenizer.json");
    let pooling = br#"{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}"#;
    let modules = br#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    let files: [&[u8]; 6] = [config.as_bytes(), &tokenizer, modules, pooling, &weights, b"Say h"];
    seed("encoder", "small", &joined(&files));

    for arch in [Arch::L, Arch::M, Arch::S, Arch::LA] {
        let name = format!("{arch:?}");
        let hypernet = tiny(arch);
        let folder = tempfile::TempDir::new().expect("a folder");

        let tasks = Tensor::ones([1, 3], device());
        let adapter = hypernet.generate(tasks).expect("generated").adapter(0, "tiny").expect("an adapter");
        let path = folder.path().join("adapter");
        peft::save(&adapter, &path, &peft::SaveOptions::default()).expect("saved");
        let file = |name: &str| fs::read(path.join(name)).expect("a file");
        seed("peft", &name, &joined(&[&file("adapter_config.json"), &file("adapter_model.safetensors")]));

        let all = hypernet.parameters.iter().chain(hypernet.buffers.iter());
        let tensors = all.map(|(name, p)| (name.to_owned(), p.shape.clone(), p.values.to_data().iter().collect()));
        let state = pt::State { tensors: tensors.collect() }.bytes(b"");
        let args = format!(
            "hypernet_latent_size: 8\nshared_AB_head: {}\nautoreg_gen: {}\nemb_model: x\n",
            matches!(arch, Arch::M | Arch::S),
            matches!(arch, Arch::S | Arch::LA)
        );
        let adapter = br#"{"r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny", "target_modules": ["q_proj"]}"#;
        seed("pt_import", &name, &joined(&[args.as_bytes(), adapter, b"", &state]));

        let model = || ModelRef { id: "tiny".into(), name: None, sha256: None };
        let manifest = Manifest {
            version: VERSION,
            created_by: "seeds".into(),
            config: hypernet.config.clone(),
            base_model: model(),
            encoder: model(),
            quoted_words: false,
            rendering: Rendering { max_tokens: 8, input_share: 0.5, system_turn: false },
            recipe: serde_json::Value::Null,
            weights_sha256: String::new(),
        };
        let path = folder.path().join("checkpoint");
        Checkpoint { manifest, hypernet }.save(&path, Dtype::F32).expect("saved");
        let file = |name: &str| fs::read(path.join(name)).expect("a file");
        seed("checkpoint", &name, &joined(&[&file(MANIFEST), &file(WEIGHTS)]));
    }
}

fn tiny(arch: Arch) -> Hypernet {
    let modules = vec![TargetModule::new("q_proj", 2, 3)];
    let layout = AdapterLayout { base_model: "tiny".into(), layers: 2, modules };
    let scaling = LoraScaling { alpha: 4.0, rank: 2, use_rslora: false };
    let config = HypernetConfig::new(arch, layout, scaling, 3);
    let config = HypernetConfig { latent: 8, head_in: 4, offset: Offset::Frozen, ..config };
    Hypernet::new(config, Init::Reconstruction, 1, device()).expect("a hypernetwork")
}

/// A safetensors file of small numbers.
fn tensors(shapes: &[(String, &[usize])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| {
            (0..shape.iter().product()).flat_map(|i: usize| (0.01 * (i % 7) as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = shapes.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (name, TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).expect("a view"))
    });
    safetensors::serialize(views, None).expect("serialised")
}

/// config.json and weights of a decoder.
fn small_model() -> (String, Vec<u8>) {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "tie_word_embeddings": true,
    });
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let shapes: [(String, &[usize]); 11] = [
        ("model.embed_tokens.weight".into(), &[8, 8]),
        ("model.norm.weight".into(), &[8]),
        (layer("input_layernorm"), &[8]),
        (layer("post_attention_layernorm"), &[8]),
        (layer("self_attn.q_proj"), &[8, 8]),
        (layer("self_attn.k_proj"), &[4, 8]),
        (layer("self_attn.v_proj"), &[4, 8]),
        (layer("self_attn.o_proj"), &[8, 8]),
        (layer("mlp.gate_proj"), &[16, 8]),
        (layer("mlp.up_proj"), &[16, 8]),
        (layer("mlp.down_proj"), &[8, 16]),
    ];
    (config.to_string(), tensors(&shapes))
}

/// config.json and weights of a text encoder.
fn small_encoder() -> (String, Vec<u8>) {
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 512, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    });
    let mut shapes: Vec<(String, &[usize])> = vec![
        ("embeddings.word_embeddings.weight".into(), &[512, 8]),
        ("embeddings.position_embeddings.weight".into(), &[32, 8]),
        ("embeddings.token_type_embeddings.weight".into(), &[2, 8]),
    ];
    let mut add = |name: &str, weight: &'static [usize], bias: &'static [usize]| {
        shapes.push((format!("{name}.weight"), weight));
        shapes.push((format!("{name}.bias"), bias));
    };
    add("embeddings.LayerNorm", &[8], &[8]);
    for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        add(&format!("encoder.layer.0.{name}"), &[8, 8], &[8]);
    }
    add("encoder.layer.0.attention.output.LayerNorm", &[8], &[8]);
    add("encoder.layer.0.intermediate.dense", &[16, 8], &[16]);
    add("encoder.layer.0.output.dense", &[8, 16], &[8]);
    add("encoder.layer.0.output.LayerNorm", &[8], &[8]);
    (config.to_string(), tensors(&shapes))
}
