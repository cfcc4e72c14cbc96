//! Metrics against cases worked out by hand, statistics by their properties, the report's shape.

mod baselines;
mod runner;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;
use t2l_data::{Task, TaskSet};
use t2l_eval::{
    Condition, NONSENSE, Scores, bootstrap, exact_match, first_line, numeric_match, option_named, rouge_l, summarise,
    wilson,
};

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn exact_match_compares_first_lines_for_one_line_targets() {
    assert!(exact_match("  Blue \nsky", &strings(&["blue"]), false));
    assert!(!exact_match("blue sky", &strings(&["blue"]), false));
    assert!(exact_match("a\nb", &strings(&["a\nb"]), true));
    assert!(exact_match("second", &strings(&["first", "second"]), true));
}

#[test]
fn numbers_are_compared_as_numbers() {
    assert!(numeric_match("It is $1,234.50.", &strings(&["1234.5"])));
    assert!(numeric_match("-7", &strings(&["-7.0"])));
    assert!(!numeric_match("no number here", &strings(&["1"])));
    assert!(!numeric_match("12", &strings(&["twelve"])));
    // The tolerance does not grow with the number: one off is wrong however large it is.
    assert!(!numeric_match("2000001", &strings(&["2000000"])));
    assert!(numeric_match("0.33334", &strings(&["0.33333"])));
    // A minus after a number is a subtraction or a range; the last number counts.
    assert!(numeric_match("10-3", &strings(&["3"])) && numeric_match("x = -3", &strings(&["-3"])));
    assert!(numeric_match("1.5e3", &strings(&["1500"])) && numeric_match("1, 2", &strings(&["2"])));
    assert!(numeric_match("1,234,567", &strings(&["1234567"])) && numeric_match(".5", &strings(&["0.5"])));
}

#[test]
fn rouge_l_is_the_f1_of_the_longest_common_subsequence() {
    // police killed the gunman / police kill the gunman: 3 of 4 words in common on both sides.
    assert!((rouge_l("police kill the gunman", &strings(&["police killed the gunman"])) - 0.75).abs() < 1e-12);
    // LCS 2 of 3 and of 6 words: P = 2/3, R = 1/3.
    assert!((rouge_l("the cat barked", &strings(&["the dog and the cat slept"])) - 4.0 / 9.0).abs() < 1e-12);
    assert_eq!(rouge_l("", &strings(&["a"])), 0.0);
    assert_eq!(rouge_l("x y", &strings(&["a", "x, Y!"])), 1.0);
}

#[test]
fn options_are_named_without_regard_to_case_and_full_stop() {
    let options = strings(&["Yes.", "No."]);
    assert_eq!(option_named("no\nbecause", &options), Some(1));
    assert_eq!(option_named("maybe", &options), None);
    assert_eq!(first_line("\n\n a \nb"), "a");
}

#[test]
fn wilson_agrees_with_published_values() {
    // Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    let [low, high] = wilson(81.0, 263);
    assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
    let [low, high] = wilson(0.0, 20);
    assert!(low == 0.0 && (high - 0.1611).abs() < 5e-5, "{high}");
}

#[test]
fn conditions_by_name() {
    for name in Condition::NAMES {
        assert_eq!(Condition::parse(name).expect("known").name(), name);
    }
    assert!(Condition::parse("best").expect_err("unknown").to_string().contains("base, prompted, own"));
    assert!(NONSENSE.iter().all(|n| !n.is_empty()));
}

fn task(name: &str, kind: &str) -> Task {
    let record = json!({
        "name": name, "file": "x.jsonl", "kind": kind, "descriptions": {"eval": [format!("about {name}")]},
    });
    serde_json::from_value(record).expect("a task")
}

#[test]
fn other_is_of_another_family_and_kind_where_there_is_one() {
    let tasks = [
        task("bb_sums_small", "number"),
        task("bb_sums_large", "choice"),
        task("bb_films", "choice"),
        task("bb_poems", "number"),
        task("task012_sums_hard", "choice"),
    ];
    let pool: Vec<&Task> = tasks.iter().collect();
    for seed in 0..20 {
        let other = |task: &Task| Condition::Other.description(task, &pool, seed);
        // Only the films are of another family (sums is shared across collections) and not a number.
        assert_eq!(other(&tasks[0]).as_deref(), Some("about bb_films"));
        assert_eq!(other(&tasks[0]), other(&tasks[0]), "drawn once");
        assert_eq!(other(&tasks[4]).as_deref(), Some("about bb_poems"));
    }
    // Pools without such a task give way on the kind, then on the family; alone there is nothing to draw.
    let draw = |pool: &[&Task]| Condition::Other.description(&tasks[1], pool, 1);
    assert_eq!(draw(&[&tasks[1], &tasks[2], &tasks[4]]).as_deref(), Some("about bb_films"));
    assert_eq!(draw(&[&tasks[1], &tasks[4]]).as_deref(), Some("about task012_sums_hard"));
    assert_eq!(draw(&[&tasks[1]]), None);
}

/// On the real splits every task finds another of another family and kind, and the draws are spread.
#[test]
fn other_on_the_real_tasks() {
    let Some(data) = t2l_testing::data() else { return };
    let set = TaskSet::open(data).expect("opens");
    for split in ["train", "unseen"] {
        let Ok(tasks) = set.split(split) else { continue };
        let mut drawn = BTreeSet::new();
        for task in &tasks {
            let text = Condition::Other.description(task, &tasks, 1).expect("another task");
            let other = tasks.iter().find(|t| t.descriptions.eval.first() == Some(&text)).expect("from the pool");
            assert!(other.family() != task.family() && other.kind != task.kind, "{} drew {}", task.name, other.name);
            drawn.insert(text);
        }
        println!("{split}: {} tasks draw {} descriptions", tasks.len(), drawn.len());
        assert!(drawn.len() * 3 > tasks.len());
    }
}

fn scores(task: &str, condition: &str, metric: &str, values: &[f64]) -> Scores {
    Scores {
        group: "g".into(),
        task: task.into(),
        part: "valid".into(),
        mode: "input".into(),
        condition: condition.into(),
        description: None,
        metric: metric.into(),
        own: metric == "acc_norm",
        values: values.to_vec(),
    }
}

#[test]
fn averages_are_over_tasks_and_differences_are_paired() {
    let all = [
        scores("a", "own", "nll", &[1.0, 3.0]),
        scores("a", "base", "nll", &[4.0, 4.0]),
        scores("b", "own", "nll", &[0.0]),
        scores("b", "base", "nll", &[1.0]),
        scores("b", "own", "acc_norm", &[1.0]),
        scores("c", "base", "nll", &[9.0]),
    ];
    let (rows, averages, paired) = summarise(&all);
    assert_eq!(rows[0].value, 2.0);
    assert_eq!(rows[0].n, 2);
    let own = averages.iter().find(|m| m.condition == "own" && m.metric == "nll").expect("there");
    assert_eq!((own.value, own.tasks), (1.0, 2));
    assert!(averages.iter().any(|m| m.metric == "score" && m.value == 1.0));
    // Task c was not scored under own: it takes no part in the difference.
    let difference = paired.iter().find(|p| p.a == "own" && p.b == "base" && p.metric == "nll").expect("there");
    assert_eq!((difference.difference, difference.tasks), (-1.5, 2));
    assert!(difference.ci95[0] <= -1.5 && difference.ci95[1] >= -1.5);
}

proptest! {
    #[test]
    fn intervals_hold_the_mean(values in prop::collection::vec(-5.0f64..5.0, 1..30)) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let [low, high] = bootstrap(&values);
        prop_assert!(low <= mean + 1e-9 && mean <= high + 1e-9);
        prop_assert_eq!(bootstrap(&values), [low, high], "the same draws every time");
    }

    #[test]
    fn wilson_holds_the_proportion(n in 1usize..500, share in 0.0f64..1.0) {
        let hits = (share * n as f64).floor();
        let [low, high] = wilson(hits, n);
        prop_assert!(0.0 <= low && low <= hits / n as f64 + 1e-12 && hits / n as f64 <= high + 1e-12 && high <= 1.0);
    }

    #[test]
    fn rouge_l_is_a_share_and_1_for_the_same_words(words in prop::collection::vec("[a-z]{1,4}", 1..12)) {
        let text = words.join(" ");
        prop_assert_eq!(rouge_l(&text, std::slice::from_ref(&text)), 1.0);
        let half = words[..words.len().div_ceil(2)].join(" ");
        let score = rouge_l(&half, &[text]);
        prop_assert!((0.0..=1.0).contains(&score));
    }
}
