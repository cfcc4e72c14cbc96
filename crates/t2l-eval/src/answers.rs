//! What an example may be answered with, as text and in tokens that fit beside its prompt.

use t2l_data::{Example, Kind, PromptRenderer, Task, cut};

use crate::EvalError;

/// What an example may be answered with.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// All accepted answers, as text.
    pub targets: Vec<String>,
    /// The options, or the target alone.
    pub texts: Vec<String>,
    /// The same in tokens, each with the end of the turn.
    pub tokens: Vec<Vec<u32>>,
    /// How many tokens that end has.
    pub end: usize,
    /// Index of the right one.
    pub right: usize,
}

impl Answers {
    pub fn of(task: &Task, example: &Example, renderer: &PromptRenderer<'_>) -> Result<Self, EvalError> {
        let options = match task.kind {
            _ if !example.choices.is_empty() => example.choices.clone(),
            Kind::Choice | Kind::Boolean => task.labels.clone(),
            _ => vec![],
        };
        let (texts, right) = match options.iter().position(|o| *o == example.target) {
            Some(right) => (options, right),
            None => (vec![example.target.clone()], 0),
        };
        let tokens = texts.iter().map(|a| renderer.response(a)).collect::<Result<Vec<_>, _>>()?;
        let end = renderer.end_of_turn().len();
        Ok(Self { targets: example.targets.clone(), texts, tokens, end, right })
    }

    /// Whether the answer is one of several options.
    pub fn is_choice(&self) -> bool {
        self.texts.len() > 1
    }

    /// Tokens of an answer without the end of the turn (with it, if there is nothing else).
    pub fn own_tokens(&self, answer: usize) -> usize {
        match self.tokens[answer].len() - self.end {
            0 => self.end,
            own => own,
        }
    }

    /// Forgets the options that are wrong (after the prompt was cut to leave room for them all).
    pub fn keep_right(&mut self) {
        self.texts = self.texts.drain(..).skip(self.right).take(1).collect();
        self.tokens = self.tokens.drain(..).skip(self.right).take(1).collect();
        self.right = 0;
    }

    /// Cuts the prompt so that it fits with the longest answer, by the rule of training; answers that are too long
    /// even so lose their beginning.
    pub fn fit(&mut self, prompt: Vec<u32>, max_tokens: usize) -> Vec<u32> {
        let longest = self.tokens.iter().max_by_key(|t| t.len()).cloned().unwrap_or_default();
        // Whatever the limit, there is a prompt to answer and an end to the answer.
        let kept = cut(prompt, longest, max_tokens.max(2 * (self.end + 1)));
        let room = kept.response.len();
        for tokens in &mut self.tokens {
            tokens.drain(..tokens.len().saturating_sub(room));
        }
        kept.prompt
    }
}
