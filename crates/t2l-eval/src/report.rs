//! What an evaluation found: one row per task, mode, condition and metric; averages and differences over tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use t2l_core::counted;

use crate::stats::{bootstrap, mean, wilson};

/// One number of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which tasks it belongs to: a split's name, `tasks` or `benchmarks`.
    pub group: String,
    /// Task or benchmark.
    pub task: String,
    /// Part of it that was scored.
    pub part: String,
    /// Prompt mode.
    pub mode: String,
    /// Condition.
    pub condition: String,
    /// Description whose adapter was worn, or that stood in the prompt.
    pub description: Option<String>,
    /// Metric.
    pub metric: String,
    /// Its value: the mean over examples.
    pub value: f64,
    /// Examples.
    pub n: usize,
    /// 95 % interval over examples.
    pub ci95: [f64; 2],
}

/// An average over tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Macro {
    /// Which tasks.
    pub group: String,
    /// Prompt mode.
    pub mode: String,
    /// Condition.
    pub condition: String,
    /// Metric; `score` is each task's own.
    pub metric: String,
    /// Mean over tasks.
    pub value: f64,
    /// Number of tasks.
    pub tasks: usize,
    /// 95 % interval over tasks.
    pub ci95: [f64; 2],
}

/// A difference between two conditions on the same examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Which tasks.
    pub group: String,
    /// Prompt mode.
    pub mode: String,
    /// First condition.
    pub a: String,
    /// Second condition.
    pub b: String,
    /// Metric; `score` is each task's own.
    pub metric: String,
    /// `a − b`, mean over tasks.
    pub difference: f64,
    /// Number of tasks.
    pub tasks: usize,
    /// 95 % interval over tasks.
    pub ci95: [f64; 2],
}

/// A whole evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Hub id of the base model.
    pub base_model: String,
    /// Where the hypernetwork came from.
    pub checkpoint: String,
    /// SHA-256 of its weights.
    pub checkpoint_sha256: String,
    /// Seed of every draw.
    pub seed: u64,
    /// The command that made this.
    pub command: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Every number of every task.
    pub rows: Vec<Row>,
    /// Averages over tasks.
    #[serde(rename = "macro")]
    pub averages: Vec<Macro>,
    /// Differences over tasks.
    pub paired: Vec<Paired>,
}

/// The values of one metric, example by example.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Group of the task.
    pub group: String,
    /// Task.
    pub task: String,
    /// Part.
    pub part: String,
    /// Prompt mode.
    pub mode: String,
    /// Condition.
    pub condition: String,
    /// Description.
    pub description: Option<String>,
    /// Metric.
    pub metric: String,
    /// Whether this metric is the task's own.
    pub own: bool,
    /// Values.
    pub values: Vec<f64>,
}

/// Metrics whose values are 0 or 1.
const PROPORTIONS: [&str; 5] = ["acc", "acc_norm", "acc_generated", "exact_match", "numeric"];
/// Groups of at most so many tasks are listed task by task.
const LISTED_TASKS: usize = 12;
/// Differences that are reported.
const PAIRS: [(&str, &str); 17] = [
    ("own", "base"),
    ("own", "prompted"),
    ("own", "other"),
    ("own", "random"),
    ("own", "own_train"),
    ("other", "random"),
    ("random", "base"),
    ("own", "multitask"),
    ("own", "task_lora"),
    ("own", "mean_lora"),
    ("own", "hyperdecoder"),
    ("own", "few_shot"),
    ("multitask", "base"),
    ("task_lora", "base"),
    ("mean_lora", "base"),
    ("hyperdecoder", "base"),
    ("few_shot", "base"),
];

/// Rows, averages and differences from the values of every example.
pub fn summarise(scores: &[Scores]) -> (Vec<Row>, Vec<Macro>, Vec<Paired>) {
    let rows = scores.par_iter().map(|s| Row {
        group: s.group.clone(),
        task: s.task.clone(),
        part: s.part.clone(),
        mode: s.mode.clone(),
        condition: s.condition.clone(),
        description: s.description.clone(),
        metric: s.metric.clone(),
        value: mean(&s.values),
        n: s.values.len(),
        ci95: if PROPORTIONS.contains(&s.metric.as_str()) {
            wilson(s.values.iter().sum(), s.values.len())
        } else {
            bootstrap(&s.values)
        },
    });
    // (group, mode, metric) → condition → task → value.
    type ByCondition<'a> = BTreeMap<&'a str, BTreeMap<&'a str, f64>>;
    let mut cells: BTreeMap<(&str, &str, &str), ByCondition<'_>> = BTreeMap::new();
    for s in scores {
        let value = mean(&s.values);
        let metrics = [Some(s.metric.as_str()), s.own.then_some("score")];
        for metric in metrics.into_iter().flatten() {
            let cell = cells.entry((&s.group, &s.mode, metric)).or_default();
            cell.entry(&s.condition).or_default().insert(&s.task, value);
        }
    }
    let (mut averages, mut paired) = (Vec::new(), Vec::new());
    for ((group, mode, metric), conditions) in &cells {
        for (condition, tasks) in conditions {
            let values: Vec<f64> = tasks.values().copied().collect();
            averages.push(Macro {
                group: (*group).to_owned(),
                mode: (*mode).to_owned(),
                condition: (*condition).to_owned(),
                metric: (*metric).to_owned(),
                value: mean(&values),
                tasks: values.len(),
                ci95: bootstrap(&values),
            });
        }
        for (a, b) in PAIRS {
            let (Some(first), Some(second)) = (conditions.get(a), conditions.get(b)) else { continue };
            let values: Vec<f64> = first.iter().filter_map(|(task, x)| Some(x - second.get(task)?)).collect();
            if values.is_empty() {
                continue;
            }
            paired.push(Paired {
                group: (*group).to_owned(),
                mode: (*mode).to_owned(),
                a: a.to_owned(),
                b: b.to_owned(),
                metric: (*metric).to_owned(),
                difference: mean(&values),
                tasks: values.len(),
                ci95: bootstrap(&values),
            });
        }
    }
    (rows.collect(), averages, paired)
}

impl EvalReport {
    /// The averages and differences as Markdown, with where they came from.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let hash: String = self.checkpoint_sha256.chars().take(12).collect();
        let _ = writeln!(
            text,
            "Base model {}; checkpoint {} (SHA-256 {hash}…); seed {}.\n",
            self.base_model, self.checkpoint, self.seed
        );
        let _ = writeln!(text, "```sh\n{}\n```\n", self.command);
        let mut groups: Vec<(&str, &str)> = self.averages.iter().map(|m| (m.group.as_str(), m.mode.as_str())).collect();
        groups.dedup();
        groups.sort_unstable();
        groups.dedup();
        for (group, mode) in groups {
            let cells: Vec<&Macro> = self.averages.iter().filter(|m| m.group == group && m.mode == mode).collect();
            let mut metrics: Vec<&str> = cells.iter().map(|m| m.metric.as_str()).collect();
            metrics.sort_unstable();
            metrics.dedup();
            let rows = self.rows.iter().filter(|r| r.group == group && r.mode == mode && r.metric == "nll");
            let tasks: BTreeMap<&str, usize> = rows.map(|r| (r.task.as_str(), r.n)).collect();
            let examples: usize = tasks.values().sum();
            let (tasks, examples) = (counted(tasks.len(), "task"), counted(examples, "example"));
            let _ = writeln!(text, "### {group}, {mode} mode: {tasks}, {examples}\n");
            let _ = writeln!(text, "| condition | {} |", metrics.join(" | "));
            let _ = writeln!(text, "|---|{}", "---|".repeat(metrics.len()));
            for condition in crate::Condition::NAMES {
                let values: Vec<String> = metrics
                    .iter()
                    .map(|metric| {
                        let cell = cells.iter().find(|m| m.condition == condition && m.metric == *metric);
                        cell.map_or(String::new(), |m| {
                            format!("{:.3} [{:.3}, {:.3}] ({})", m.value, m.ci95[0], m.ci95[1], m.tasks)
                        })
                    })
                    .collect();
                if values.iter().any(|v| !v.is_empty()) {
                    let _ = writeln!(text, "| {condition} | {} |", values.join(" | "));
                }
            }
            let _ = writeln!(
                text,
                "\n| difference | metric | mean over tasks | 95 % interval | tasks |\n|---|---|---|---|---|"
            );
            for p in self.paired.iter().filter(|p| p.group == group && p.mode == mode) {
                if ["nll", "token_acc", "score", "acc_norm"].contains(&p.metric.as_str()) {
                    let _ = writeln!(
                        text,
                        "| {} − {} | {} | {:+.3} | [{:+.3}, {:+.3}] | {} |",
                        p.a, p.b, p.metric, p.difference, p.ci95[0], p.ci95[1], p.tasks
                    );
                }
            }
            self.tasks_table(&mut text, group, mode);
            text.push('\n');
        }
        text
    }

    /// A row for every task, where a group is small enough to be looked at one by one: its own metric, or its loss.
    fn tasks_table(&self, text: &mut String, group: &str, mode: &str) {
        let rows: Vec<&Row> = self.rows.iter().filter(|r| r.group == group && r.mode == mode).collect();
        let tasks: BTreeSet<&str> = rows.iter().map(|r| r.task.as_str()).collect();
        if tasks.len() > LISTED_TASKS {
            return;
        }
        let conditions = || crate::Condition::NAMES.into_iter().filter(|c| rows.iter().any(|r| r.condition == *c));
        let heads: Vec<&str> = conditions().collect();
        let _ = writeln!(text, "\n| task | n | metric | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(heads.len()));
        for task in tasks {
            let quoted = ["acc_norm", "exact_match", "numeric", "rouge_l", "nll"];
            let of_task = || rows.iter().filter(|r| r.task == task);
            let Some(metric) = quoted.into_iter().find(|m| of_task().any(|r| r.metric == *m)) else { continue };
            let cells: Vec<String> = conditions()
                .map(|condition| {
                    let row = of_task().find(|r| r.condition == condition && r.metric == metric);
                    row.map_or(String::new(), |r| format!("{:.3} [{:.3}, {:.3}]", r.value, r.ci95[0], r.ci95[1]))
                })
                .collect();
            let n = of_task().find(|r| r.metric == metric).map_or(0, |r| r.n);
            let _ = writeln!(text, "| {task} | {n} | {metric} | {} |", cells.join(" | "));
        }
    }
}
