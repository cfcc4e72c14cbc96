//! Context distillation: an adapter learns to do without the description what it does with the description in the prompt.
//!
//! The teacher is the base model wearing the adapter as it was generated, with the description before an input. The pupil wears
//! the same adapter and is given the input alone. For some steps the pupil's distribution over the next token is drawn towards
//! the teacher's, at every token of the teacher's greedy answer (Askell et al., A General Language Assistant as a
//! Laboratory for Alignment, 2021, section 2.1, with an adapter in place of the model's weights). Inputs need no answers, and
//! need not be the task's.

mod inputs;

use burn::tensor::{Tensor, activation};
use t2l_backbone::{Decoder, GenerateOptions, Products, Sampling};
use t2l_core::{AdapterBatch, AdapterLayout, LoraFactors, LoraScaling};
use t2l_data::{TokenizedExample, TrainBatch};

pub use inputs::NEUTRAL_INPUTS;

use crate::lora::{PlainLora, of_rows, stacked};
use crate::loss::{before_labels, label_weights, noisy_embeddings, weighted_by};
use crate::noise::{Noise, Purpose};
use crate::optimizer::named_gradients;
use crate::{LinearSchedule, Optimizer, OptimizerConfig, TrainError, Weighting};

/// How long and how fast an adapter is taught.
#[derive(Debug, Clone, PartialEq)]
pub struct Distillation {
    /// Steps.
    pub steps: usize,
    /// Inputs of a step.
    pub rows: usize,
    /// Most tokens of the teacher's answer that are learned; the end of the turn comes on top.
    pub answer_tokens: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Seed of the inputs' order.
    pub seed: u64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { steps: 8, rows: 8, answer_tokens: 8, learning_rate: 1e-3, seed: 0 }
    }
}

impl Distillation {
    /// Which of so many inputs are learned from, in their order: all, or as many as the steps have room for.
    pub fn draw(&self, inputs: usize) -> Vec<usize> {
        let mut drawn = Noise::new(self.seed, 0, 0, Purpose::Lessons).shuffled(inputs);
        drawn.truncate(self.steps.saturating_mul(self.rows.max(1)));
        drawn
    }
}

/// One input, as tokens of two prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// The description, then the input.
    pub told: Vec<u32>,
    /// The input alone.
    pub untold: Vec<u32>,
}

/// What ends an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending<'a> {
    /// Tokens that end the teacher's.
    pub stops: &'a [u32],
    /// What the pupil learns to end with.
    pub end_of_turn: &'a [u32],
}

/// An adapter after its lessons.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// Its factors, one task's.
    pub factors: LoraFactors,
    /// The pupil's divergence from the teacher on the inputs of each step, before the step, in nats a token.
    pub divergences: Vec<f64>,
}

/// Teaches one adapter, `rows` lessons a step, in their order and then from the first again. `decoder`: the plain base
/// model.
///
/// # Errors
/// No lesson, prompts that the model has no room for, an adapter that does not fit, or numbers that are not finite.
pub fn distil(
    decoder: &Decoder,
    adapter: PlainLora,
    layout: &AdapterLayout,
    scaling: LoraScaling,
    lessons: &[Lesson],
    ending: Ending<'_>,
    settings: &Distillation,
) -> Result<Distilled, TrainError> {
    if lessons.is_empty() && settings.steps > 0 {
        return Err(TrainError::NoData { reason: "no input to learn from".into() });
    }
    let mut parameters = adapter.parameters;
    let teacher = stacked(&[&parameters], layout, scaling);
    let training = decoder.for_training(Products::F32);
    let config = OptimizerConfig { learning_rate: settings.learning_rate, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = Optimizer::new(config, &parameters);
    let steps = settings.steps as u64;
    // A quarter of the steps to warm up, and the last one still moves.
    let (peak, warmup) = (settings.learning_rate, steps.div_ceil(4));
    let schedule = LinearSchedule { peak, warmup, total: steps.saturating_add(1) };
    let mut next = lessons.iter().cycle();
    let mut divergences = Vec::new();
    for step in 0..steps {
        let some: Vec<&Lesson> = next.by_ref().take(settings.rows.clamp(1, lessons.len())).collect();
        let answered = answers(decoder, &teacher, &some, ending, settings.answer_tokens)?;
        let tracked = parameters.tracked();
        let factors = of_rows(stacked(&[&tracked], layout, scaling), &vec![0; some.len()]);
        let divergence = divergence(&training, &AdapterBatch::from_factors(&factors), answered)?;
        let value = f64::from(divergence.clone().inner().into_scalar::<f32>());
        let gradients = named_gradients(&tracked, &mut divergence.backward());
        let norm = optimizer.step(&mut parameters, &gradients, schedule.at(step + 1));
        for (what, value) in [("divergence", value), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite { step, what, value, examples: "context distillation".into() });
            }
        }
        divergences.push(value);
    }
    Ok(Distilled { factors: stacked(&[&parameters], layout, scaling), divergences })
}

/// What the teacher says to some lessons.
struct Answered {
    /// The inputs alone, and the answers.
    untold: TrainBatch,
    /// Logarithms of the teacher's probabilities at every token of the answers: `[labels, vocabulary]`.
    log_probabilities: Tensor<2>,
}

/// Mean divergence of the pupil from the teacher over the answers' tokens, every answer counting the same: `[1]`.
fn divergence(decoder: &Decoder, adapters: &AdapterBatch, answered: Answered) -> Result<Tensor<1>, TrainError> {
    let batch = answered.untold;
    let pupil = log_probabilities(decoder, adapters, &batch)?;
    let teacher: Tensor<2> = Tensor::from_inner(answered.log_probabilities);
    let by_token = (teacher.clone().exp() * (teacher - pupil)).sum_dim(1).reshape([batch.labels.len()]);
    Ok(weighted_by(by_token, label_weights(&batch, batch.rows, Weighting::Sample)))
}

/// The teacher's greedy answers and what it thinks at each of their tokens.
fn answers(
    decoder: &Decoder,
    teacher: &LoraFactors,
    lessons: &[&Lesson],
    ending: Ending<'_>,
    most: usize,
) -> Result<Answered, TrainError> {
    let worn = AdapterBatch::select_factors(teacher, &vec![Some(0); lessons.len()])?;
    let prompts: Vec<Vec<u32>> = lessons.iter().map(|lesson| lesson.told.clone()).collect();
    let max_new_tokens = vec![most.max(1)];
    let options = GenerateOptions { max_new_tokens, sampling: Sampling::GREEDY, stops: ending.stops.to_vec() };
    let said = decoder.generate(&prompts, &worn, &options, |_, _| ())?;
    let end = |stopped: bool| if stopped { ending.end_of_turn } else { &[] };
    let responses: Vec<Vec<u32>> = said.into_iter().map(|said| [&said.ids, end(said.stopped)].concat()).collect();
    let batch = |prompt: fn(&Lesson) -> &Vec<u32>| {
        let rows = lessons.iter().zip(&responses);
        let rows: Vec<TokenizedExample> = rows
            .map(|(lesson, response)| TokenizedExample { prompt: prompt(lesson).clone(), response: response.clone() })
            .collect();
        TrainBatch::new(&rows.iter().collect::<Vec<_>>(), 8, 0)
    };
    let log_probabilities = log_probabilities(decoder, &worn, &batch(|lesson| &lesson.told))?;
    Ok(Answered { untold: batch(|lesson| &lesson.untold), log_probabilities })
}

/// Logarithms of the probabilities of all tokens where a batch has labels: `[labels, vocabulary]`.
fn log_probabilities(decoder: &Decoder, adapters: &AdapterBatch, batch: &TrainBatch) -> Result<Tensor<2>, TrainError> {
    let hidden = decoder.hidden(noisy_embeddings(decoder, batch, None), &vec![0; batch.rows], None, adapters)?;
    let logits: Tensor<2> = decoder.logits(before_labels(hidden, batch).unsqueeze_dim::<3>(0)).squeeze_dim(0);
    Ok(activation::log_softmax(logits, 1))
}
