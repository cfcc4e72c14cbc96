//! Small folders of our own: what the three files decide, and what has to be told.

use serde_json::{Value, json};
use t2l_hypernet::import::ImportError;
use t2l_hypernet::{
    Arch, Checkpoint, Conditioning, Hypernet, HypernetConfig, Init, Offset, Target, TaskEncoder, import,
};
use tempfile::TempDir;

use super::pt::{self, State};
use crate::support::{device, embeddings, small, values};

/// A hypernetwork and its state dict, statistics and zero offsets included, as the published code stores them.
pub fn published(config: HypernetConfig) -> (Hypernet, State) {
    let hypernet = Hypernet::new(config, Init::Reconstruction, 3, &device()).expect("fresh");
    let all = hypernet.parameters.iter().chain(hypernet.buffers.iter());
    let tensors = all.map(|(name, p)| (name.to_owned(), p.shape.clone(), values(p.values.clone())));
    let mut tensors: Vec<_> = tensors.collect();
    let (layers, rank) = (hypernet.config.layout.layers, hypernet.config.scaling.rank);
    let mut modules = hypernet.config.layout.modules.clone();
    // The heads in index order, everything else by name.
    let place = |name: &str| modules.iter().position(|m| name.starts_with(&format!("heads.{}.", m.name)));
    tensors.sort_by_key(|(name, ..)| (place(name), name.clone()));
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    let mut first = Vec::new();
    for part in ["AB_offset", "mean_recon_target", "std_recon_target"] {
        for m in &modules {
            for (x, shape) in [("A", [layers, rank, m.in_features]), ("B", [layers, m.out_features, rank])] {
                let name = format!("{part}.{x}.{}", m.name);
                if !tensors.iter().any(|t| t.0 == name) {
                    first.push((name, shape.to_vec(), vec![0.0; shape.iter().product()]));
                }
            }
        }
    }
    first.append(&mut tensors);
    (hypernet, State { tensors: first })
}

/// args.yaml of a configuration.
pub fn args(config: &HypernetConfig) -> String {
    let (task, factorized, z) = match config.target {
        Target::Sft => ("sft", false, true),
        Target::Factorized => ("recon", true, false),
        Target::ZScored => ("recon", true, true),
        Target::DeltaW { .. } => ("recon", false, true),
    };
    format!(
        "training_task: {task}\nfactorized: {factorized}\npred_z_score: {z}\nshared_AB_head: {}\nautoreg_gen: {}\n\
         learnable_pos_emb: {}\nhypernet_latent_size: {}\nuse_one_hot_task_emb: {}\nemb_model: encoder/of-texts\n\
         inp_max_len: 256\nsave_freq: 1{}\n",
        config.arch.shares_head(),
        config.arch.by_rank(),
        config.learnable_positions,
        config.latent,
        config.conditioning == Conditioning::OneHot,
        "0".repeat(100)
    )
}

pub fn adapter() -> Value {
    json!({
        "base_model_name_or_path": "tiny", "r": 2, "lora_alpha": 8, "use_rslora": true,
        "target_modules": ["q_proj", "v_proj"],
    })
}

pub fn import_with(state: &State, args: &str, adapter: &Value, base: Option<Value>) -> Result<Checkpoint, ImportError> {
    let folder = TempDir::new().expect("a folder");
    pt::folder(folder.path(), &state.bytes(b""), args, adapter);
    let path = folder.path().join("config.json");
    let base = base.map(|config| {
        std::fs::write(&path, config.to_string()).expect("written");
        path.as_path()
    });
    import::sakana(folder.path(), base, &device())
}

/// The config.json of a model whose q_proj is 6 → 9 and whose v_proj is 6 → 4... as 3 heads and 1 of them for keys.
fn base(layers: usize, hidden: usize, head: usize) -> Value {
    json!({
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": 3, "num_key_value_heads": 1,
        "head_dim": head, "intermediate_size": 20,
    })
}

#[test]
fn every_kind_arrives_as_it_was() {
    for arch in [Arch::L, Arch::M, Arch::S, Arch::LA] {
        for task_encoder in [TaskEncoder::Linear, TaskEncoder::Softmax, TaskEncoder::Vq, TaskEncoder::Discrete] {
            for (learnable_positions, target) in
                [(false, Target::Sft), (true, Target::ZScored), (false, Target::DeltaW { scaling: 10_000.0 })]
            {
                let conditioning = if learnable_positions { Conditioning::OneHot } else { Conditioning::Text };
                let learnable_positions = learnable_positions && arch.by_rank();
                let mut config =
                    HypernetConfig { task_encoder, learnable_positions, target, conditioning, ..small(arch) };
                if task_encoder == TaskEncoder::Discrete {
                    // 64 + layers + modules, even for the rotation.
                    config.layout.layers = 4;
                }
                let (hypernet, state) = published(config.clone());
                let found = import_with(&state, &args(&config), &adapter(), None).expect("imported");
                assert_eq!(found.hypernet.config, config);
                assert_eq!(found.manifest.rendering.max_tokens, 256);
                let encoder = if conditioning == Conditioning::Text { "encoder/of-texts" } else { "none" };
                assert_eq!(found.manifest.encoder.id, encoder);
                let all = hypernet.parameters.iter().chain(hypernet.buffers.iter());
                for (name, entry) in all {
                    let there =
                        found.hypernet.parameters.entry(name).or(found.hypernet.buffers.entry(name)).expect(name);
                    assert_eq!(values(there.values.clone()), values(entry.values.clone()), "{name}");
                }
            }
        }
    }
}

#[test]
fn the_order_of_heads_is_the_index_order() {
    let config = small(Arch::L);
    let (_, state) = published(config.clone());
    let mut turned = state.clone();
    let head = |t: &(String, Vec<usize>, Vec<f32>)| t.0.starts_with("heads.q_proj");
    let (q, rest): (Vec<_>, Vec<_>) = turned.tensors.into_iter().partition(head);
    turned.tensors = rest;
    let at = turned.tensors.iter().position(|t| t.0.starts_with("heads.v_proj")).expect("a head");
    turned.tensors.splice(at..at, q);
    let order = |state: &State| {
        let found = import_with(state, &args(&config), &adapter(), None).expect("imported");
        found.manifest.config.layout.modules.iter().map(|m| m.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(order(&state), ["v_proj", "q_proj"]);
    assert_eq!(order(&turned), ["q_proj", "v_proj"]);
}

#[test]
fn offsets_count_where_they_are_used() {
    let config = small(Arch::M);
    let (_, state) = published(config.clone());
    let moved = state.clone().edit("AB_offset.B.q_proj", |t| t.2[3] = 0.5);
    let found = |state: &State, args: &str| import_with(state, args, &adapter(), None).expect("imported").hypernet;
    assert_eq!(found(&state, &args(&config)).config.offset, Offset::None);
    let with = found(&moved, &args(&config));
    assert_eq!(with.config.offset, Offset::Frozen);
    assert_eq!(values(with.buffers.get::<3>("AB_offset.B.q_proj"))[3], 0.5);
    let trained = args(&config) + "learnable_AB_offset: true\n";
    assert_eq!(found(&state, &trained).config.offset, Offset::Trainable);
    // ΔW targets never saw them.
    let recon = args(&HypernetConfig { target: Target::DeltaW { scaling: 1.0 }, ..config });
    assert_eq!(found(&moved, &recon).config.offset, Offset::None);
}

#[test]
fn old_checkpoints_need_the_base_models_config() {
    let mut config = small(Arch::M);
    config.layout.modules[0].out_features = 3;
    let (hypernet, state) = published(config.clone());
    let bare = state.clone().without("AB_offset").without("mean_").without("std_");
    let error = import_with(&bare, &args(&config), &adapter(), None).expect_err("not told");
    assert!(matches!(error, ImportError::BaseConfigNeeded { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("hypermod.pt") && message.contains("v_proj") && message.contains("--base-config"),
        "{message}"
    );

    let found = import_with(&bare, &args(&config), &adapter(), Some(base(3, 6, 3))).expect("told");
    assert_eq!(found.hypernet.config, config);
    let tasks = embeddings(2, 5, 1);
    let generated = |h: &Hypernet| {
        values(h.forward(&h.parameters, tasks.clone(), None).expect("forward").factors.modules[1].b.clone())
    };
    assert_eq!(generated(&found.hypernet), generated(&hypernet));
    // The statistics tell as well as offsets do.
    for part in ["AB_offset", "mean_", "std_"] {
        let others = ["AB_offset", "mean_", "std_"].into_iter().filter(|p| *p != part);
        let state = others.fold(state.clone(), State::without);
        assert_eq!(import_with(&state, &args(&config), &adapter(), None).expect("told").hypernet.config, config);
    }
    // Another base model than the tensors were made for.
    for (state, other) in
        [(&state, base(3, 6, 2)), (&state, base(2, 6, 3)), (&bare, base(2, 6, 3)), (&bare, base(3, 9, 5))]
    {
        let error = import_with(state, &args(&config), &adapter(), Some(other)).expect_err("another model").to_string();
        assert!(error.contains("config.json") || error.contains("layers") || error.contains("heads."), "{error}");
    }
    for nonsense in [json!({}), json!([]), base(3, 6, usize::MAX), json!({"num_hidden_layers": -1})] {
        let error = import_with(&bare, &args(&config), &adapter(), Some(nonsense)).expect_err("nonsense").to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}

#[test]
fn vq_without_running_statistics_is_recognised() {
    let config = HypernetConfig { task_encoder: TaskEncoder::Vq, ..small(Arch::S) };
    let (_, state) = published(config.clone());
    let state = state.without("task_encoder.cluster_size").without("task_encoder.embed_avg");
    let found = import_with(&state, &args(&config), &adapter(), None).expect("imported").hypernet;
    assert_eq!(found.config, config);
    assert_eq!(values(found.buffers.get::<1>("task_encoder.cluster_size")), vec![0.0; 32]);
}

#[test]
fn files_at_odds_with_each_other_are_named() {
    let config = small(Arch::L);
    let (_, state) = published(config.clone());
    let error = |state: &State, args: &str, adapter: &Value| {
        import_with(state, args, adapter, None).expect_err("refused").to_string()
    };
    let with = |key: &str, value: Value| {
        let mut adapter = adapter();
        adapter[key] = value;
        error(&state, &args(&config), &adapter)
    };
    for (key, value, word) in [
        ("r", json!(4), "tensor AB_offset.A.v_proj"),
        ("r", json!(0), "AB_offset"),
        ("r", json!(-1), "adapter_config.json"),
        ("r", json!(u64::MAX), "AB_offset"),
        ("target_modules", json!(["q_proj"]), "target_modules"),
        ("target_modules", json!(["q_proj", "k_proj"]), "target_modules"),
        ("rank_pattern", json!({"q_proj": 4}), "rank_pattern"),
        ("use_dora", json!(true), "use_dora"),
        ("layers_to_transform", json!([1]), "layers_to_transform"),
    ] {
        let message = with(key, value);
        assert!(message.contains(word), "{key}: {message}");
    }
    let swap = |from: &str, to: &str| error(&state, &args(&config).replace(from, to), &adapter());
    assert!(swap("shared_AB_head: false", "shared_AB_head: true").contains("heads."));
    assert!(swap("autoreg_gen: false", "autoreg_gen: true").contains("heads."));
    assert!(swap("latent_size: 16", "latent_size: 24").contains("task_encoder"));
    assert!(swap("latent_size: 16", "latent_size: 18446744073709551615").contains("latent"));
    let lost = state.clone().without("mixer.4.bias");
    assert!(error(&lost, &args(&config), &adapter()).contains("tensor mixer.4.bias: is missing"));
    let nan = state.clone().edit("mixer.4.bias", |t| t.2[1] = f32::NAN);
    assert!(error(&nan, &args(&config), &adapter()).contains("tensor mixer.4.bias: value 1 is NaN"));
    let mut more = state.clone();
    more.tensors.push(("surprise.\u{1b}[31m".into(), vec![1], vec![1.0]));
    let message = error(&more, &args(&config), &adapter());
    assert!(
        message.contains("surprise") && message.contains("does not belong") && !message.contains('\u{1b}'),
        "{message}"
    );
    let none = state.clone().without("heads.");
    assert!(error(&none, &args(&config), &adapter()).contains("not a hypernetwork"));
    let twice = {
        let mut twice = state;
        twice.tensors.push(twice.tensors[0].clone());
        twice
    };
    assert!(error(&twice, &args(&config), &adapter()).contains("twice"));
}
