//! Checkpoints: what is saved comes back; whatever is damaged or lies is an error that names file and tensor.

use std::path::Path;

use half::bf16;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sha2::{Digest, Sha256};
use t2l_core::AdapterGenerator;
use t2l_hypernet::{
    Arch, Checkpoint, Dtype, Hypernet, HypernetError, Init, MANIFEST, Manifest, ModelRef, Rendering, VERSION, WEIGHTS,
};
use tempfile::TempDir;

use crate::support::{device, embeddings, small, values};

pub fn checkpoint(hypernet: Hypernet) -> Checkpoint {
    let manifest = Manifest {
        version: VERSION,
        created_by: "t2l 0.0.0".into(),
        config: hypernet.config.clone(),
        base_model: ModelRef { id: "tiny".into(), name: None, sha256: Some("00".repeat(32)) },
        encoder: ModelRef { id: "tiny-encoder".into(), name: Some("tiny".into()), sha256: None },
        quoted_words: true,
        rendering: Rendering { max_tokens: 128, input_share: 0.5, system_turn: false },
        recipe: serde_json::json!({ "steps": 3 }),
        weights_sha256: String::new(),
    };
    Checkpoint { manifest, hypernet }
}

fn fresh(seed: u64) -> Checkpoint {
    checkpoint(Hypernet::new(small(Arch::M), Init::Reconstruction, seed, &device()).expect("fresh"))
}

/// A saved checkpoint's two files.
fn saved() -> (Vec<u8>, Vec<u8>) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("c");
    fresh(1).save(&path, Dtype::F32).expect("saved");
    (std::fs::read(path.join(MANIFEST)).expect("manifest"), std::fs::read(path.join(WEIGHTS)).expect("weights"))
}

/// The manifest with other words for some keys; `weights` decides the hash.
pub fn manifest_for(manifest: &[u8], weights: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(manifest).expect("JSON");
    value["weights_sha256"] = Sha256::digest(weights).iter().map(|b| format!("{b:02x}")).collect::<String>().into();
    edit(&mut value);
    serde_json::to_vec(&value).expect("JSON")
}

pub fn refused(manifest: &[u8], weights: &[u8]) -> HypernetError {
    Checkpoint::from_bytes(manifest, weights, &device()).expect_err("refused")
}

#[test]
fn a_saved_checkpoint_comes_back() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("deep/checkpoint.v1");
    let made = fresh(1);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F32] {
        let hash = made.save(&path, dtype).expect("saved");
        for from in [path.clone(), path.join(WEIGHTS)] {
            let loaded = Checkpoint::load(&from, &device()).expect("loaded");
            assert_eq!(loaded.sha256(), hash);
            assert_eq!(loaded.manifest, Manifest { weights_sha256: hash.clone(), ..made.manifest.clone() });
            for (name, entry) in made.hypernet.parameters.iter() {
                let found = loaded.hypernet.parameters.entry(name).expect(name);
                assert_eq!(found.shape, entry.shape, "{name}");
                let expected = values(entry.values.clone()).into_iter();
                let expected: Vec<f32> = match dtype {
                    Dtype::F32 => expected.collect(),
                    Dtype::Bf16 => expected.map(|x| bf16::from_f32(x).to_f32()).collect(),
                };
                assert_eq!(values(found.values.clone()), expected, "{name}");
            }
        }
    }
    let beside: Vec<_> = std::fs::read_dir(folder.path().join("deep")).expect("parent").collect();
    assert_eq!(beside.len(), 1, "something was left behind: {beside:?}");
}

#[test]
fn a_refused_save_leaves_what_was_there() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("c");
    let hash = fresh(1).save(&path, Dtype::F32).expect("saved");
    let mut broken = fresh(2);
    let (_, entry) = broken.hypernet.parameters.iter_mut().next().expect("a tensor");
    entry.values = entry.values.clone().mul_scalar(f32::NAN);
    let error = broken.save(&path, Dtype::F32).expect_err("NaN").to_string();
    assert!(error.contains("NaN") && error.contains("heads.q_proj.bias"), "{error}");
    assert_eq!(Checkpoint::load(&path, &device()).expect("the old one").sha256(), hash);

    // A folder with somebody's notes in it is not a checkpoint to replace.
    std::fs::write(path.join("notes.txt"), "mine").expect("notes");
    let error = fresh(2).save(&path, Dtype::F32).expect_err("notes").to_string();
    assert!(error.contains("notes.txt"), "{error}");
    assert!(path.join("notes.txt").exists());
    assert_eq!(Checkpoint::load(&path, &device()).expect("the old one").sha256(), hash);

    // A file in the way, a folder in the way of the parent, no name at all.
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("file");
    for path in [file.clone(), file.join("c"), folder.path().join("..")] {
        fresh(2).save(&path, Dtype::F32).expect_err("in the way");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 2, "something was left behind");
}

#[test]
fn a_save_that_was_killed_between_its_renames_is_put_right() {
    let folder = TempDir::new().expect("a folder");
    let (last, aside) = (folder.path().join("last"), folder.path().join(".t2l-partial-last-AbCdEf"));
    let other = folder.path().join(".t2l-partial-last-but-one-AbCdEf");
    let checkpoint = fresh(1);
    checkpoint.save(&last, Dtype::F32).expect("saved");
    std::fs::create_dir_all(aside.join("new")).expect("a folder");
    std::fs::create_dir_all(other.join("replaced")).expect("a folder");
    std::fs::rename(&last, aside.join("replaced")).expect("renamed");
    // The next save fails, and leaves the earlier checkpoint where it was.
    std::fs::write(aside.join("replaced/notes.txt"), "mine").expect("written");
    checkpoint.save(&last, Dtype::F32).expect_err("notes are in the way");
    assert!(last.join("manifest.json").is_file() && !aside.exists() && other.exists());
    std::fs::remove_file(last.join("notes.txt")).expect("removed");
    checkpoint.save(&last, Dtype::F32).expect("saved");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 2);
}

#[test]
fn missing_files_are_named() {
    let folder = TempDir::new().expect("a folder");
    let error = |path: &Path| Checkpoint::load(path, &device()).expect_err("missing").to_string();
    assert!(error(&folder.path().join("nowhere")).contains("nowhere"));
    assert!(error(folder.path()).contains(MANIFEST));
    let (manifest, _) = saved();
    std::fs::write(folder.path().join(MANIFEST), manifest).expect("manifest");
    assert!(error(folder.path()).contains(WEIGHTS));
}

#[test]
fn a_runs_folder_says_where_its_checkpoint_is() {
    let run = TempDir::new().expect("a folder");
    fresh(1).save(&run.path().join("last"), Dtype::F32).expect("saved");
    let refused = || Checkpoint::load(run.path(), &device()).expect_err("no checkpoint itself").to_string();
    assert!(refused().contains(&format!("its checkpoint is {}", run.path().join("last").display())), "{}", refused());
    fresh(1).save(&run.path().join("best"), Dtype::F32).expect("saved");
    assert!(refused().ends_with("best"), "{}", refused());
}

#[test]
fn files_too_long_are_not_read() {
    let folder = TempDir::new().expect("a folder");
    let (manifest, weights) = saved();
    let long = |name: &str| {
        let file = std::fs::File::create(folder.path().join(name)).expect("file");
        file.set_len(1 << 40).expect("a sparse file");
    };
    std::fs::write(folder.path().join(MANIFEST), manifest).expect("manifest");
    long(WEIGHTS);
    let error = Checkpoint::load(folder.path(), &device()).expect_err("too long").to_string();
    assert!(error.contains(WEIGHTS) && error.contains("more than"), "{error}");
    std::fs::write(folder.path().join(WEIGHTS), weights).expect("weights");
    long(MANIFEST);
    let error = Checkpoint::load(folder.path(), &device()).expect_err("too long").to_string();
    assert!(error.contains(MANIFEST) && error.contains("more than"), "{error}");
}

#[test]
fn hostile_manifests_are_refused() {
    let (manifest, weights) = saved();
    assert!(Checkpoint::from_bytes(&manifest, &weights, &device()).is_ok());
    for end in 0..manifest.len() - 2 {
        assert!(matches!(refused(&manifest[..end], &weights), HypernetError::Manifest { .. }), "cut at {end}");
    }
    let huge = Value::from(u64::MAX);
    type Edit = Box<dyn FnOnce(&mut Value)>;
    let cases: Vec<(&str, Edit)> = vec![
        ("version", Box::new(|v| v["version"] = Value::from(VERSION + 1))),
        ("version", Box::new(|v| v["version"] = Value::from(-1))),
        ("version", Box::new(|v| v["version"] = Value::Null)),
        ("SHA-256", Box::new(|v| v["weights_sha256"] = "00".into())),
        ("weights_sha256", Box::new(|v| drop(v.as_object_mut().expect("object").remove("weights_sha256")))),
        ("unknown variant", Box::new(|v| v["config"]["arch"] = "Q".into())),
        ("surprise", Box::new(|v| v["config"]["surprise"] = 1.into())),
        ("dropout", Box::new(|v| v["config"]["dropout"] = 1.0.into())),
        ("named twice", Box::new(|v| v["config"]["layout"]["modules"][1]["name"] = "v_proj".into())),
        ("module", Box::new(|v| v["config"]["layout"]["modules"][0]["name"] = "../v_proj".into())),
        ("module", Box::new(|v| v["config"]["layout"]["modules"][0]["name"] = "".into())),
        ("modules", Box::new(|v| v["config"]["layout"]["modules"] = Value::Array(vec![]))),
        // Sizes that are possible alone, and not together.
        (
            "more than any",
            Box::new(|v| {
                v["config"]["scaling"]["rank"] = (1 << 12).into();
                v["config"]["layout"]["layers"] = (1 << 10).into();
                v["config"]["layout"]["modules"][0]["in_features"] = (1 << 19).into();
            }),
        ),
        // A small checkpoint, whose rows are very many while it generates.
        (
            "more than are held at once",
            Box::new(|v| {
                let module =
                    |i: usize| serde_json::json!({ "name": format!("m{i}"), "in_features": 1, "out_features": 1 });
                v["config"]["arch"] = "S".into();
                v["config"]["offset"] = "none".into();
                v["config"]["scaling"]["rank"] = (1 << 12).into();
                v["config"]["layout"]["layers"] = (1 << 10).into();
                v["config"]["layout"]["modules"] = (0..64).map(module).collect();
            }),
        ),
    ];
    for (word, edit) in cases {
        let error = refused(&manifest_for(&manifest, &weights, edit), &weights).to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert!(error.contains(MANIFEST) || error.contains(WEIGHTS), "{error}");
    }
    // Every size of the configuration, one off or absurd: found in the tensors, or out of range.
    for key in ["/latent", "/head_in", "/embedding", "/scaling/rank", "/layout/layers"] {
        for size in [Value::from(0), Value::from(7), Value::from(1 << 12), huge.clone()] {
            let edit = |v: &mut Value| *v["config"].pointer_mut(key).expect("a key") = size.clone();
            let error = refused(&manifest_for(&manifest, &weights, edit), &weights).to_string();
            assert!(error.contains(MANIFEST) || error.contains("tensor"), "{key} {size}: {error}");
        }
    }
}

#[test]
fn damaged_weights_are_refused() {
    let (manifest, weights) = saved();
    for end in (0..weights.len()).step_by(37) {
        // As they are, and with a manifest that agrees with the damage.
        assert!(refused(&manifest, &weights[..end]).to_string().contains("SHA-256"), "cut at {end}");
        let error = refused(&manifest_for(&manifest, &weights[..end], |_| {}), &weights[..end]);
        assert!(error.to_string().contains(WEIGHTS), "cut at {end}: {error}");
    }
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().expect("a length")) as usize;
    for bit in 0..header * 8 {
        let mut flipped = weights.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // In the header a flip may be harmless (white space); it must never be a panic.
        let _ = Checkpoint::from_bytes(&manifest_for(&manifest, &flipped, |_| {}), &flipped, &device());
        assert!(refused(&manifest, &flipped).to_string().contains("SHA-256"), "bit {bit}");
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 100_000_001, 0] {
        let mut lying = weights.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(refused(&manifest_for(&manifest, &lying, |_| {}), &lying), HypernetError::Weights { .. }));
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (manifest, weights) = saved();
    let file = safetensors::SafeTensors::deserialize(&weights).expect("weights");
    let all = || file.tensors().into_iter().map(|(n, v)| (n, v.dtype(), v.shape().to_vec(), v.data().to_vec()));
    type Tensor = (String, safetensors::Dtype, Vec<usize>, Vec<u8>);
    let error = |tensors: Vec<Tensor>| {
        let views = tensors.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).expect("a view")));
        let bytes = safetensors::serialize(views, None).expect("weights");
        refused(&manifest_for(&manifest, &bytes, |_| {}), &bytes).to_string()
    };
    let names = |message: &str, word: &str| {
        assert!(message.contains(WEIGHTS) && message.contains("mixer.1.bias") && message.contains(word), "{message}");
    };
    names(&error(all().filter(|t| t.0 != "mixer.1.bias").collect()), "missing");
    let with = |edit: fn(&mut Tensor)| {
        let edited = all().map(|mut t| {
            if t.0 == "mixer.1.bias" {
                edit(&mut t);
            }
            t
        });
        error(edited.collect())
    };
    names(&with(|t| t.0 = "mixer.1.bias2".into()), "does not belong");
    names(&with(|t| t.2 = vec![t.2[0] / 2, 2]), "shape");
    names(&with(|t| t.1 = safetensors::Dtype::I32), "type");
    names(&with(|t| t.3[4..8].copy_from_slice(&f32::NAN.to_le_bytes())), "value 1 is NaN");
    names(&with(|t| t.3[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())), "value 0 is inf");
}

#[test]
fn a_loaded_hypernetwork_generates_the_same() {
    let (manifest, weights) = saved();
    let loaded = Checkpoint::from_bytes(&manifest, &weights, &device()).expect("loaded");
    let tasks = embeddings(3, 5, 1);
    let (before, after) = (fresh(1).hypernet.generate(tasks.clone()), loaded.hypernet.generate(tasks));
    for (x, y) in before.expect("before").modules.iter().zip(after.expect("after").modules) {
        assert_eq!(values(x.a.clone()), values(y.a));
        assert_eq!(values(x.b.clone()), values(y.b));
    }
}

#[test]
fn between_two_lie_the_weights_in_between() {
    let folder = TempDir::new().expect("a folder");
    let stored = |made: Checkpoint, name: &str| {
        let path = folder.path().join(name);
        made.save(&path, Dtype::F32).expect("saved");
        Checkpoint::load(&path, &device()).expect("loaded")
    };
    let mut from = fresh(1);
    from.manifest.quoted_words = false;
    let mut to = fresh(2);
    to.hypernet.widen(3);
    let (from, to) = (stored(from, "from"), stored(to, "to"));
    for share in [0.0, 0.25, 1.0] {
        let made = from.towards(&to, share).expect("of one shape");
        assert_eq!(made.hypernet.config, to.hypernet.config);
        assert!(made.manifest.quoted_words);
        let between = &made.manifest.recipe["between"];
        assert_eq!((&between["from"], &between["to"]), (&Value::from(from.sha256()), &Value::from(to.sha256())));
        let mut start = from.hypernet.clone();
        start.widen(3);
        for ((name, a), (_, b)) in start.parameters.iter().zip(to.hypernet.parameters.iter()) {
            let found = values(made.hypernet.parameters.entry(name).expect(name).values.clone());
            for ((a, b), found) in values(a.values.clone()).into_iter().zip(values(b.values.clone())).zip(found) {
                let expected = a * (1.0 - share as f32) + b * share as f32;
                assert!((found - expected).abs() < 1e-6, "{name}: {found} {expected}");
            }
        }
        stored(made, "made");
    }
    let refused = |from: &Checkpoint, to: &Checkpoint, share| from.towards(to, share).expect_err("refused").to_string();
    assert!(refused(&from, &to, 1.5).contains("share = 1.5"));
    assert!(refused(&from, &to, f64::NAN).contains("share = NaN"));
    // The other way round there is nothing that the words could go to.
    assert!(refused(&to, &from, 0.5).contains("config"), "{}", refused(&to, &from, 0.5));
    let mut other = to.clone();
    other.manifest.encoder.id = "another".into();
    assert!(refused(&from, &other, 0.5).contains("another for tiny"));
}
