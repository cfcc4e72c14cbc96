//! Scoring: every example under every condition, the rows of a batch wearing whatever they wear.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use t2l_backbone::{Backbone, KvCache, Sampling};
use t2l_core::{AdapterBatch, AdapterGenerator, LoraFactors, TextEncoder, ops};
use t2l_data::{Example, Kind, Metric, Part, PromptMode, PromptRenderer, Task, TaskSet, example_turn, user_turn};

use crate::condition::stream;
use crate::metrics::{exact_match, first_line, numeric_match, option_named, rouge_l};
use crate::report::{EvalReport, Scores, summarise};
use crate::{Condition, EvalError};

/// Tasks that are averaged together.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Name in the report.
    pub name: String,
    /// Tasks to score.
    pub tasks: Vec<&'a Task>,
    /// Tasks that the `other` condition draws from.
    pub pool: Vec<&'a Task>,
    /// Which examples.
    pub part: Part,
}

/// What to score and how.
#[derive(Debug, Clone)]
pub struct EvalPlan<'a> {
    /// Groups of tasks.
    pub groups: Vec<Group<'a>>,
    /// Prompt modes, with the conditions scored in each.
    pub modes: Vec<(PromptMode, Vec<Condition>)>,
    /// Examples of a task at most; the same ones under every condition.
    pub limit: Option<usize>,
    /// Seed of every draw.
    pub seed: u64,
    /// Prompt and response together, in tokens.
    pub max_tokens: usize,
    /// Whether choices are also judged by a generated answer.
    pub generate_choices: bool,
}

/// Everything that scoring needs.
pub struct Evaluator<'a> {
    /// The base model.
    pub backbone: &'a Backbone,
    /// The encoder of the generator.
    pub encoder: &'a dyn TextEncoder,
    /// The hypernetwork.
    pub generator: &'a dyn AdapterGenerator,
    /// Where examples are read from.
    pub set: &'a TaskSet,
}

/// What a report says of where it came from.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Where the hypernetwork came from.
    pub checkpoint: String,
    /// SHA-256 of its weights.
    pub checkpoint_sha256: String,
    /// The command.
    pub command: String,
}

/// Rows scored at once, and tokens at most.
const ROWS: usize = 16;
const TOKENS: usize = 2048;

/// One example under one condition.
struct Item<'a> {
    task: &'a Task,
    group: &'a str,
    part: Part,
    mode: PromptMode,
    condition: Condition,
    description: Option<String>,
    /// Index of the adapter among those of its chunk.
    adapter: Option<usize>,
    example: Example,
    prompt: Vec<u32>,
    /// Answers scored by their probability; the right one's index.
    candidates: Vec<Vec<u32>>,
    right: usize,
    scores: Vec<(&'static str, f64)>,
}

impl Evaluator<'_> {
    /// Scores everything in the plan. `tell(done, of)` hears of every task.
    ///
    /// # Errors
    /// Nothing to score, files that cannot be read, descriptions that cannot be encoded.
    pub fn run(
        &self,
        plan: &EvalPlan<'_>,
        from: Provenance,
        mut tell: impl FnMut(usize, usize),
    ) -> Result<EvalReport, EvalError> {
        let started = Instant::now();
        let renderer = PromptRenderer::new(&self.backbone.tokenizer, &self.backbone.chat)?;
        let total = plan.groups.iter().map(|g| g.tasks.len()).sum();
        let mut scores = Vec::new();
        let mut done = 0;
        for group in &plan.groups {
            // A few tasks at a time: their adapters are held together, their rows are batched together.
            for tasks in group.tasks.chunks(8) {
                let (mut items, factors) = self.items(plan, group, tasks, &renderer)?;
                self.score_candidates(&mut items, &factors)?;
                self.generate(plan, &mut items, &factors)?;
                collect(&items, &mut scores);
                done += tasks.len();
                tell(done, total);
            }
        }
        if scores.is_empty() {
            return Err(EvalError::Nothing { reason: "no task has an example in this part".into() });
        }
        let (rows, averages, paired) = summarise(&scores);
        Ok(EvalReport {
            base_model: self.generator.layout().base_model.clone(),
            checkpoint: from.checkpoint,
            checkpoint_sha256: from.checkpoint_sha256,
            seed: plan.seed,
            command: from.command,
            seconds: started.elapsed().as_secs_f64(),
            rows,
            averages,
            paired,
        })
    }

    /// Every example of some tasks in every mode and condition, and the adapters they wear.
    fn items<'a>(
        &self,
        plan: &EvalPlan<'_>,
        group: &'a Group<'a>,
        tasks: &[&'a Task],
        renderer: &PromptRenderer<'_>,
    ) -> Result<(Vec<Item<'a>>, Option<LoraFactors>), EvalError> {
        let mut texts: Vec<String> = Vec::new();
        let mut items = Vec::new();
        for task in tasks {
            let mut examples = self.set.examples(task, group.part)?;
            let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
            rng.set_stream(stream(&task.name));
            examples.shuffle(&mut rng);
            examples.truncate(plan.limit.unwrap_or(usize::MAX));
            for (mode, conditions) in &plan.modes {
                for &condition in conditions {
                    let description = condition.description(task, &group.pool, plan.seed);
                    if description.is_none() && condition != Condition::Base {
                        continue;
                    }
                    let adapter = description.as_ref().filter(|_| condition.wears_adapter()).map(|text| {
                        texts.iter().position(|t| t == text).unwrap_or_else(|| {
                            texts.push(text.clone());
                            texts.len() - 1
                        })
                    });
                    for example in &examples {
                        let turn = match (condition, &description) {
                            (Condition::Prompted, Some(text)) => user_turn(
                                Some(text),
                                &example.input,
                                if task.show_options { &example.choices } else { &[] },
                            ),
                            _ => example_turn(task, example, *mode),
                        };
                        let options = options(task, example);
                        let (answers, right) = match options.iter().position(|o| *o == example.target) {
                            Some(right) => (options, right),
                            None => (vec![example.target.clone()], 0),
                        };
                        let candidates: Vec<Vec<u32>> =
                            answers.iter().map(|a| renderer.response(a)).collect::<Result<_, _>>()?;
                        let mut prompt = renderer.prompt(&turn)?;
                        let longest = candidates.iter().map(Vec::len).max().unwrap_or(0);
                        let room = plan.max_tokens.saturating_sub(longest).max(8);
                        prompt.drain(..prompt.len().saturating_sub(room));
                        items.push(Item {
                            task,
                            group: &group.name,
                            part: group.part,
                            mode: *mode,
                            condition,
                            description: description.clone(),
                            adapter,
                            example: Example {
                                choices: if answers.len() > 1 { answers } else { vec![] },
                                ..example.clone()
                            },
                            prompt,
                            candidates,
                            right,
                            scores: vec![],
                        });
                    }
                }
            }
        }
        if texts.is_empty() {
            return Ok((items, None));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let factors = self.generator.generate(self.encoder.encode(&texts)?.embeddings)?;
        Ok((items, Some(factors)))
    }

    fn adapters(&self, factors: &Option<LoraFactors>, rows: &[Option<usize>]) -> Result<AdapterBatch, EvalError> {
        match factors {
            Some(factors) if rows.iter().any(Option::is_some) => Ok(AdapterBatch::select_factors(factors, rows)?),
            _ => Ok(AdapterBatch::none(rows.len())),
        }
    }

    /// Log-probabilities of all candidates: prompts are read once, candidates go on from their caches.
    fn score_candidates(&self, items: &mut [Item<'_>], factors: &Option<LoraFactors>) -> Result<(), EvalError> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| items[i].prompt.len());
        let mut start = 0;
        while start < order.len() {
            let mut end = start + 1;
            while end < order.len()
                && end - start < ROWS
                && (end - start + 1) * items[order[end]].prompt.len() <= TOKENS
            {
                end += 1;
            }
            self.score_batch(&order[start..end], items, factors)?;
            start = end;
        }
        Ok(())
    }

    fn score_batch(
        &self,
        batch: &[usize],
        items: &mut [Item<'_>],
        factors: &Option<LoraFactors>,
    ) -> Result<(), EvalError> {
        let decoder = &self.backbone.decoder;
        let device = decoder.device();
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
        let worn: Vec<Option<usize>> = batch.iter().map(|&i| items[i].adapter).collect();
        let mut cache = KvCache::new(decoder.config(), rows, width, &device);
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [rows, width]), &device);
        let hidden = decoder.hidden(decoder.embed(ids), &starts, Some(&mut cache), &self.adapters(factors, &worn)?)?;
        let after_prompt: Tensor<2> = hidden.narrow(1, width - 1, 1).squeeze_dim(1);

        // All candidates of all rows, a few rows of candidates at a time.
        let all: Vec<(usize, usize)> = batch
            .iter()
            .enumerate()
            .flat_map(|(row, &i)| (0..items[i].candidates.len()).map(move |c| (row, c)))
            .collect();
        let mut losses: BTreeMap<(usize, usize), (Vec<f64>, Vec<bool>)> = BTreeMap::new();
        for chunk in all.chunks(2 * ROWS) {
            let candidate = |&(row, c): &(usize, usize)| &items[batch[row]].candidates[c];
            let longest = chunk.iter().map(|x| candidate(x).len()).max().unwrap_or(0);
            let own_rows: Vec<usize> = chunk.iter().map(|x| x.0).collect();
            // The first token is predicted by the prompt; the others by the candidate's own tokens before them.
            let fed = longest.saturating_sub(1);
            let index: Vec<i64> = own_rows.iter().map(|&r| r as i64).collect();
            let index = Tensor::from_data(TensorData::new(index, [chunk.len()]), &device);
            let hidden_width = decoder.config().hidden_size;
            let mut outputs: Tensor<3> = after_prompt.clone().select(0, index).reshape([chunk.len(), 1, hidden_width]);
            if fed > 0 {
                let mut fed_ids: Vec<i32> = Vec::with_capacity(chunk.len() * fed);
                for x in chunk {
                    let tokens = candidate(x);
                    fed_ids.extend(tokens.iter().take(tokens.len() - 1).map(|&id| id as i32));
                    fed_ids.resize(fed_ids.len() + fed - (tokens.len() - 1), 0);
                }
                let fed_ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(fed_ids, [chunk.len(), fed]), &device);
                let chunk_starts: Vec<usize> = own_rows.iter().map(|&r| starts[r]).collect();
                let chunk_worn: Vec<Option<usize>> = own_rows.iter().map(|&r| worn[r]).collect();
                let mut branch = cache.select(&own_rows, fed);
                let adapters = self.adapters(factors, &chunk_worn)?;
                let further = decoder.hidden(decoder.embed(fed_ids), &chunk_starts, Some(&mut branch), &adapters)?;
                outputs = Tensor::cat(vec![outputs, further], 1);
            }
            let (mut positions, mut labels) = (Vec::new(), Vec::new());
            for (i, x) in chunk.iter().enumerate() {
                for (j, &label) in candidate(x).iter().enumerate() {
                    positions.push((i * longest + j) as i64);
                    labels.push(label as i32);
                }
            }
            let count = labels.len();
            let positions = Tensor::from_data(TensorData::new(positions, [count]), &device);
            let picked: Tensor<2> = outputs.reshape([chunk.len() * longest, hidden_width]).select(0, positions);
            let (nll, top) = self.label_scores(picked, &labels);
            let mut at = 0;
            for x in chunk {
                let n = candidate(x).len();
                losses.insert(*x, (nll[at..at + n].to_vec(), top[at..at + n].to_vec()));
                at += n;
            }
        }
        let end_of_turn = |tokens: &[u32]| tokens.len().saturating_sub(1).max(1);
        for (row, &i) in batch.iter().enumerate() {
            let item = &mut items[i];
            let (nll, top) = &losses[&(row, item.right)];
            item.scores.push(("nll", crate::stats::mean(nll)));
            item.scores.push(("token_acc", top.iter().filter(|&&t| t).count() as f64 / top.len() as f64));
            if item.candidates.len() > 1 {
                // An option's own tokens: the end of the turn, the same for all, is left out.
                let sums: Vec<f64> = (0..item.candidates.len())
                    .map(|c| -losses[&(row, c)].0.iter().take(end_of_turn(&item.candidates[c])).sum::<f64>())
                    .collect();
                let lengths = item.example.choices.iter().map(|c| c.chars().count().max(1) as f64);
                let normed: Vec<f64> = sums.iter().zip(lengths).map(|(s, l)| s / l).collect();
                item.scores.push(("acc", f64::from(u8::from(best(&sums) == item.right))));
                item.scores.push(("acc_norm", f64::from(u8::from(best(&normed) == item.right))));
            }
        }
        Ok(())
    }

    /// Loss of each label, and whether it is the likeliest token.
    fn label_scores(&self, hidden: Tensor<2>, labels: &[i32]) -> (Vec<f64>, Vec<bool>) {
        let (mut nll, mut top) = (Vec::with_capacity(labels.len()), Vec::with_capacity(labels.len()));
        for (i, labels) in labels.chunks(64).enumerate() {
            let rows = hidden.clone().narrow(0, i * 64, labels.len());
            let logits: Tensor<2> = self.backbone.decoder.logits(rows.unsqueeze_dim(0)).squeeze_dim(0);
            let best = logits.clone().argmax(1).to_data();
            let device = logits.device();
            let wanted: Tensor<1, Int> = Tensor::from_data(TensorData::new(labels.to_vec(), [labels.len()]), &device);
            nll.extend(ops::logits_nll(logits, wanted).to_data().iter::<f64>());
            top.extend(best.iter::<i64>().zip(labels).map(|(b, &l)| b == i64::from(l)));
        }
        (nll, top)
    }

    /// Greedy answers, for the metrics that need them.
    fn generate(
        &self,
        plan: &EvalPlan<'_>,
        items: &mut [Item<'_>],
        factors: &Option<LoraFactors>,
    ) -> Result<(), EvalError> {
        let wanted = |item: &Item<'_>| match item.candidates.len() {
            1 => matches!(item.task.metric, Metric::ExactMatch | Metric::Numeric | Metric::RougeL | Metric::Accuracy),
            _ => plan.generate_choices,
        };
        let limit = |item: &Item<'_>| 2 * item.candidates.iter().map(Vec::len).max().unwrap_or(0) + 8;
        let mut order: Vec<usize> = (0..items.len()).filter(|&i| wanted(&items[i])).collect();
        order.sort_by_key(|&i| (limit(&items[i]), items[i].prompt.len()));
        for batch in order.chunks(2 * ROWS) {
            let prompts: Vec<Vec<u32>> = batch.iter().map(|&i| items[i].prompt.clone()).collect();
            let worn: Vec<Option<usize>> = batch.iter().map(|&i| items[i].adapter).collect();
            let limits = batch.iter().map(|&i| limit(&items[i])).collect();
            let options = self.backbone.until_end_of_turn(limits, Sampling::GREEDY);
            let answers =
                self.backbone.decoder.generate(&prompts, &self.adapters(factors, &worn)?, &options, |_, _| ())?;
            for (&i, answer) in batch.iter().zip(&answers) {
                let text = self.backbone.text(answer)?;
                let item = &mut items[i];
                let one_line = item.example.targets.iter().all(|t| !t.trim().contains('\n'));
                let judged = if one_line { first_line(&text) } else { text.trim() };
                let targets = &item.example.targets;
                let hit = |right: bool| f64::from(u8::from(right));
                let score = match (item.candidates.len(), item.task.metric) {
                    (1, Metric::RougeL) => ("rouge_l", rouge_l(judged, targets)),
                    (1, Metric::Numeric) => ("numeric", hit(numeric_match(judged, targets))),
                    (1, _) => ("exact_match", hit(exact_match(judged, targets, item.task.case_sensitive))),
                    _ => ("acc_generated", hit(option_named(&text, &item.example.choices) == Some(item.right))),
                };
                item.scores.push(score);
            }
        }
        Ok(())
    }
}

/// Options that an example is judged by: its own, else the task's labels.
fn options(task: &Task, example: &Example) -> Vec<String> {
    if !example.choices.is_empty() {
        return example.choices.clone();
    }
    if matches!(task.kind, Kind::Choice | Kind::Boolean) { task.labels.clone() } else { vec![] }
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

/// The metric that a task is quoted by.
fn own_metric(item: &Item<'_>) -> &'static str {
    match (item.candidates.len(), item.task.metric) {
        (1, Metric::RougeL) => "rouge_l",
        (1, Metric::Numeric) => "numeric",
        (1, Metric::PassAt1) => "",
        (1, _) => "exact_match",
        _ => "acc_norm",
    }
}

fn collect(items: &[Item<'_>], scores: &mut Vec<Scores>) {
    let mut groups: BTreeMap<(&str, PromptMode, Condition, &str), Scores> = BTreeMap::new();
    for item in items {
        for &(metric, value) in &item.scores {
            let cell = groups.entry((&item.task.name, item.mode, item.condition, metric)).or_insert_with(|| Scores {
                group: item.group.to_owned(),
                task: item.task.name.clone(),
                part: format!("{:?}", item.part).to_lowercase(),
                mode: format!("{:?}", item.mode).to_lowercase(),
                condition: item.condition.name().to_owned(),
                description: item.description.clone(),
                metric: metric.to_owned(),
                own: metric == own_metric(item),
                values: vec![],
            });
            cell.values.push(value);
        }
    }
    scores.extend(groups.into_values());
}
