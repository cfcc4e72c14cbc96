//! Writes one well-formed input for every target below `corpus/`, for the fuzzer to start from.

#[path = "../../crates/t2l-hypernet/tests/main/import/pt.rs"]
#[allow(dead_code)]
mod pt;

use std::fs;
use std::path::Path;

use burn::tensor::Tensor;
use t2l_adapter::peft;
use t2l_core::{AdapterGenerator, AdapterLayout, LoraScaling, TargetModule};
use t2l_fuzz::{device, joined};
use t2l_hypernet::{
    Arch, Checkpoint, Dtype, Hypernet, HypernetConfig, Init, MANIFEST, Manifest, ModelRef, Offset, Rendering, VERSION,
    WEIGHTS,
};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
