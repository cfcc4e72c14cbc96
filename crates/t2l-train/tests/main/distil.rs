//! Context distillation, by its definition, on a small random model.

use burn::tensor::{Device, Int, Tensor, TensorData};
use t2l_backbone::{Decoder, GenerateOptions, Sampling};
use t2l_core::{AdapterBatch, AdapterLayout, LoraFactors, LoraScaling};
use t2l_train::{Distillation, Ending, Lesson, PlainLora, TrainError, distil};

use crate::options::decoder;

const SCALING: LoraScaling = LoraScaling { alpha: 4.0, rank: 2, use_rslora: true };
const ENDING: Ending<'static> = Ending { stops: &[39], end_of_turn: &[39] };

fn layout(decoder: &Decoder) -> AdapterLayout {
    decoder.layout("tiny", &["q_proj", "v_proj"]).expect("a layout")
}

/// An adapter whose B is not zero.
fn adapter(layout: &AdapterLayout) -> PlainLora {
    let mut adapter = PlainLora::new(layout, SCALING.rank, 3, "task", &Device::flex());
    for m in &layout.modules {
        let count = layout.layers * m.out_features * SCALING.rank;
        let wave: Vec<f32> = (0..count).map(|i| (i as f32 * 0.9).sin() * 0.2).collect();
        let b = TensorData::new(wave, [layout.layers, m.out_features, SCALING.rank]);
        adapter.parameters.insert(format!("B.{}", m.name), Tensor::<3>::from_data(b, &Device::flex()));
    }
    adapter
}

/// Inputs of different length, behind the same four tokens where they are told.
fn lessons(count: u32) -> Vec<Lesson> {
    let lesson = |i: u32| {
        let untold: Vec<u32> = (0..2 + i % 4).map(|t| (5 + 7 * i + 3 * t) % 38).collect();
        Lesson { told: [30, 11, 24, 2].into_iter().chain(untold.iter().copied()).collect(), untold }
    };
    (0..count).map(lesson).collect()
}

fn settings(steps: usize) -> Distillation {
    Distillation { steps, rows: 4, answer_tokens: 3, learning_rate: 2e-3, seed: 1 }
}

fn taught(lessons: &[Lesson], settings: &Distillation) -> (LoraFactors, Vec<f64>) {
    taught_to_end(lessons, ENDING, settings)
}

fn taught_to_end(lessons: &[Lesson], ending: Ending<'_>, settings: &Distillation) -> (LoraFactors, Vec<f64>) {
    let decoder = decoder();
    let layout = layout(&decoder);
    let out = distil(&decoder, adapter(&layout), &layout, SCALING, lessons, ending, settings).expect("distilled");
    (out.factors, out.divergences)
}

/// What the teacher says, without what ends it, and whether it ended.
fn said(lesson: &Lesson, teacher: &LoraFactors, stops: &[u32]) -> (Vec<u32>, bool) {
    let options = GenerateOptions { max_new_tokens: vec![3], sampling: Sampling::GREEDY, stops: stops.to_vec() };
    let worn = AdapterBatch::from_factors(teacher);
    let said = decoder()
        .generate(std::slice::from_ref(&lesson.told), &worn, &options, |_, _| ())
        .expect("an answer")
        .remove(0);
    (said.ids, said.stopped)
}

fn values(factors: &LoraFactors) -> Vec<f32> {
    factors
        .modules
        .iter()
        .flat_map(|m| [m.a.to_data(), m.b.to_data()])
        .flat_map(|d| d.iter::<f32>().collect::<Vec<_>>())
        .collect()
}

/// Logarithms of the probabilities after every token of one row, worked out in f64.
fn log_probabilities(decoder: &Decoder, ids: &[u32], factors: &LoraFactors) -> Vec<Vec<f64>> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let row: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids.clone(), [1, ids.len()]), &Device::flex());
    let worn = AdapterBatch::from_factors(factors);
    let hidden = decoder.hidden(decoder.embed(row), &[0], None, &worn).expect("a pass");
    let logits: Vec<f64> = decoder.logits(hidden).to_data().iter::<f32>().map(f64::from).collect();
    let normalised = |row: &[f64]| {
        let all = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        row.iter().map(|x| x - all).collect()
    };
    logits.chunks(40).map(normalised).collect()
}

/// Mean divergence of whoever wears `pupil`, untold, from whoever wears `teacher`, told, one lesson after the other.
fn divergence(lessons: &[Lesson], ending: Ending<'_>, teacher: &LoraFactors, pupil: &LoraFactors) -> f64 {
    let decoder = decoder();
    let of = |lesson: &Lesson| {
        let (mut answer, ended) = said(lesson, teacher, ending.stops);
        answer.extend(ending.end_of_turn.iter().filter(|_| ended));
        let at_answer = |prompt: &[u32], factors| {
            let whole: Vec<u32> = prompt.iter().chain(&answer).copied().collect();
            let all = log_probabilities(&decoder, &whole, factors);
            all[prompt.len() - 1..whole.len() - 1].to_vec()
        };
        let (told, untold) = (at_answer(&lesson.told, teacher), at_answer(&lesson.untold, pupil));
        let at_token = |(t, u): (&Vec<f64>, &Vec<f64>)| t.iter().zip(u).map(|(t, u)| t.exp() * (t - u)).sum::<f64>();
        told.iter().zip(&untold).map(at_token).sum::<f64>() / answer.len() as f64
    };
    lessons.iter().map(of).sum::<f64>() / lessons.len() as f64
}

#[test]
fn the_first_divergence_is_what_it_is_defined_as() {
    let lessons = lessons(4);
    let (_, divergences) = taught(&lessons, &settings(1));
    let untaught = taught(&lessons, &settings(0)).0;
    let expected = divergence(&lessons, ENDING, &untaught, &untaught);
    assert!(expected > 0.01, "{expected} proves nothing");
    assert!((divergences[0] - expected).abs() < 1e-4 * expected, "{} {expected}", divergences[0]);
}

#[test]
fn a_taught_adapter_answers_untold_more_as_told() {
    let lessons = lessons(12);
    let untaught = taught(&lessons, &settings(0)).0;
    let (factors, divergences) = taught(&lessons, &settings(60));
    assert_eq!(divergences.len(), 60);
    let of = |pupil| divergence(&lessons, ENDING, &untaught, pupil);
    let (before, after) = (of(&untaught), of(&factors));
    assert!(after < 0.6 * before, "{before} {after}");
}

/// The teacher ends with one token, and the pupil learns to end with two others.
#[test]
fn an_answer_ends_as_turns_end() {
    let lessons = lessons(4);
    let untaught = taught(&lessons, &settings(0)).0;
    let spoken = said(&lessons[0], &untaught, &[]).0;
    let ending = Ending { stops: &spoken[1..2], end_of_turn: &[39, 38] };
    let (before_end, ended) = said(&lessons[0], &untaught, ending.stops);
    assert!(ended && before_end.len() < spoken.len(), "{spoken:?}");
    let expected = divergence(&lessons, ending, &untaught, &untaught);
    let found = taught_to_end(&lessons, ending, &settings(1)).1[0];
    assert!((found - expected).abs() < 1e-4 * expected, "{found} {expected}");
    assert!((expected - divergence(&lessons, ENDING, &untaught, &untaught)).abs() > 1e-3 * expected);
}

#[test]
fn as_many_inputs_are_drawn_as_the_steps_have_room_for() {
    let drawn = settings(3).draw(40);
    assert_eq!(drawn.len(), 12);
    assert_ne!(drawn, settings(3).draw(41));
    let mut all = settings(usize::MAX).draw(40);
    assert_ne!(all, (0..40).collect::<Vec<_>>());
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_ne!(Distillation { seed: 2, ..settings(3) }.draw(40), drawn);
}

#[test]
fn no_step_changes_nothing_and_the_same_steps_give_the_same() {
    let lessons = lessons(10);
    let parameters = adapter(&layout(&decoder())).parameters;
    let (untaught, none) = taught(&lessons, &settings(0));
    assert!(none.is_empty());
    for m in &untaught.modules {
        for (kind, factor) in [("A", &m.a), ("B", &m.b)] {
            let first = parameters.get::<3>(&format!("{kind}.{}", m.name)).to_data();
            let same = factor.to_data().iter::<f32>().eq(first.iter::<f32>());
            assert!(same, "{kind}.{}", m.name);
        }
    }
    let again = |steps| values(&taught(&lessons, &settings(steps)).0);
    assert_eq!(again(3), again(3));
    assert_ne!(again(3), again(4));
    assert_ne!(again(1), values(&untaught));
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let decoder = decoder();
    let layout = layout(&decoder);
    let refused = |lessons: &[Lesson], adapter| {
        distil(&decoder, adapter, &layout, SCALING, lessons, ENDING, &settings(2)).expect_err("refused")
    };
    assert_eq!(refused(&[], adapter(&layout)).to_string(), "nothing to train on: no input to learn from");
    let long = Lesson { told: vec![1; 63], untold: vec![1; 9] };
    let error = refused(&[long], adapter(&layout)).to_string();
    assert!(error.contains("64"), "{error}");
    let mut endless = adapter(&layout);
    let b = Tensor::<3>::full([2, 16, 2], f32::NAN, &Device::flex());
    endless.parameters.insert("B.q_proj", b);
    let error = refused(&lessons(4), endless);
    assert!(matches!(error, TrainError::NotFinite { step: 0, what: "divergence", .. }), "{error}");
}
