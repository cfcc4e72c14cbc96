//! What descriptions do as instructions, by the definition, on a tiny decoder with a chat template.

use burn::tensor::{Int, Tensor, TensorData};
use proptest::prelude::*;
use serde_json::json;
use t2l_backbone::Backbone;
use t2l_core::{AdapterBatch, EncodeError, LoraFactors, LoraScaling, ModuleFactors, TextEncoder};
use t2l_encoder::{EmbeddingTable, Encoder, InstructionEffects};

use crate::last_token::{WORDS, folder};
use crate::tiny::{Tiny, device, values};

const TEMPLATE: &str =
    "{% for m in messages %}w3 {{ m.content }} w4 {% endfor %}{% if add_generation_prompt %}w5{% endif %}";

fn backbone(words: usize) -> Backbone {
    let folder = folder(words);
    let config = json!({"chat_template": TEMPLATE}).to_string();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    Backbone::load(folder.path(), &device()).unwrap()
}

/// The adapter of `strength` that a model wears: all values of B alike, A a wave.
fn worn(backbone: &Backbone, strength: f64) -> LoraFactors {
    let layout = backbone.decoder.layout("tiny", &["q_proj", "v_proj"]).unwrap();
    let factors = |m: &t2l_core::TargetModule| {
        let wave: Vec<f32> = (0..layout.layers * 2 * m.in_features).map(|i| (i as f32 * 0.7).sin()).collect();
        ModuleFactors {
            name: m.name.clone(),
            a: Tensor::from_data(TensorData::new(wave, [1, layout.layers, 2, m.in_features]), &device()),
            b: Tensor::full([1, layout.layers, m.out_features, 2], strength, &device()),
        }
    };
    let scaling = LoraScaling { alpha: 2.0, rank: 2, use_rslora: false };
    LoraFactors { scaling, modules: layout.modules.iter().map(factors).collect() }
}

fn effects(layers: usize, strength: f64) -> InstructionEffects {
    let backbone = backbone(WORDS);
    let worn = worn(&backbone, strength);
    InstructionEffects::new(backbone, layers, worn).unwrap()
}

/// By the definition, one prompt at a time: `[layers · values]`.
fn expected(layers: usize, strength: f64, description: &str) -> Vec<f32> {
    let backbone = backbone(WORDS);
    let config = backbone.decoder.config();
    let adapter = AdapterBatch::from_factors(&worn(&backbone, strength));
    let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
    let attended = |turn: &str| -> Vec<f32> {
        let ids: Vec<i64> =
            backbone.tokenizer.encode(&format!("w3 {turn} w4 w5")).unwrap().into_iter().map(i64::from).collect();
        let tokens = ids.len();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [1, tokens]), &device());
        let mut outputs = Vec::new();
        let embedded = backbone.decoder.embed(ids);
        backbone.decoder.attention_outputs(embedded, &adapter, 0, |output| outputs.push(output)).unwrap();
        let mut of_value_heads = Vec::new();
        for output in outputs.into_iter().skip(config.layers - layers) {
            let last = values(output.narrow(1, tokens - 1, 1));
            for head in 0..config.kv_heads {
                let mean = |i| (0..group).map(|q| last[(head * group + q) * dim + i]).sum::<f32>() / group as f32;
                of_value_heads.extend((0..dim).map(mean));
            }
        }
        of_value_heads
    };
    let mut sum = vec![0.0; layers * config.kv_heads * dim];
    for input in InstructionEffects::INPUTS {
        let (told, untold) = (attended(&format!("{description}\n\n{input}")), attended(input));
        sum.iter_mut().zip(told.iter().zip(untold)).for_each(|(sum, (told, untold))| *sum += told - untold);
    }
    sum.into_iter().map(|sum| sum / InstructionEffects::INPUTS.len() as f32).collect()
}

#[test]
fn effects_are_what_they_are_defined_as() {
    for (layers, strength) in [(1, 0.0), (2, 0.3)] {
        let encoder = effects(layers, strength);
        let texts = ["w9 w8.", "w12 w13 w14."];
        let encoded = encoder.encode(&texts).unwrap();
        assert_eq!((encoded.embeddings.dims(), encoded.truncated), ([2, encoder.width()], vec![false; 2]));
        let rows = values(encoded.embeddings);
        for (text, row) in texts.iter().zip(rows.chunks(encoder.width())) {
            let expected = expected(layers, strength, text);
            assert!(expected.iter().any(|x| x.abs() > 1e-3), "{expected:?}");
            for (found, expected) in row.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{text}: {found} {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn alone_as_in_a_batch(texts in prop::collection::vec(prop::collection::vec(3..WORDS, 1..100), 1..6)) {
        let encoder = effects(2, 0.1);
        let text = |words: &Vec<usize>| words.iter().map(|w| format!("w{w}")).collect::<Vec<_>>().join(" ");
        let texts: Vec<String> = texts.iter().map(text).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let together = encoder.encode(&texts).unwrap();
        let rows = values(together.embeddings);
        for ((text, row), cut) in texts.iter().zip(rows.chunks(encoder.width())).zip(together.truncated) {
            let alone = encoder.encode(&[text]).unwrap();
            prop_assert_eq!(alone.truncated, vec![cut]);
            // The model has 128 positions, and half of them are for the description.
            prop_assert_eq!(cut, text.split(' ').count() > 64);
            for (a, b) in row.iter().zip(values(alone.embeddings)) {
                prop_assert!((a - b).abs() <= 1e-5, "{text}: {a} {b}");
            }
        }
    }
}

#[test]
fn they_stand_behind_another_encoders_vector() {
    let bert = tempfile::tempdir().unwrap();
    Tiny::bert().write(bert.path());
    let plain = Encoder::load(bert.path(), &device()).unwrap();
    let (effects, texts) = (effects(2, 0.1), ["add w3", "sort w4"]);
    let [alone, told] = [&plain as &dyn TextEncoder, &effects].map(|e| values(e.encode(&texts).unwrap().embeddings));
    let both = plain.clone().with_instruction_effects(effects.clone()).with_id("mine");
    assert_eq!((both.id(), both.width()), ("mine", plain.width() + effects.width()));
    let rows = values(both.encode(&texts).unwrap().embeddings);
    for (i, row) in rows.chunks(both.width()).enumerate() {
        assert_eq!(row[..plain.width()], alone[i * plain.width()..][..plain.width()]);
        assert_eq!(row[plain.width()..], told[i * effects.width()..][..effects.width()]);
    }
    let table = |name: &str, encoder: &dyn TextEncoder| {
        EmbeddingTable::fill(&bert.path().join(name), encoder, &texts, |_, _| ()).unwrap()
    };
    let (first, second) = (table("first", &plain), table("second", &effects));
    let beside = first.beside(&second, &texts).unwrap();
    assert_eq!((beside.len(), beside.width()), (2, both.width()));
    assert_eq!(values(beside.embeddings(&texts, &device()).unwrap()), rows);
    assert!(first.beside(&second, &["another"]).is_err());
    // Another adapter underneath is another encoder.
    assert_ne!(effects.id(), self::effects(2, 0.2).id());
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let refused = |layers: usize, change: fn(&mut LoraFactors)| {
        let backbone = backbone(WORDS);
        let mut worn = worn(&backbone, 0.1);
        change(&mut worn);
        InstructionEffects::new(backbone, layers, worn).unwrap_err().to_string()
    };
    assert!(refused(0, |_| ()).contains("0 layers"));
    assert!(refused(3, |_| ()).contains("3 layers of a language model that has 2"));
    assert!(refused(1, |worn| worn.modules[0].name = "none".into()).contains("none"));
    let encoder = effects(1, 0.0);
    assert!(matches!(encoder.encode(&["w3", " "]), Err(EncodeError::Empty { index: 1, of: 2 })));
    assert_eq!(encoder.encode(&[]).unwrap().embeddings.dims(), [0, encoder.width()]);
    // A tokenizer of another model.
    let other = backbone(100);
    let worn = worn(&other, 0.0);
    let error = InstructionEffects::new(other, 1, worn).unwrap().encode(&["w3", "w99"]).unwrap_err();
    assert!(matches!(error, EncodeError::Tokenize { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("token 99"), "{error}");
}
