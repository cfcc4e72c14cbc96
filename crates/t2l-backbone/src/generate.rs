//! Answering prompts: prefill, then one token at a time, every row under its own adapter.

use std::borrow::Cow;

use burn::tensor::{Int, Tensor, TensorData};
use t2l_core::AdapterBatch;

use crate::sampling::Sampler;
use crate::{Backbone, BackboneError, Decoder, KvCache, Sampling};

/// When and how generation ends.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens of each row; the last value holds for further rows.
    pub max_new_tokens: Vec<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end a row; they are not part of the answer.
    pub stops: Vec<u32>,
}

/// One row's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// Whether a stop token ended it, rather than the limit.
    pub stopped: bool,
}

impl Decoder {
    /// Generates answers to prompts. `on_token(row, token)` hears every token of an answer as it is chosen.
    ///
    /// Where RoPE frequencies depend on the length (dynamic, LongRoPE) all rows go by the longest one, and go on so when
    /// it has ended.
    ///
    /// # Errors
    /// No prompt, an empty one, tokens outside the vocabulary, or adapters that do not fit.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        adapters: &AdapterBatch,
        options: &GenerateOptions,
        mut on_token: impl FnMut(usize, u32),
    ) -> Result<Vec<Generated>, BackboneError> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        if prompts.iter().any(Vec::is_empty) || longest == 0 {
            return Err(BackboneError::Prompt("there is no prompt, or an empty one".into()));
        }
        let vocabulary = self.config().vocab_size;
        if let Some(id) = prompts.iter().flatten().find(|&&id| id as usize >= vocabulary) {
            return Err(BackboneError::Prompt(format!("token {id} is outside the vocabulary of {vocabulary}")));
        }
        let rows = prompts.len();
        let limit =
            |row: usize| options.max_new_tokens.get(row).or(options.max_new_tokens.last()).copied().unwrap_or(0);
        let most = (0..rows).map(limit).max().unwrap_or(0);
        // A single row needs no padding; several are padded on the left, to a multiple of 8.
        let width = if rows == 1 { longest } else { longest.next_multiple_of(8) };
        let capacity = width.saturating_add(most);
        let longest_context = self.config().longest_context();
        if capacity > longest_context {
            return Err(BackboneError::TooLong { tokens: capacity, limit: longest_context });
        }
        self.check_length(rows, width, 0)?;
        let mut starts: Vec<usize> = prompts.iter().map(|p| width - p.len()).collect();
        let mut padded = Vec::with_capacity(rows * width);
        for (prompt, start) in prompts.iter().zip(&starts) {
            padded.extend(std::iter::repeat_n(0, *start).chain(prompt.iter().map(|&id| id as i32)));
        }
        let device = self.device();
        let mut cache = KvCache::new(self.config(), rows, capacity, &device);
        let mut sampler = Sampler::new(options.sampling, rows);
        let mut answers: Vec<Generated> = (0..rows).map(|_| Generated { ids: vec![], stopped: false }).collect();
        let mut done: Vec<bool> = (0..rows).map(|row| limit(row) == 0).collect();
        let mut next: Tensor<2, Int> = Tensor::from_data(TensorData::new(padded, [rows, width]), &device);
        // Which rows are still in the batch, and what they wear.
        let mut present: Vec<usize> = (0..rows).collect();
        let mut adapters = Cow::Borrowed(adapters);
        while !done.iter().all(|&d| d) {
            let first = starts.iter().min().copied().unwrap_or(0);
            let (seen, longest) = (cache.reach(), (cache.len() + 1).saturating_sub(first));
            if seen > 0 && self.config().rope_scaling.switches(seen, longest) {
                // What the cache holds was turned by other frequencies: it is made again from the tokens.
                let ids = history(prompts, &answers, &present, &starts, cache.len() + 1);
                next = Tensor::from_data(TensorData::new(ids, [present.len(), cache.len() + 1]), &device);
                cache = KvCache::new(self.config(), present.len(), capacity, &device);
            }
            let tokens = next.dims()[1];
            let hidden = self.hidden(self.embed(next), &starts, Some(&mut cache), &adapters)?;
            let logits = self.logits(hidden.narrow(1, tokens - 1, 1)).to_data();
            let logits: Vec<f32> = logits.iter().collect();
            let mut chosen = Vec::with_capacity(present.len());
            for (&row, logits) in present.iter().zip(logits.chunks_exact(vocabulary)) {
                if done[row] {
                    // Whatever a finished row goes on with is not looked at.
                    chosen.push(0);
                    continue;
                }
                let token = sampler.pick(row, logits);
                chosen.push(token as i32);
                if options.stops.contains(&token) {
                    answers[row].stopped = true;
                    done[row] = true;
                    continue;
                }
                answers[row].ids.push(token);
                on_token(row, token);
                done[row] = answers[row].ids.len() >= limit(row);
            }
            // Finished rows leave the batch once they are half of it.
            let open: Vec<usize> = (0..present.len()).filter(|&i| !done[present[i]]).collect();
            if !open.is_empty() && 2 * open.len() <= present.len() {
                cache = cache.select(&open, capacity - cache.len());
                adapters = Cow::Owned(adapters.select(&open));
                (present, starts, chosen) = (pick(&present, &open), pick(&starts, &open), pick(&chosen, &open));
            }
            next = Tensor::from_data(TensorData::new(chosen, [present.len(), 1]), &device);
        }
        Ok(answers)
    }
}

/// Tokens of the rows that are left, `[rows, width]`: padding, prompt, answer; rows that are done end in padding.
fn history(prompts: &[Vec<u32>], answers: &[Generated], present: &[usize], starts: &[usize], width: usize) -> Vec<i32> {
    let mut ids = Vec::with_capacity(present.len() * width);
    for (&row, &start) in present.iter().zip(starts) {
        let said = prompts[row].iter().chain(&answers[row].ids).map(|&id| id as i32);
        let padded = std::iter::repeat_n(0, start).chain(said).chain(std::iter::repeat(0));
        ids.extend(padded.take(width));
    }
    ids
}

fn pick<T: Copy>(values: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|&i| values[i]).collect()
}

impl Backbone {
    /// Options that end an answer where the model ends its turn.
    pub fn until_end_of_turn(&self, max_new_tokens: Vec<usize>, sampling: Sampling) -> GenerateOptions {
        GenerateOptions { max_new_tokens, sampling, stops: self.tokenizer.stops().to_vec() }
    }

    /// Text of an answer.
    ///
    /// # Errors
    /// Tokens that the tokenizer does not know.
    pub fn text(&self, answer: &Generated) -> Result<String, BackboneError> {
        Ok(self.tokenizer.decode(&answer.ids, true)?)
    }
}
