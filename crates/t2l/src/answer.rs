//! The same prompt answered by the base model and by the base model wearing an adapter.

use std::time::Instant;

use t2l_backbone::{Backbone, Sampling};
use t2l_core::{AdapterBatch, LoraFactors};
use t2l_data::{PromptRenderer, user_turn};

use crate::Error;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The input.
    pub input: String,
    /// Text to put before it, for both answers.
    pub instruction: Option<String>,
    /// Longest answer, in tokens.
    pub max_tokens: usize,
}

/// Both answers to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The base model's.
    pub base: String,
    /// The adapted model's.
    pub adapted: String,
    /// Whether the first was still going on when it was as long as it may be.
    pub base_cut: bool,
    /// Whether the second was.
    pub adapted_cut: bool,
    /// Seconds the first took.
    pub base_seconds: f64,
    /// Seconds the second took.
    pub adapted_seconds: f64,
}

impl Question {
    /// A question without an instruction, answered in at most 64 tokens.
    pub fn new(input: impl Into<String>) -> Self {
        Self { input: input.into(), instruction: None, max_tokens: 64 }
    }

    /// Answers greedily, once without an adapter and once under the first task of `factors`.
    ///
    /// # Errors
    /// Adapters that do not fit the model, a prompt that does not fit its context.
    pub fn answer(&self, model: &Backbone, factors: &LoraFactors) -> Result<Answers, Error> {
        let renderer = PromptRenderer::of(model)?;
        let prompt = vec![renderer.prompt(&user_turn(self.instruction.as_deref(), &self.input, &[]))?];
        let options = model.until_end_of_turn(vec![self.max_tokens], Sampling::GREEDY);
        let run = |adapters: &AdapterBatch| -> Result<(String, bool, f64), Error> {
            let started = Instant::now();
            let answers = model.decoder.generate(&prompt, adapters, &options, |_, _| ())?;
            let text = answers.first().map(|a| model.text(a)).transpose()?.unwrap_or_default();
            let cut = answers.first().is_some_and(|a| !a.stopped);
            Ok((text, cut, started.elapsed().as_secs_f64()))
        };
        let adapters = AdapterBatch::select_factors(factors, &[Some(0)])?;
        let (base, base_cut, base_seconds) = run(&AdapterBatch::none(1))?;
        let (adapted, adapted_cut, adapted_seconds) = run(&adapters)?;
        Ok(Answers { base, adapted, base_cut, adapted_cut, base_seconds, adapted_seconds })
    }
}
