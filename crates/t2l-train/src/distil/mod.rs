//! Context distillation: an adapter learns to do without the description what it does with the description in the prompt.
//!
//! The teacher is the base model wearing the adapter as it was generated, with the description before an input. The pupil wears
//! the same adapter and is given the input alone. For some steps the pupil's distribution over the next token is drawn towards
//! the teacher's, at every token of the teacher's greedy answer (Askell et al., A General Language Assistant as a
//! Laboratory for Alignment, 2021, section 2.1, with an adapter in place of the model's weights). Inputs need no answers, and
//! need not be the task's.

mod inputs;

use burn::tensor::{Tensor, TensorData, activation};
use t2l_backbone::{Decoder, GenerateOptions, Products, Sampling};
use t2l_core::{AdapterBatch, AdapterLayout, LoraFactors, LoraScaling};
use t2l_data::{TokenizedExample, TrainBatch};

pub use inputs::NEUTRAL_INPUTS;

use crate::lora::{PlainLora, of_rows, stacked};
use crate::loss::{label_weights, noisy_embeddings, weighted_by};
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
    /// Tokens of the teacher's answer that are learned, the end of the turn included.
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

/// One input, as tokens of two prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// The description, then the input.
    pub told: Vec<u32>,
    /// The input alone.
    pub untold: Vec<u32>,
}

/// An adapter after its lessons.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// Its factors, one task's.
    pub factors: LoraFactors,
    /// The pupil's divergence from the teacher in each step, in nats a token.
    pub divergences: Vec<f64>,
}

/// What the teacher says to a lesson.
struct Answered {
    /// The input alone, and the answer.
    example: TokenizedExample,
    /// Logarithms of the teacher's probabilities at every token of the answer: `[tokens, vocabulary]`.
    log_probabilities: Tensor<2>,
}

/// Teaches one adapter. `decoder`: the plain base model. `end_of_turn`: the tokens that end an answer.
///
/// # Errors
/// No lesson, prompts that the model has no room for, an adapter that does not fit, or numbers that are not finite.
pub fn distil(
    decoder: &Decoder,
    adapter: PlainLora,
    layout: &AdapterLayout,
    scaling: LoraScaling,
    lessons: &[Lesson],
    end_of_turn: &[u32],
    settings: &Distillation,
) -> Result<Distilled, TrainError> {
    let mut parameters = adapter.parameters;
    let answered = answers(decoder, &stacked(&[&parameters], layout, scaling), lessons, end_of_turn, settings)?;
    let training = decoder.for_training(Products::F32);
    let config = OptimizerConfig { learning_rate: settings.learning_rate, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = Optimizer::new(config, &parameters);
    let steps = settings.steps as u64;
    // A quarter of the steps to warm up, and the last one still moves.
    let schedule = LinearSchedule { peak: settings.learning_rate, warmup: steps.div_ceil(4), total: steps + 1 };
    let mut order: Vec<usize> = Vec::new();
    let mut divergences = Vec::new();
    for step in 0..steps {
        if order.is_empty() {
            order = Noise::new(settings.seed, step, 0, Purpose::Lessons).shuffled(answered.len());
        }
        let rest = order.split_off(settings.rows.max(1).min(order.len()));
        let chosen: Vec<&Answered> = order.iter().map(|&i| &answered[i]).collect();
        order = rest;
        let tracked = parameters.tracked();
        let factors = of_rows(stacked(&[&tracked], layout, scaling), &vec![0; chosen.len()]);
        let divergence = divergence(&training, &AdapterBatch::from_factors(&factors), &chosen)?;
        let value = f64::from(divergence.clone().inner().into_scalar::<f32>());
        let gradients = named_gradients(&tracked, &mut divergence.backward());
        let norm = optimizer.step(&mut parameters, &gradients, schedule.at(step + 1));
        let not_finite =
            |what, value| TrainError::NotFinite { step, what, value, examples: "context distillation".into() };
        if !value.is_finite() {
            return Err(not_finite("divergence", value));
        }
        if !norm.is_finite() {
            return Err(not_finite("gradient norm", norm));
        }
        divergences.push(value);
    }
    Ok(Distilled { factors: stacked(&[&parameters], layout, scaling), divergences })
}

/// Mean divergence of the pupil from the teacher over the answers' tokens, every answer counting the same: `[1]`.
fn divergence(decoder: &Decoder, adapters: &AdapterBatch, chosen: &[&Answered]) -> Result<Tensor<1>, TrainError> {
    let batch = TrainBatch::new(&chosen.iter().map(|a| &a.example).collect::<Vec<_>>(), 8, 0);
    let pupil = log_probabilities(decoder, adapters, &batch)?;
    let teacher = Tensor::cat(chosen.iter().map(|a| a.log_probabilities.clone()).collect(), 0);
    let teacher: Tensor<2> = Tensor::from_inner(teacher);
    let by_token = (teacher.clone().exp() * (teacher - pupil)).sum_dim(1).reshape([batch.labels.len()]);
    Ok(weighted_by(by_token, label_weights(&batch, batch.rows, Weighting::Sample)))
}

/// The teacher's greedy answers and what it thinks at each of their tokens.
fn answers(
    decoder: &Decoder,
    factors: &LoraFactors,
    lessons: &[Lesson],
    end_of_turn: &[u32],
    settings: &Distillation,
) -> Result<Vec<Answered>, TrainError> {
    if lessons.is_empty() {
        return Err(TrainError::NoData { reason: "no input to learn from".into() });
    }
    let most = settings.answer_tokens.max(1);
    let stops = end_of_turn.first().copied().into_iter().collect();
    let options = GenerateOptions { max_new_tokens: vec![most], sampling: Sampling::GREEDY, stops };
    let mut answered = Vec::with_capacity(lessons.len());
    for some in lessons.chunks(settings.rows.max(1)) {
        let worn = AdapterBatch::select_factors(factors, &vec![Some(0); some.len()])?;
        let prompts: Vec<Vec<u32>> = some.iter().map(|lesson| lesson.told.clone()).collect();
        let said = decoder.generate(&prompts, &worn, &options, |_, _| ())?;
        let responses: Vec<Vec<u32>> = said
            .into_iter()
            .map(|said| match said.stopped {
                true => said.ids.into_iter().chain(end_of_turn.iter().copied()).collect(),
                false => said.ids,
            })
            .collect();
        let example = |prompt: &Vec<u32>, response: &Vec<u32>| TokenizedExample {
            prompt: prompt.clone(),
            response: response.clone(),
        };
        let told: Vec<TokenizedExample> = prompts.iter().zip(&responses).map(|(p, r)| example(p, r)).collect();
        let batch = TrainBatch::new(&told.iter().collect::<Vec<_>>(), 8, 0);
        let all = log_probabilities(decoder, &worn, &batch)?;
        let mut first = 0;
        for ((lesson, response), &count) in some.iter().zip(&responses).zip(&batch.label_counts) {
            let log_probabilities = all.clone().narrow(0, first, count);
            answered.push(Answered { example: example(&lesson.untold, response), log_probabilities });
            first += count;
        }
    }
    Ok(answered)
}

/// Logarithms of the probabilities of all tokens where a batch has labels: `[labels, vocabulary]`.
fn log_probabilities(decoder: &Decoder, adapters: &AdapterBatch, batch: &TrainBatch) -> Result<Tensor<2>, TrainError> {
    let hidden = decoder.hidden(noisy_embeddings(decoder, batch, None), &vec![0; batch.rows], None, adapters)?;
    let [rows, width, size] = hidden.dims();
    let positions = TensorData::new(batch.label_positions.clone(), [batch.labels.len()]);
    let hidden = hidden.reshape([rows * width, size]).select(0, Tensor::from_data(positions, &decoder.device()));
    let logits: Tensor<2> = decoder.logits(hidden.unsqueeze_dim::<3>(0)).squeeze_dim(0);
    Ok(activation::log_softmax(logits, 1))
}
