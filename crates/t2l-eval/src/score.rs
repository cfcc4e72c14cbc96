//! Probabilities of given answers: prompts are read once, all options go on from their caches.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use t2l_backbone::KvCache;
use t2l_core::ops;

use crate::run::{Item, batches};
use crate::stats::mean;
use crate::worn::{Wardrobe, Worn};
use crate::{EvalError, Evaluator};

/// Prompts read at once, and their padded tokens at most.
const ROWS: usize = 16;
const TOKENS: usize = 2048;
/// Labels whose logits are held at once.
const LABELS: usize = 64;

/// How likely the tokens of one answer are.
struct Likelihood {
    /// Negative log-likelihood of each token.
    nll: Vec<f64>,
    /// Whether each token is the likeliest.
    top: Vec<bool>,
}

impl Evaluator<'_> {
    /// Adds `nll`, `token_acc` and, for choices, `acc` and `acc_norm` to every item.
    pub(crate) fn score_answers(&self, items: &mut [Item<'_>], wardrobe: &Wardrobe<'_>) -> Result<(), EvalError> {
        let steady = self.backbone.decoder.config().steady_context();
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| items[i].prompt.len());
        for batch in batches(&order, ROWS, TOKENS, |&i| items[i].prompt.len()) {
            let prompt = batch.iter().map(|&i| items[i].prompt.len()).max().unwrap_or(0);
            let answer = batch.iter().flat_map(|&i| &items[i].answers.tokens).map(Vec::len).max().unwrap_or(0);
            let found = if prompt + answer > steady {
                self.likelihoods_alone(batch, items, wardrobe)?
            } else {
                self.likelihoods(batch, items, wardrobe)?
            };
            for (row, &i) in batch.iter().enumerate() {
                let item = &mut items[i];
                let options: Vec<&Likelihood> = found.range((row, 0)..(row + 1, 0)).map(|(_, l)| l).collect();
                let scores = scores(item, &options);
                if scores.iter().any(|(_, value)| !value.is_finite()) {
                    let what = format!("the model's output under condition {}", item.condition.name());
                    return Err(EvalError::NotFinite { task: item.task.name.clone(), what });
                }
                item.scores.extend(scores);
            }
        }
        Ok(())
    }

    /// Likelihood of every answer of a batch of items, by (row of the batch, answer).
    fn likelihoods(
        &self,
        batch: &[usize],
        items: &[Item<'_>],
        wardrobe: &Wardrobe<'_>,
    ) -> Result<BTreeMap<(usize, usize), Likelihood>, EvalError> {
        let decoder = &self.backbone.decoder;
        let (device, hidden_width) = (decoder.device(), decoder.config().hidden_size);
        let rows = batch.len();
        let width = batch.iter().map(|&i| items[i].prompt.len()).max().unwrap_or(0).next_multiple_of(8);
        let mut ids: Vec<i32> = Vec::with_capacity(rows * width);
        let mut starts = Vec::with_capacity(rows);
        for &i in batch {
            let prompt = &items[i].prompt;
            starts.push(width - prompt.len());
            ids.resize(ids.len() + width - prompt.len(), 0);
            ids.extend(prompt.iter().map(|&id| id as i32));
        }
        let worn: Vec<Option<Worn>> = batch.iter().map(|&i| items[i].adapter).collect();
        let mut cache = KvCache::new(decoder.config(), rows, width, &device);
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [rows, width]), &device);
        let hidden = decoder.hidden(decoder.embed(ids), &starts, Some(&mut cache), &wardrobe.adapters(&worn)?)?;
        let after_prompt: Tensor<2> = hidden.narrow(1, width - 1, 1).squeeze_dim(1);

        // Answers of similar length go on together, whichever prompts they follow.
        let answer = |&(row, c): &(usize, usize)| &items[batch[row]].answers.tokens[c];
        let options = |(row, &i): (usize, &usize)| (0..items[i].answers.tokens.len()).map(move |c| (row, c));
        let mut order: Vec<(usize, usize)> = batch.iter().enumerate().flat_map(options).collect();
        order.sort_by_key(|x| answer(x).len());
        let mut found = BTreeMap::new();
        for chunk in batches(&order, 2 * ROWS, 2 * TOKENS, |x| width + answer(x).len()) {
            let longest = chunk.iter().map(|x| answer(x).len()).max().unwrap_or(0);
            let own_rows: Vec<usize> = chunk.iter().map(|x| x.0).collect();
            // The first token is predicted by the prompt; the others by the answer's own tokens before them.
            let fed = longest.saturating_sub(1);
            let index: Vec<i64> = own_rows.iter().map(|&r| r as i64).collect();
            let index = Tensor::from_data(TensorData::new(index, [chunk.len()]), &device);
            let mut outputs: Tensor<3> = after_prompt.clone().select(0, index).reshape([chunk.len(), 1, hidden_width]);
            if fed > 0 {
                let mut fed_ids: Vec<i32> = Vec::with_capacity(chunk.len() * fed);
                for (i, x) in chunk.iter().enumerate() {
                    let tokens = answer(x);
                    fed_ids.extend(tokens.iter().take(tokens.len().saturating_sub(1)).map(|&id| id as i32));
                    fed_ids.resize((i + 1) * fed, 0);
                }
                let fed_ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(fed_ids, [chunk.len(), fed]), &device);
                let chunk_starts: Vec<usize> = own_rows.iter().map(|&r| starts[r]).collect();
                let chunk_worn: Vec<Option<Worn>> = own_rows.iter().map(|&r| worn[r]).collect();
                let mut branch = cache.select(&own_rows, fed);
                let adapters = wardrobe.adapters(&chunk_worn)?;
                let further = decoder.hidden(decoder.embed(fed_ids), &chunk_starts, Some(&mut branch), &adapters)?;
                outputs = Tensor::cat(vec![outputs, further], 1);
            }
            let (mut positions, mut labels) = (Vec::new(), Vec::new());
            for (i, x) in chunk.iter().enumerate() {
                for (j, &label) in answer(x).iter().enumerate() {
                    positions.push((i * longest + j) as i64);
                    labels.push(label as i32);
                }
            }
            let count = labels.len();
            let positions = Tensor::from_data(TensorData::new(positions, [count]), &device);
            let picked: Tensor<2> = outputs.reshape([chunk.len() * longest, hidden_width]).select(0, positions);
            let (mut nll, mut top) = self.label_scores(picked, &labels);
            for x in chunk {
                let rest = answer(x).len();
                let further = (nll.split_off(rest), top.split_off(rest));
                found.insert(*x, Likelihood { nll, top });
                (nll, top) = further;
            }
        }
        Ok(found)
    }

    /// The same, each answer in a pass of its own without a cache: where RoPE frequencies depend on the longest row, what
    /// a batch or a prompt's cache holds is not what the row alone would see.
    fn likelihoods_alone(
        &self,
        batch: &[usize],
        items: &[Item<'_>],
        wardrobe: &Wardrobe<'_>,
    ) -> Result<BTreeMap<(usize, usize), Likelihood>, EvalError> {
        let decoder = &self.backbone.decoder;
        let mut found = BTreeMap::new();
        for (row, &i) in batch.iter().enumerate() {
            let Item { prompt, answers, adapter, .. } = &items[i];
            let adapters = wardrobe.adapters(&[*adapter])?;
            for (c, answer) in answers.tokens.iter().enumerate() {
                let ids: Vec<i32> = prompt.iter().chain(answer).map(|&id| id as i32).collect();
                let shape = [1, ids.len()];
                let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, shape), &decoder.device());
                let hidden = decoder.hidden(decoder.embed(ids), &[0], None, &adapters)?;
                let before: Tensor<2> = hidden.narrow(1, prompt.len() - 1, answer.len()).squeeze_dim(0);
                let labels: Vec<i32> = answer.iter().map(|&id| id as i32).collect();
                let (nll, top) = self.label_scores(before, &labels);
                found.insert((row, c), Likelihood { nll, top });
            }
        }
        Ok(found)
    }

    /// Negative log-likelihood of each label, and whether it is the likeliest token.
    fn label_scores(&self, hidden: Tensor<2>, labels: &[i32]) -> (Vec<f64>, Vec<bool>) {
        let (mut nll, mut top) = (Vec::with_capacity(labels.len()), Vec::with_capacity(labels.len()));
        for (i, labels) in labels.chunks(LABELS).enumerate() {
            let rows = hidden.clone().narrow(0, i * LABELS, labels.len());
            let logits: Tensor<2> = self.backbone.decoder.logits(rows.unsqueeze_dim(0)).squeeze_dim(0);
            let best = logits.clone().argmax(1).to_data();
            let device = logits.device();
            let wanted: Tensor<1, Int> = Tensor::from_data(TensorData::new(labels.to_vec(), [labels.len()]), &device);
            nll.extend(ops::logits_nll(logits, wanted).to_data().iter::<f64>());
            top.extend(best.iter::<i64>().zip(labels).map(|(b, &l)| b == i64::from(l)));
        }
        (nll, top)
    }
}

fn scores(item: &Item<'_>, options: &[&Likelihood]) -> Vec<(&'static str, f64)> {
    let answers = &item.answers;
    let Some(right) = options.get(answers.right) else { return vec![] };
    let top = right.top.iter().filter(|&&t| t).count() as f64 / right.top.len() as f64;
    let mut scores = vec![("nll", mean(&right.nll)), ("token_acc", top)];
    if answers.is_choice() {
        // An option's own tokens, as lm-evaluation-harness sums them: the end of the turn, the same for all, is no
        // part of an option.
        let sum = |(c, option): (usize, &&Likelihood)| -option.nll.iter().take(answers.own_tokens(c)).sum::<f64>();
        let sums: Vec<f64> = options.iter().enumerate().map(sum).collect();
        let lengths = answers.texts.iter().map(|text| text.chars().count().max(1) as f64);
        let normed: Vec<f64> = sums.iter().zip(lengths).map(|(s, l)| s / l).collect();
        let hit = |values: &[f64]| f64::from(u8::from(best(values) == answers.right));
        scores.extend([("acc", hit(&sums)), ("acc_norm", hit(&normed))]);
    }
    scores
}

/// Index of the largest value; the first of equals.
fn best(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}
