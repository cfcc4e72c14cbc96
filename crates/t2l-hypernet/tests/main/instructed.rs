//! Effects of instructions: what the first rank holds, that nothing else reads them, and who can take them.

use burn::tensor::Tensor;
use proptest::prelude::*;
use serde_json::{Value, json};
use t2l_core::AdapterGenerator;
use t2l_hypernet::{
    Arch, Checkpoint, Conditioning, CopyingStart, Dtype, Hypernet, HypernetConfig, Init, Instructed, InstructedStart,
    MANIFEST, Target, TaskEncoder, WEIGHTS,
};

use crate::checkpoint::{checkpoint, manifest_for, refused};
use crate::support::{at, device, embeddings, generate, plain, small, values};

/// Sizes of v_proj in [`small`].
const IN: usize = 6;
const OUT: usize = 4;
/// Width of what [`small`] reads of a task.
const READ: usize = 5;
const GATE: f64 = 0.5;

/// What effects in `layers` layers may start from.
fn start(hypernet: &Hypernet, layers: usize) -> InstructedStart {
    let worn = hypernet.generate(embeddings(1, hypernet.config.input_width(), 8)).expect("an adapter");
    let scales = (0..layers).map(|layer| 2.0 + layer as f32).collect();
    InstructedStart { rows: embeddings(layers, IN, 3), scales, gate: GATE, worn }
}

fn instructed(config: HypernetConfig, layers: usize) -> Hypernet {
    let mut hypernet = plain(config);
    hypernet.instruct(start(&hypernet, layers)).expect("takes effects");
    hypernet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_first_rank_of_the_last_layers_holds_the_effects(
        arch in prop_oneof![Just(Arch::L), Just(Arch::M), Just(Arch::S), Just(Arch::LA)],
        encoder in prop_oneof![Just(TaskEncoder::Linear), Just(TaskEncoder::Softmax), Just(TaskEncoder::Discrete)],
        layers in 1usize..=3, rank in 1usize..4, tasks in 1usize..4,
    ) {
        let mut config = HypernetConfig { task_encoder: encoder, latent: 20, ..small(arch) };
        config.scaling.rank = rank;
        config.learnable_positions = true;
        let all = config.layout.layers;
        let (read, effects) = (embeddings(tasks, READ, 9), embeddings(tasks, layers * OUT, 10));
        let mut hypernet = instructed(config.clone(), layers);
        let always = embeddings(layers, OUT, 11);
        hypernet.parameters.insert("instructed.always", always.clone());
        // What stands before the effects is read as by a hypernetwork that knows of none.
        let before = generate(&plain(config), &read);
        let after = generate(&hypernet, &Tensor::cat(vec![read, effects.clone()], 1));
        let (rows, always, effects) = (values(embeddings(layers, IN, 3)), values(always), values(effects));
        for (old, new) in before.modules.iter().zip(&after.modules) {
            let told = |layer: usize, r: usize| old.name == "v_proj" && layer >= all - layers && r == 0;
            let (a, b) = (new.a.dims(), new.b.dims());
            prop_assert_eq!((a, b), (old.a.dims(), old.b.dims()));
            let [old_a, new_a, old_b, new_b] = [&old.a, &new.a, &old.b, &new.b].map(|x| values(x.clone()));
            for task in 0..tasks {
                for (layer, r) in (0..all).flat_map(|layer| (0..rank).map(move |r| (layer, r))) {
                    for i in 0..a[3] {
                        let place = [task, layer, r, i];
                        let expected = match told(layer, r) {
                            true => rows[(layer + layers - all) * IN + i],
                            false => at(&old_a, a, place),
                        };
                        prop_assert_eq!(at(&new_a, a, place), expected);
                    }
                    for o in 0..b[2] {
                        let place = [task, layer, o, r];
                        let expected = if told(layer, r) {
                            let nth = layer + layers - all;
                            let effect = effects[(task * layers + nth) * OUT + o];
                            (GATE as f32 * effect + always[nth * OUT + o]) * (2.0 + nth as f32)
                        } else {
                            at(&old_b, b, place)
                        };
                        let found = at(&new_b, b, place);
                        prop_assert!((found - expected).abs() <= 1e-5, "{} {}", found, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_gate_depends_on_the_task() {
    let mut hypernet = instructed(small(Arch::L), 2);
    let weight = embeddings(2, hypernet.config.task_width(), 6);
    hypernet.parameters.insert("instructed.gate.weight", weight.clone());
    let told = embeddings(2, READ + 2 * OUT, 9);
    let output = hypernet.forward(&hypernet.parameters, told.clone(), None).expect("fits");
    let gates = values(output.encoded.expect("encoded").matmul(weight.transpose()).add_scalar(GATE));
    let effects = values(told.narrow(1, READ, 2 * OUT));
    let found = values(output.factors.modules[0].b.clone().narrow(1, 1, 2).narrow(3, 0, 1));
    for (i, (found, effect)) in found.into_iter().zip(effects).enumerate() {
        let expected = gates[i / OUT] * effect * (2.0 + (i / OUT % 2) as f32);
        assert!((found - expected).abs() < 1e-5, "{i}: {found} {expected}");
    }
    assert!((gates[0] - gates[2]).abs() > 1e-3, "{gates:?}");
}

#[test]
fn effects_stand_behind_words_that_are_copied() {
    let words_to_b = || embeddings(2 * OUT, 3, 4).reshape([2, OUT, 3]);
    let copying = || CopyingStart { rows: embeddings(2, IN, 3), words_to_b: words_to_b(), gate: 1.0 };
    let mut both = plain(small(Arch::L));
    both.copy_words(copying()).expect("copies");
    both.instruct(start(&both, 3)).expect("takes effects");
    let mut copies = plain(small(Arch::L));
    copies.copy_words(copying()).expect("copies");
    let read = embeddings(1, READ, 9);
    let last = |h: &Hypernet, told: Tensor<2>| values(generate(h, &told).modules[0].b.clone().narrow(3, 1, 1));
    let told = Tensor::cat(vec![read.clone(), embeddings(1, 3 * OUT, 2)], 1);
    assert_eq!(both.config.scaling.rank, 2);
    assert_eq!(last(&both, told), last(&copies, read));
}

#[test]
fn it_comes_back_from_a_checkpoint_and_goes_between_two() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = |hypernet: Hypernet, name: &str| {
        let path = folder.path().join(name);
        checkpoint(hypernet).save(&path, Dtype::F32).expect("saved");
        Checkpoint::load(&path, &device()).expect("loaded")
    };
    let (from, to) = (stored(plain(small(Arch::L)), "from"), stored(instructed(small(Arch::L), 2), "to"));
    assert_eq!(to.hypernet.config.instructed, Some(Instructed { layers: 2 }));
    assert_eq!((to.hypernet.config.embedding, to.hypernet.config.effects_width()), (READ + 2 * OUT, 2 * OUT));
    let told = embeddings(2, READ + 2 * OUT, 9);
    let (made, loaded) = (generate(&instructed(small(Arch::L), 2), &told), generate(&to.hypernet, &told));
    for (made, loaded) in made.modules.into_iter().zip(loaded.modules) {
        assert_eq!((values(made.a), values(made.b)), (values(loaded.a), values(loaded.b)));
    }
    let worn = |h: &Hypernet| {
        let worn = h.worn_while_instructed().expect("an adapter");
        worn.modules.into_iter().flat_map(|m| [values(m.a), values(m.b)]).collect::<Vec<_>>()
    };
    let plain = plain(small(Arch::L));
    let expected = start(&plain, 2).worn.modules.into_iter().flat_map(|m| [values(m.a), values(m.b)]);
    assert_eq!(worn(&to.hypernet), expected.collect::<Vec<_>>());
    assert!(from.hypernet.worn_while_instructed().is_none());
    // What has no effects yet has the other's from the start: these values are the same whatever the share.
    let between = from.towards(&to, 0.25).expect("of one shape").hypernet;
    for name in ["instructed.A", "instructed.gate.weight", "instructed.gate.bias", "instructed.always"] {
        let of = |hypernet: &Hypernet| values(hypernet.parameters.entry(name).expect(name).values.clone());
        assert_eq!(of(&between), of(&to.hypernet), "{name}");
    }
    assert_eq!(worn(&between), worn(&to.hypernet));
    let refused = to.towards(&from, 0.5).expect_err("the other way round");
    assert!(refused.to_string().contains("config"), "{refused}");
}

#[test]
fn a_manifest_that_tells_of_other_effects_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c");
    checkpoint(instructed(small(Arch::L), 2)).save(&path, Dtype::F32).expect("saved");
    let manifest = std::fs::read(path.join(MANIFEST)).expect("a manifest");
    let weights = std::fs::read(path.join(WEIGHTS)).expect("weights");
    let with = |told: &Value| manifest_for(&manifest, &weights, |m| m["config"]["instructed"] = told.clone());
    assert!(Checkpoint::from_bytes(&with(&json!({"layers": 2})), &weights, &device()).is_ok());
    for (told, expected) in [
        (json!({"layers": 4}), "instructed.layers = 4"),
        (json!({"layers": 0}), "instructed.layers = 0"),
        (json!({"layers": usize::MAX}), "instructed.layers"),
        (json!({"layers": 2, "from": 1}), "unknown field"),
        (json!({"layers": 1}), "shape"),
        (json!({"layers": 3}), ""),
        (json!(null), "instructed."),
    ] {
        let message = refused(&with(&told), &weights).to_string();
        assert!(message.contains(expected), "{told}: {message}");
    }
    let narrow = manifest_for(&manifest, &weights, |m| m["config"]["embedding"] = json!(2 * OUT));
    assert!(refused(&narrow, &weights).to_string().contains("not more than the effects"));
}

#[test]
fn who_cannot_take_effects_is_refused() {
    let refused = |config: HypernetConfig, change: fn(&mut InstructedStart)| {
        let mut hypernet = plain(config);
        let mut start = start(&hypernet, 2);
        change(&mut start);
        hypernet.instruct(start).expect_err("refused").to_string()
    };
    let told = |message: String, expected: &str| assert!(message.contains(expected), "{message}");
    let same: fn(&mut InstructedStart) = |_| ();
    told(refused(small(Arch::L), |s| s.rows = embeddings(4, IN, 3)), "instructed.layers = 4");
    told(refused(HypernetConfig { conditioning: Conditioning::OneHot, ..small(Arch::L) }, same), "read descriptions");
    told(refused(HypernetConfig { target: Target::Factorized, ..small(Arch::L) }, same), "language model");
    let mut elsewhere = small(Arch::L);
    elsewhere.layout.modules.remove(0);
    told(refused(elsewhere, same), "needs v_proj");
    told(refused(small(Arch::L), |s| s.rows = embeddings(2, IN - 1, 3)), "does not fit");
    told(refused(small(Arch::L), |s| s.scales.truncate(1)), "does not fit");
    told(refused(small(Arch::L), |s| s.worn.modules.truncate(1)), "does not fit");
    let mut one_rank = small(Arch::L);
    one_rank.scaling.rank = 1;
    let mut copies = plain(one_rank);
    let words_to_b = embeddings(2 * OUT, 3, 4).reshape([2, OUT, 3]);
    copies.copy_words(CopyingStart { rows: embeddings(2, IN, 3), words_to_b, gate: 1.0 }).expect("copies");
    told(copies.instruct(start(&copies, 2)).expect_err("no rank left").to_string(), "a rank too few");
    let mut twice = instructed(small(Arch::L), 2);
    told(twice.instruct(start(&plain(small(Arch::L)), 2)).expect_err("twice").to_string(), "does not fit");
    let config = HypernetConfig { instructed: Some(Instructed { layers: 1 }), ..small(Arch::L) };
    told(Hypernet::new(config, Init::Reconstruction, 1, &device()).expect_err("no base").to_string(), "instruct");
}
