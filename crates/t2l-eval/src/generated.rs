//! Greedy answers, generated only for the metrics that need them, and what they are judged by.

use t2l_backbone::Sampling;
use t2l_data::Metric;

use crate::metrics::{exact_match, first_line, numeric_match, option_named, rouge_l};
use crate::run::{Item, batches};
use crate::worn::{Wardrobe, Worn};
use crate::{EvalError, Evaluator};

/// Answers generated at once, and padded tokens of their prompts at most.
const ROWS: usize = 64;
const TOKENS: usize = 8192;

impl Evaluator<'_> {
    /// Adds the metric of a generated answer to the items that have one; to choices only where asked for.
    pub(crate) fn judge_generated(
        &self,
        choices: bool,
        items: &mut [Item<'_>],
        wardrobe: &Wardrobe<'_>,
    ) -> Result<(), EvalError> {
        let room = self.backbone.decoder.config().longest_context();
        let mut order: Vec<usize> = (0..items.len())
            .filter(|&i| generated_metric(&items[i]).is_some_and(|m| m != "acc_generated" || choices))
            .collect();
        // Answers of the same length are made together; among them, prompts of similar length.
        order.sort_by_key(|&i| (limit(&items[i]), items[i].prompt.len()));
        let in_batches = batches(&order, ROWS, TOKENS, |&i| items[i].prompt.len());
        // Where RoPE frequencies depend on the longest row, every row is alone.
        let steady = self.backbone.decoder.config().steady_context();
        let most =
            |of: fn(&Item<'_>) -> usize, batch: &[usize]| batch.iter().map(|&i| of(&items[i])).max().unwrap_or(0);
        let fits = |batch: &[usize]| most(|item| item.prompt.len(), batch) + most(limit, batch) <= steady;
        let parts = in_batches.into_iter().flat_map(|batch| batch.chunks(if fits(batch) { batch.len() } else { 1 }));
        for batch in parts.collect::<Vec<_>>() {
            let prompts: Vec<Vec<u32>> = batch.iter().map(|&i| items[i].prompt.clone()).collect();
            let width = prompts.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(8);
            let worn: Vec<Option<Worn>> = batch.iter().map(|&i| items[i].adapter).collect();
            let limits = batch.iter().map(|&i| limit(&items[i]).min(room.saturating_sub(width))).collect();
            let options = self.backbone.until_end_of_turn(limits, Sampling::GREEDY);
            let adapters = wardrobe.adapters(&worn)?;
            let answers = self.backbone.decoder.generate(&prompts, &adapters, &options, |_, _| ())?;
            for (&i, answer) in batch.iter().zip(&answers) {
                let text = self.backbone.text(answer)?;
                let item = &mut items[i];
                if let Some(metric) = generated_metric(item) {
                    let value = judge(metric, &text, item);
                    item.scores.push((metric, value));
                }
            }
        }
        Ok(())
    }
}

/// Most tokens of an answer.
fn limit(item: &Item<'_>) -> usize {
    let answers = &item.answers;
    2 * (0..answers.texts.len()).map(|c| answers.own_tokens(c)).max().unwrap_or(0) + 8
}

fn judge(metric: &str, text: &str, item: &Item<'_>) -> f64 {
    let targets = &item.answers.targets;
    let one_line = targets.iter().all(|t| !t.trim().contains('\n'));
    let judged = if one_line { first_line(text) } else { text.trim() };
    let hit = |right: bool| f64::from(u8::from(right));
    match metric {
        "rouge_l" => rouge_l(judged, targets),
        "numeric" => hit(numeric_match(judged, targets)),
        "exact_match" => hit(exact_match(judged, targets, item.task.case_sensitive)),
        _ => hit(option_named(text, &item.answers.texts) == Some(item.answers.right)),
    }
}

/// The metric that needs a generated answer, if an item has one. Programs are not run, so theirs have none.
fn generated_metric(item: &Item<'_>) -> Option<&'static str> {
    match item.task.metric {
        _ if item.answers.is_choice() => Some("acc_generated"),
        Metric::RougeL => Some("rouge_l"),
        Metric::Numeric => Some("numeric"),
        Metric::ExactMatch | Metric::Accuracy => Some("exact_match"),
        Metric::PassAt1 => None,
    }
}

/// The metric that a task is quoted by.
pub(crate) fn own_metric(item: &Item<'_>) -> Option<&'static str> {
    if item.answers.is_choice() { Some("acc_norm") } else { generated_metric(item) }
}
