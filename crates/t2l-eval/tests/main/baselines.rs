//! Baselines by name: what each example wears under them, worked out a second time, one example at a time.

use t2l_core::{Adapter, AdapterBatch, AdapterGenerator, TextEncoder, device};
use t2l_data::{Part, PromptMode, PromptRenderer, Task, TaskSet, example_turn};
use t2l_eval::{Baselines, Condition, EvalError, EvalReport, Evaluator, Provenance};

use crate::runner::{ByteEncoder, Slow, Waves, backbone, mean, plan, repository, waves};

fn adapter(generator: &Waves, text: &str) -> Adapter {
    let embedding = ByteEncoder.encode(&[text]).expect("encodes").embeddings;
    generator.generate(embedding).expect("generates").adapter(0, "tiny").expect("one task")
}

#[test]
fn each_example_wears_what_its_baseline_says() {
    let backbone = backbone();
    let (generator, other) = (waves(&backbone, 0.3), waves(&backbone, 0.2));
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let (multitask, mean_lora) = (adapter(&generator, "all tasks"), adapter(&other, "the mean"));
    let own = |task: &Task| task.name.starts_with("double").then(|| adapter(&other, &task.name));
    let library = |task: &Task| -> Result<Option<Adapter>, EvalError> { Ok(own(task)) };
    let baselines = Baselines {
        multitask: Some(&multitask),
        mean_lora: Some(&mean_lora),
        task_lora: Some(&library),
        hyperdecoder: Some((&ByteEncoder, &other)),
        shots: 0,
    };
    let conditions = [
        Condition::Base,
        Condition::Own,
        Condition::Multitask,
        Condition::TaskLora,
        Condition::MeanLora,
        Condition::Hyperdecoder,
    ];
    let evaluator =
        Evaluator { backbone: &backbone, encoder: &ByteEncoder, generator: &generator, set: &set, baselines };
    let report: EvalReport = evaluator.run(&plan(&set, &conditions), Provenance::default(), |_, _| ()).expect("runs");
    let slow = Slow { backbone: &backbone, generator: &generator };
    let renderer = PromptRenderer::new(&backbone.tokenizer, &backbone.chat).expect("renders");
    let device = device::parse("cpu").expect("a device");
    let mut checked = 0;
    for task in set.tasks.iter().chain(&set.benchmarks) {
        let part = if task.benchmark { Part::Dev } else { Part::All };
        let examples = set.examples(task, part).expect("reads");
        for (mode, &condition) in [PromptMode::Input, PromptMode::Definition]
            .into_iter()
            .flat_map(|mode| conditions.iter().map(move |c| (mode, c)))
        {
            let worn = |turn: &str| match condition {
                Condition::Multitask => Some(multitask.clone()),
                Condition::MeanLora => Some(mean_lora.clone()),
                Condition::TaskLora => own(task),
                // The turn in definition mode, whatever the prompt's.
                Condition::Hyperdecoder => Some(adapter(&other, turn)),
                Condition::Own => Some(adapter(&generator, &task.descriptions.eval[0])),
                _ => None,
            };
            let losses: Vec<f64> = examples
                .iter()
                .map(|e| {
                    let prompt = renderer.prompt(&example_turn(task, e, mode)).expect("renders");
                    let answer = renderer.response(&e.target).expect("renders");
                    let adapter = worn(&example_turn(task, e, PromptMode::Definition));
                    let batch = adapter.map_or(AdapterBatch::none(1), |a| {
                        AdapterBatch::from_adapters(&[&a], &[Some(0)], &device).expect("fits")
                    });
                    mean(&slow.losses_under(&prompt, &answer, &batch))
                })
                .collect();
            let row = report.rows.iter().find(|r| {
                r.task == task.name && r.mode == mode.name() && r.condition == condition.name() && r.metric == "nll"
            });
            if condition == Condition::TaskLora && own(task).is_none() {
                assert!(row.is_none(), "{} has no adapter of its own", task.name);
                continue;
            }
            let row = row.unwrap_or_else(|| panic!("{} {condition:?} is not scored", task.name));
            assert!((row.value - mean(&losses)).abs() < 2e-4, "{} {mode:?} {condition:?}", task.name);
            assert_eq!(row.n, examples.len());
            assert_eq!(row.description.is_some(), condition == Condition::Own);
            checked += 1;
        }
    }
    assert!(checked > 35, "{checked}");
    let paired = |b: &str| report.paired.iter().any(|p| p.a == "own" && p.b == b && p.metric == "nll");
    assert!(["multitask", "task_lora", "mean_lora", "hyperdecoder"].into_iter().all(paired));
    assert!(report.markdown().contains("| hyperdecoder |"));
}

#[test]
fn shots_come_before_the_question() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.3);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let run = |shots: usize| {
        let baselines = Baselines { shots, ..Baselines::default() };
        let mut plan = plan(&set, &[Condition::Base, Condition::FewShot]);
        plan.groups.iter_mut().for_each(|g| g.part = Part::Valid);
        plan.groups.truncate(1);
        Evaluator { backbone: &backbone, encoder: &ByteEncoder, generator: &generator, set: &set, baselines }.run(
            &plan,
            Provenance::default(),
            |_, _| (),
        )
    };
    let nll = |report: &EvalReport, condition: &str| -> Vec<f64> {
        let rows = report.rows.iter().filter(|r| r.condition == condition && r.metric == "nll");
        rows.map(|r| r.value).collect()
    };
    let (one, two) = (run(1).expect("runs"), run(2).expect("runs"));
    assert!(!nll(&one, "few_shot").is_empty());
    assert_eq!(nll(&one, "base"), nll(&two, "base"));
    assert_ne!(nll(&one, "few_shot"), nll(&one, "base"));
    assert_ne!(nll(&one, "few_shot"), nll(&two, "few_shot"));
    assert_eq!(nll(&one, "few_shot"), nll(&run(1).expect("runs"), "few_shot"));
}

#[test]
fn a_baseline_that_is_not_there_is_named() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.3);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let wanted = [
        (Condition::Multitask, "--multitask"),
        (Condition::TaskLora, "--library"),
        (Condition::MeanLora, "--library"),
        (Condition::Hyperdecoder, "--hyperdecoder"),
        (Condition::FewShot, "--shots"),
    ];
    for (condition, option) in wanted {
        let baselines = Baselines::default();
        let evaluator =
            Evaluator { backbone: &backbone, encoder: &ByteEncoder, generator: &generator, set: &set, baselines };
        let error = evaluator.run(&plan(&set, &[condition]), Provenance::default(), |_, _| ()).expect_err("refused");
        assert!(error.to_string().contains(option), "{error}");
    }
}
