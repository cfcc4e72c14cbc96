//! Copying of quoted words: what the last rank holds, that nothing else is touched, and who can copy.

use burn::tensor::Tensor;
use proptest::prelude::*;
use serde_json::{Value, json};
use t2l_hypernet::{
    Arch, Checkpoint, Conditioning, Copying, CopyingStart, Dtype, Hypernet, HypernetConfig, Init, MANIFEST, Target,
    TaskEncoder, WEIGHTS,
};

use crate::checkpoint::{checkpoint, manifest_for, refused};
use crate::support::{at, device, embeddings, generate, plain, small, values};

const WORDS: usize = 3;
/// Sizes of v_proj in [`small`].
const IN: usize = 6;
const OUT: usize = 4;
const GATE: f64 = 1.5;

/// What copying in `layers` layers may start from.
fn start(layers: usize) -> CopyingStart {
    let words_to_b = embeddings(layers * OUT, WORDS, 4).reshape([layers, OUT, WORDS]);
    CopyingStart { rows: embeddings(layers, IN, 3), words_to_b, gate: GATE }
}

fn copying(config: HypernetConfig, layers: usize) -> Hypernet {
    let mut hypernet = plain(config);
    hypernet.copy_words(start(layers)).expect("copies");
    hypernet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_last_rank_of_the_last_layers_holds_the_words(
        arch in prop_oneof![Just(Arch::L), Just(Arch::M), Just(Arch::S), Just(Arch::LA)],
        encoder in prop_oneof![Just(TaskEncoder::Linear), Just(TaskEncoder::Softmax), Just(TaskEncoder::Discrete)],
        layers in 1usize..=3, rank in 1usize..4, tasks in 1usize..4,
    ) {
        let mut config = HypernetConfig { task_encoder: encoder, latent: 20, ..small(arch) };
        config.scaling.rank = rank;
        config.learnable_positions = true;
        let all = config.layout.layers;
        let told = embeddings(tasks, config.embedding, 9);
        let (before, after) = (generate(&plain(config.clone()), &told), generate(&copying(config, layers), &told));
        let (start, words) = (start(layers), values(told.narrow(1, 2, WORDS)));
        let (rows, map) = (values(start.rows), values(start.words_to_b));
        for (old, new) in before.modules.iter().zip(&after.modules) {
            let copies = |layer: usize, r: usize| old.name == "v_proj" && layer >= all - layers && r == rank - 1;
            let (a, b) = (new.a.dims(), new.b.dims());
            prop_assert_eq!((a, b), (old.a.dims(), old.b.dims()));
            let [old_a, new_a, old_b, new_b] = [&old.a, &new.a, &old.b, &new.b].map(|x| values(x.clone()));
            for task in 0..tasks {
                for (layer, r) in (0..all).flat_map(|layer| (0..rank).map(move |r| (layer, r))) {
                    for i in 0..a[3] {
                        let place = [task, layer, r, i];
                        let expected = match copies(layer, r) {
                            true => rows[(layer + layers - all) * IN + i],
                            false => at(&old_a, a, place),
                        };
                        prop_assert_eq!(at(&new_a, a, place), expected);
                    }
                    for o in 0..b[2] {
                        let place = [task, layer, o, r];
                        let expected = if copies(layer, r) {
                            let row = ((layer + layers - all) * OUT + o) * WORDS;
                            let dot = |(x, y): (&f32, &f32)| f64::from(*x) * f64::from(*y);
                            let words = &words[task * WORDS..(task + 1) * WORDS];
                            (GATE * map[row..row + WORDS].iter().zip(words).map(dot).sum::<f64>()) as f32
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
fn a_gate_depends_on_the_task_and_nothing_quoted_copies_nothing() {
    let mut hypernet = copying(small(Arch::L), 2);
    let width = hypernet.config.task_width();
    let weight = embeddings(2, width, 6) * Tensor::from_data([[1.0], [-0.5]], &device());
    hypernet.parameters.insert("copying.gate.weight", weight.clone());
    let told = embeddings(2, 5, 9);
    let output = hypernet.forward(&hypernet.parameters, told.clone(), None).expect("fits");
    let gates = values(output.encoded.expect("encoded").matmul(weight.transpose()).add_scalar(GATE));
    let start = start(2);
    let map = start.words_to_b.reshape([2 * OUT, WORDS]);
    let words = values(told.narrow(1, 2, WORDS).matmul(map.transpose()));
    let b = output.factors.modules[0].b.clone();
    let found = values(b.narrow(1, 1, 2).narrow(3, 1, 1));
    for (i, (found, words)) in found.into_iter().zip(words).enumerate() {
        assert!((found - gates[i / OUT] * words).abs() < 1e-5, "{i}: {found}");
    }
    assert!((gates[0] - gates[1]).abs() > 1e-3 && (gates[0] - gates[2]).abs() > 1e-3, "{gates:?}");
    let silent = Tensor::cat(vec![embeddings(1, 2, 9), Tensor::zeros([1, WORDS], &device())], 1);
    let b = generate(&hypernet, &silent).modules[0].b.clone();
    assert!(values(b.narrow(1, 1, 2).narrow(3, 1, 1)).into_iter().all(|x| x == 0.0));
}

#[test]
fn it_comes_back_from_a_checkpoint_and_goes_between_two() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = |hypernet: Hypernet, name: &str| {
        let path = folder.path().join(name);
        checkpoint(hypernet).save(&path, Dtype::F32).expect("saved");
        Checkpoint::load(&path, &device()).expect("loaded")
    };
    let (from, to) = (stored(plain(small(Arch::L)), "from"), stored(copying(small(Arch::L), 2), "to"));
    assert_eq!(to.hypernet.config.copying, Some(Copying { layers: 2, words: WORDS }));
    let told = embeddings(2, 5, 9);
    let (made, loaded) = (generate(&copying(small(Arch::L), 2), &told), generate(&to.hypernet, &told));
    for (made, loaded) in made.modules.into_iter().zip(loaded.modules) {
        assert_eq!((values(made.a), values(made.b)), (values(loaded.a), values(loaded.b)));
    }
    // What does not copy yet copies like the other from the start: these values are the same whatever the share.
    let between = from.towards(&to, 0.25).expect("of one shape").hypernet;
    for name in ["copying.A", "copying.gate.weight", "copying.gate.bias"] {
        let of = |hypernet: &Hypernet| values(hypernet.parameters.entry(name).expect(name).values.clone());
        assert_eq!(of(&between), of(&to.hypernet), "{name}");
    }
    let map = |hypernet: &Hypernet| values(hypernet.buffers.entry("copying.words_to_B").expect("a map").values.clone());
    assert_eq!(map(&between), map(&to.hypernet));
    let refused = to.towards(&from, 0.5).expect_err("the other way round");
    assert!(refused.to_string().contains("config"), "{refused}");
}

#[test]
fn a_manifest_that_copies_what_is_not_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c");
    checkpoint(copying(small(Arch::L), 2)).save(&path, Dtype::F32).expect("saved");
    let manifest = std::fs::read(path.join(MANIFEST)).expect("a manifest");
    let weights = std::fs::read(path.join(WEIGHTS)).expect("weights");
    let copies = |copying: &Value| manifest_for(&manifest, &weights, |m| m["config"]["copying"] = copying.clone());
    assert!(Checkpoint::from_bytes(&copies(&json!({"layers": 2, "words": 3})), &weights, &device()).is_ok());
    let deaf = manifest_for(&manifest, &weights, |m| m["quoted_words"] = json!(false));
    let message = refused(&deaf, &weights).to_string();
    assert!(message.contains("copying needs quoted_words"), "{message}");
    for (copying, expected) in [
        (json!({"layers": 4, "words": 3}), "copying.layers = 4"),
        (json!({"layers": 0, "words": 3}), "copying.layers = 0"),
        (json!({"layers": 2, "words": 6}), "copying.words = 6"),
        (json!({"layers": usize::MAX, "words": usize::MAX}), "copying.layers"),
        (json!({"layers": 2, "words": 3, "from": 1}), "unknown field"),
        (json!({"layers": 3, "words": 3}), "copying."),
        (json!(null), "copying."),
    ] {
        let message = refused(&copies(&copying), &weights).to_string();
        assert!(message.contains(expected), "{copying}: {message}");
    }
}

#[test]
fn who_cannot_copy_is_refused() {
    let refused = |config: HypernetConfig, start: CopyingStart| {
        let mut hypernet = plain(config);
        hypernet.copy_words(start).expect_err("refused").to_string()
    };
    let told = |message: String, expected: &str| assert!(message.contains(expected), "{message}");
    told(refused(small(Arch::L), start(4)), "copying.layers = 4");
    told(refused(HypernetConfig { embedding: 2, ..small(Arch::L) }, start(2)), "copying.words = 3");
    told(refused(HypernetConfig { conditioning: Conditioning::OneHot, ..small(Arch::L) }, start(2)), "read texts");
    told(refused(HypernetConfig { target: Target::Factorized, ..small(Arch::L) }, start(2)), "language model");
    let mut elsewhere = small(Arch::L);
    elsewhere.layout.modules.remove(0);
    told(refused(elsewhere, start(2)), "needs v_proj");
    let narrow = CopyingStart { rows: embeddings(2, IN - 1, 3), ..start(2) };
    told(refused(small(Arch::L), narrow), "does not fit");
    let config = HypernetConfig { copying: Some(Copying { layers: 2, words: WORDS }), ..small(Arch::L) };
    told(Hypernet::new(config, Init::Reconstruction, 1, &device()).expect_err("no base").to_string(), "copy_words");
}
