//! The whole runner on a small random model: every number is worked out a second time, one example and one forward
//! pass at a time, without cache, batch or padding.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use t2l_backbone::chat::ChatTemplate;
use t2l_backbone::decoder::DecoderConfig;
use t2l_backbone::tokenizer::ModelTokenizer;
use t2l_backbone::{Backbone, Decoder, Sampling};
use t2l_core::{
    AdapterBatch, AdapterGenerator, AdapterLayout, EncodeError, EncodedTexts, GenerateError, LoraFactors, LoraScaling,
    ModuleFactors, TextEncoder, device,
};
use t2l_data::{Example, Part, PromptMode, PromptRenderer, Task, TaskSet, example_turn, user_turn};
use t2l_eval::{
    Baselines, Condition, EvalError, EvalPlan, EvalReport, Evaluator, Group, Provenance, Scoring, exact_match,
    numeric_match,
};

const WIDTH: usize = 4;
const RANK: usize = 2;

/// Texts by the bytes they are made of.
pub struct ByteEncoder;

impl TextEncoder for ByteEncoder {
    fn id(&self) -> &str {
        "bytes"
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        if let Some(index) = texts.iter().position(|t| t.contains("unspeakable")) {
            return Err(EncodeError::Tokenize { index, reason: "no".into() });
        }
        let mut values = vec![0.0f32; texts.len() * WIDTH];
        for (row, text) in texts.iter().enumerate() {
            for (i, byte) in text.bytes().enumerate() {
                values[row * WIDTH + (i + usize::from(byte)) % WIDTH] += f32::from(byte) / 4000.0;
            }
        }
        let data = TensorData::new(values, [texts.len(), WIDTH]);
        let device = device::parse("cpu").expect("a device");
        Ok(EncodedTexts { embeddings: Tensor::from_data(data, &device), truncated: vec![false; texts.len()] })
    }
}

/// Factors that are waves of the embedding, `strength` high.
pub struct Waves {
    layout: AdapterLayout,
    strength: f32,
}

impl AdapterGenerator for Waves {
    fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    fn generate(&self, task_embeddings: Tensor<2>) -> Result<LoraFactors, GenerateError> {
        let device = task_embeddings.device();
        let [tasks, width] = task_embeddings.dims();
        let embeddings: Vec<f32> = task_embeddings.to_data().iter().collect();
        let wave = |phase: f32, shape: [usize; 4]| -> Tensor<4> {
            let per_task = shape[1..].iter().product::<usize>();
            let value = |task: usize, i: usize| {
                let row = &embeddings[task * width..(task + 1) * width];
                self.strength * (phase + i as f32 * (1.0 + row[i % width])).sin()
            };
            let values: Vec<f32> =
                (0..tasks).flat_map(|t| (0..per_task).map(move |i| (t, i))).map(|(t, i)| value(t, i)).collect();
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        let modules = self.layout.modules.iter().map(|m| ModuleFactors {
            name: m.name.clone(),
            a: wave(0.3, [tasks, self.layout.layers, RANK, m.in_features]),
            b: wave(1.1, [tasks, self.layout.layers, m.out_features, RANK]),
        });
        let scaling = LoraScaling { alpha: 4.0, rank: RANK, use_rslora: false };
        Ok(LoraFactors { scaling, modules: modules.collect() })
    }
}

pub fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub fn backbone() -> Backbone {
    backbone_with(serde_json::json!({}))
}

/// The same with further keys in its configuration.
fn backbone_with(further: serde_json::Value) -> Backbone {
    let folder = repository("fixtures/tiny-tokenizer");
    let tokenizer = ModelTokenizer::from_tokenizer_json(folder.join("tokenizer.json")).expect("tokenizer");
    let mut config = serde_json::json!({
        "model_type": "llama", "vocab_size": tokenizer.vocabulary(), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    for (key, value) in further.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let file = tempfile::Builder::new().suffix(".json").tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    std::fs::write(file.path(), config.to_string()).expect("written");
    let config = DecoderConfig::from_json(file.path()).expect("a configuration");
    let device = device::parse("cpu").expect("a device");
    Backbone {
        decoder: Decoder::random(config, 7, &device).expect("a decoder"),
        tokenizer,
        chat: ChatTemplate::from_folder(&folder).expect("template"),
        id: "tiny".into(),
    }
}

pub fn waves(backbone: &Backbone, strength: f32) -> Waves {
    Waves { layout: backbone.decoder.layout("tiny/base", &["q_proj", "v_proj"]).expect("a layout"), strength }
}

/// The slow way: one example, one pass.
pub struct Slow<'a> {
    pub backbone: &'a Backbone,
    pub generator: &'a Waves,
}

impl Slow<'_> {
    fn adapter(&self, text: Option<&str>) -> AdapterBatch {
        text.map_or(AdapterBatch::none(1), |text| {
            let embedding = ByteEncoder.encode(&[text]).expect("encodes").embeddings;
            AdapterBatch::from_factors(&self.generator.generate(embedding).expect("generates"))
        })
    }

    /// Losses of the answer's tokens after the prompt.
    fn losses(&self, prompt: &[u32], answer: &[u32], text: Option<&str>) -> Vec<f64> {
        self.losses_under(prompt, answer, &self.adapter(text))
    }

    pub fn losses_under(&self, prompt: &[u32], answer: &[u32], adapter: &AdapterBatch) -> Vec<f64> {
        let decoder = &self.backbone.decoder;
        let device = decoder.device();
        let ids: Vec<i32> = prompt.iter().chain(answer).map(|&id| id as i32).collect();
        let tokens = ids.len();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [1, tokens]), &device);
        let hidden = decoder.hidden(decoder.embed(ids), &[0], None, adapter).expect("runs");
        let hidden: Tensor<2> = hidden.narrow(1, prompt.len() - 1, answer.len()).squeeze_dim(0);
        let labels: Vec<i32> = answer.iter().map(|&id| id as i32).collect();
        let labels: Tensor<1, Int> = Tensor::from_data(TensorData::new(labels, [answer.len()]), &device);
        decoder.label_nll(hidden, labels, 0.0).to_data().iter::<f64>().collect()
    }

    fn answer(&self, prompt: &[u32], limit: usize, text: Option<&str>) -> String {
        let options = self.backbone.until_end_of_turn(vec![limit], Sampling::GREEDY);
        let prompts = [prompt.to_vec()];
        let found = self.backbone.decoder.generate(&prompts, &self.adapter(text), &options, |_, _| ()).expect("runs");
        self.backbone.text(&found[0]).expect("decodes")
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Every metric of a task under one condition, worked out the slow way.
fn expected(
    slow: &Slow<'_>,
    task: &Task,
    examples: &[Example],
    prompts: &[Vec<u32>],
    text: Option<&str>,
) -> BTreeMap<&'static str, f64> {
    let renderer = PromptRenderer::new(&slow.backbone.tokenizer, &slow.backbone.chat).expect("renders");
    let mut found: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (example, prompt) in examples.iter().zip(prompts) {
        let answer = renderer.response(&example.target).expect("renders");
        found.entry("nll").or_default().push(mean(&slow.losses(prompt, &answer, text)));
        let mut push = |metric, right: bool| found.entry(metric).or_default().push(f64::from(u8::from(right)));
        if example.choices.is_empty() {
            let generated = slow.answer(prompt, 2 * (answer.len() - 1) + 8, text);
            match task.name.as_str() {
                "double_number" => push("numeric", numeric_match(&generated, &example.targets)),
                _ => push("exact_match", exact_match(&generated, &example.targets, false)),
            }
            continue;
        }
        let sums: Vec<f64> = example
            .choices
            .iter()
            .map(|option| {
                let tokens = renderer.response(option).expect("renders");
                -slow.losses(prompt, &tokens, text)[..tokens.len() - 1].iter().sum::<f64>()
            })
            .collect();
        let normed: Vec<f64> = sums.iter().zip(&example.choices).map(|(s, c)| s / c.chars().count() as f64).collect();
        let wins = |values: &[f64]| {
            let right = values[example.answer.expect("a choice")];
            values.iter().all(|v| *v <= right)
        };
        push("acc", wins(&sums));
        push("acc_norm", wins(&normed));
    }
    found.into_iter().map(|(metric, values)| (metric, mean(&values))).collect()
}

pub fn plan(set: &TaskSet, conditions: &[Condition]) -> EvalPlan<'static> {
    let set: &'static TaskSet = Box::leak(Box::new(set.clone()));
    let tasks: Vec<&Task> = set.tasks.iter().collect();
    EvalPlan {
        groups: vec![
            Group { name: "tasks".into(), tasks: tasks.clone(), pool: tasks.clone(), part: Part::All },
            Group { name: "benchmarks".into(), tasks: set.benchmarks.iter().collect(), pool: tasks, part: Part::Dev },
        ],
        modes: vec![(PromptMode::Input, conditions.to_vec()), (PromptMode::Definition, conditions.to_vec())],
        limit: None,
        seed: 11,
        max_tokens: 300,
        scoring: Scoring::Metrics,
    }
}

fn run(backbone: &Backbone, generator: &Waves, set: &TaskSet, plan: &EvalPlan<'_>) -> Result<EvalReport, EvalError> {
    let evaluator = Evaluator { backbone, encoder: &ByteEncoder, generator, set, baselines: Baselines::default() };
    let from = Provenance {
        checkpoint: "waves".into(),
        checkpoint_sha256: "0123456789abcdef".into(),
        command: "t2l eval --data tiny".into(),
    };
    evaluator.run(plan, from, |done, of| assert!(done <= of))
}

const ALL: [Condition; 6] =
    [Condition::Base, Condition::Prompted, Condition::Own, Condition::OwnTrain, Condition::Other, Condition::Random];

#[test]
fn every_number_agrees_with_one_pass_per_example() {
    agrees_with_one_pass_per_example(&backbone());
}

/// LongRoPE turns a row by other frequencies once it is longer than the original context; dynamic scaling by others at
/// every length beyond. Many prompts here are shorter than 64 tokens and many longer, some with only one of their answers.
#[test]
fn so_it_does_where_rotation_depends_on_length() {
    let longrope = serde_json::json!({
        "original_max_position_embeddings": 64,
        "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 4.0, 9.0]},
    });
    agrees_with_one_pass_per_example(&backbone_with(longrope));
    let dynamic = serde_json::json!({
        "max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 8.0},
    });
    agrees_with_one_pass_per_example(&backbone_with(dynamic));
}

fn agrees_with_one_pass_per_example(backbone: &Backbone) {
    let generator = waves(backbone, 0.3);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let report = run(backbone, &generator, &set, &plan(&set, &ALL)).expect("runs");
    let slow = Slow { backbone, generator: &generator };
    let renderer = PromptRenderer::new(&backbone.tokenizer, &backbone.chat).expect("renders");
    let (mut checked, mut moved) = (0, 0.0f64);
    for task in set.tasks.iter().chain(&set.benchmarks) {
        let part = if task.benchmark { Part::Dev } else { Part::All };
        let examples = set.examples(task, part).expect("reads");
        for mode in [PromptMode::Input, PromptMode::Definition] {
            for condition in ALL {
                let rows: Vec<_> = report
                    .rows
                    .iter()
                    .filter(|r| r.task == task.name && r.mode == mode.name() && r.condition == condition.name())
                    .collect();
                // The benchmark has no training description to wear.
                if rows.is_empty() {
                    assert!(condition == Condition::OwnTrain && task.benchmark, "{} {condition:?}", task.name);
                    continue;
                }
                let text = rows[0].description.as_deref();
                let prompts: Vec<Vec<u32>> = examples
                    .iter()
                    .map(|e| {
                        let turn = match condition {
                            Condition::Prompted => {
                                let options = if task.show_options { &e.choices[..] } else { &[] };
                                user_turn(text, &e.input, options)
                            }
                            _ => example_turn(task, e, mode),
                        };
                        renderer.prompt(&turn).expect("renders")
                    })
                    .collect();
                let expected = expected(&slow, task, &examples, &prompts, text.filter(|_| condition.wears_generated()));
                for (metric, value) in &expected {
                    let row =
                        rows.iter().find(|r| r.metric == *metric).unwrap_or_else(|| panic!("{} {metric}", task.name));
                    assert!(
                        (row.value - value).abs() < 2e-4,
                        "{} {mode:?} {condition:?} {metric}: {} instead of {value}",
                        task.name,
                        row.value
                    );
                    assert_eq!(row.n, examples.len());
                    assert!(row.ci95[0] <= row.value + 1e-9 && row.value <= row.ci95[1] + 1e-9);
                    checked += 1;
                }
                assert!(rows.iter().any(|r| r.metric == "token_acc" && (0.0..=1.0).contains(&r.value)));
                assert_eq!(rows.len(), expected.len() + 1, "no metric but those and token_acc");
                let base = report.rows.iter().find(|r| {
                    r.task == task.name && r.mode == mode.name() && r.condition == "base" && r.metric == "nll"
                });
                moved = moved.max((base.expect("base").value - expected["nll"]).abs());
            }
        }
    }
    println!("{checked} numbers, adapters move nll by up to {moved:.3}");
    assert!(checked > 100 && moved > 0.1, "adapters do something");
}

/// A generator whose adapters are zero: every condition but the prompted one is the base model, exactly.
#[test]
fn adapters_of_zeros_change_nothing() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.0);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let report = run(&backbone, &generator, &set, &plan(&set, &ALL)).expect("runs");
    let differences: Vec<_> = report.paired.iter().filter(|p| p.b != "prompted").collect();
    assert!(differences.len() > 20);
    for p in differences {
        assert!(
            p.difference.abs() < 1e-5 && p.ci95[0].abs() < 1e-5,
            "{} − {} {}: {}",
            p.a,
            p.b,
            p.metric,
            p.difference
        );
    }
    assert!(report.paired.iter().any(|p| p.b == "prompted" && p.metric == "nll" && p.difference.abs() > 1e-3));
}

#[test]
fn likelihoods_alone_are_those_of_a_whole_evaluation() {
    let backbone = backbone();
    let generator = waves(&backbone, 1.0);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let mut plan = plan(&set, &[Condition::Base, Condition::Own]);
    // Short enough that the longest option decides how much of the prompt is read.
    plan.max_tokens = 40;
    let whole = run(&backbone, &generator, &set, &plan).expect("runs");
    plan.scoring = Scoring::Nll;
    let alone = run(&backbone, &generator, &set, &plan).expect("runs");
    let likelihoods = |report: &EvalReport| {
        let rows = report.rows.iter().filter(|r| ["nll", "token_acc"].contains(&r.metric.as_str()));
        rows.map(|r| ((r.task.clone(), r.mode.clone(), r.condition.clone(), r.metric.clone()), r.value))
            .collect::<Vec<_>>()
    };
    let (expected, found) = (likelihoods(&whole), likelihoods(&alone));
    assert_eq!(found.len(), alone.rows.len(), "nothing else is scored");
    assert_eq!(found.len(), expected.len());
    for ((what, a), (same, b)) in expected.iter().zip(&found) {
        assert_eq!(what, same);
        assert!((a - b).abs() < 1e-5, "{what:?}: {a} and {b}");
    }
}

#[test]
fn examples_are_the_same_under_every_condition_and_with_every_limit() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.0);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let mut plan = plan(&set, &[Condition::Base, Condition::Own]);
    plan.limit = Some(3);
    plan.scoring = Scoring::MetricsAndGenerated;
    // A task named twice is scored once, however far apart, and so is a condition.
    for _ in 0..3 {
        let again = plan.groups[0].tasks.clone();
        plan.groups[0].tasks.extend(again);
    }
    plan.modes[0].1.push(Condition::Own);
    let report = run(&backbone, &generator, &set, &plan).expect("runs");
    assert!(report.rows.iter().all(|r| r.n == 3));
    let value = |condition: &str| {
        let of = |r: &&t2l_eval::Row| r.task == "warm_or_cold" && r.mode == "input" && r.condition == condition;
        report.rows.iter().filter(of).map(|r| (r.metric.clone(), r.value)).collect::<Vec<_>>()
    };
    assert_eq!(value("base").len(), value("own").len());
    for ((metric, base), (_, own)) in value("base").iter().zip(value("own")) {
        assert!((base - own).abs() < 1e-5, "{metric}");
    }
    assert!(value("base").iter().any(|(metric, _)| metric == "acc_generated"));
    // Other seeds draw other examples.
    plan.seed = 12;
    let other = run(&backbone, &generator, &set, &plan).expect("runs");
    assert_ne!(
        other.rows.iter().map(|r| r.value).collect::<Vec<_>>(),
        report.rows.iter().map(|r| r.value).collect::<Vec<_>>()
    );
}

#[test]
fn short_limits_cut_prompts_and_answers_but_score_everything() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.3);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    for max_tokens in [0, 1, 5, 9, 17] {
        let plan = EvalPlan { max_tokens, ..plan(&set, &[Condition::Base, Condition::Own]) };
        let report = run(&backbone, &generator, &set, &plan).expect("runs");
        assert!(report.rows.iter().all(|r| r.value.is_finite()), "at most {max_tokens} tokens");
    }
}

#[test]
fn what_cannot_be_scored_is_named() {
    let backbone = backbone();
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let broken = waves(&backbone, f32::NAN);
    let error = run(&backbone, &broken, &set, &plan(&set, &[Condition::Base, Condition::Own])).expect_err("not finite");
    assert!(matches!(&error, EvalError::NotFinite { what, .. } if what.contains("adapter")), "{error}");
    let wide = AdapterLayout { layers: 3, ..waves(&backbone, 0.1).layout };
    let misfit = Waves { layout: wide, strength: 0.1 };
    assert!(run(&backbone, &misfit, &set, &plan(&set, &[Condition::Own])).is_err());
    let mut mute = set.clone();
    mute.tasks[1].descriptions.eval = vec!["unspeakable".into()];
    let error =
        run(&backbone, &waves(&backbone, 0.1), &mute, &plan(&mute, &[Condition::Own])).expect_err("not encoded");
    assert!(error.to_string().contains(&mute.tasks[1].name), "{error}");
    let nothing = EvalPlan { groups: vec![], ..plan(&set, &[Condition::Base]) };
    assert!(matches!(run(&backbone, &broken, &set, &nothing), Err(EvalError::Nothing { .. })));
}

#[test]
fn the_report_has_the_promised_keys_and_its_table_says_where_it_came_from() {
    let backbone = backbone();
    let generator = waves(&backbone, 0.3);
    let set = TaskSet::open(repository("fixtures/tiny-tasks")).expect("opens");
    let report = run(&backbone, &generator, &set, &plan(&set, &[Condition::Base, Condition::Own, Condition::Other]))
        .expect("runs");
    let value = serde_json::to_value(&report).expect("serialises");
    let has =
        |value: &serde_json::Value, keys: &[&str]| keys.iter().for_each(|k| assert!(value.get(k).is_some(), "{k}"));
    has(&value, &["base_model", "checkpoint", "checkpoint_sha256", "seed", "command", "rows", "macro", "paired"]);
    has(&value["rows"][0], &["task", "part", "mode", "condition", "description", "metric", "value", "n", "ci95"]);
    has(&value["macro"][0], &["group", "mode", "condition", "metric", "value", "tasks", "ci95"]);
    has(&value["paired"][0], &["group", "mode", "a", "b", "metric", "difference", "tasks", "ci95"]);
    assert_eq!(value["base_model"], "tiny/base");
    assert_eq!(value["rows"][0]["ci95"].as_array().map(Vec::len), Some(2));
    assert_eq!(serde_json::from_value::<EvalReport>(value).expect("reads back"), report);
    let table = report.markdown();
    for part in [
        "checkpoint waves (SHA-256 0123456789ab…); seed 11",
        "t2l eval --data tiny",
        "### tasks, input mode: 3 tasks, 24 examples",
        "### benchmarks, definition mode: 1 task, 3 examples",
        "| own − other | nll |",
        "| task | n | metric | base | own | other |",
        "| warm_or_cold | 8 | acc_norm |",
        "| double_number | 8 | numeric |",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
}
