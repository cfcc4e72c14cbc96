//! The loop on a trainee that needs no model: two parts, each drawn towards a target of its own.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};
use t2l_core::Parameters;
use t2l_train::{Ended, Event, Outcome, Part, StepSeed, Stop, TrainConfig, TrainError, Trainee, Trainer, run};

struct Toy {
    parts: Vec<(String, Parameters)>,
    /// Steps seen, which is all the position there is.
    seen: u64,
    /// Part 1 has no rows in every third step, and its validation numbers rise from here on.
    worse_after: u64,
    loss_at: fn(u64) -> f64,
}

impl Toy {
    fn new() -> Self {
        let part = |name: &str, start: f32| {
            let mut parameters = Parameters::default();
            parameters.insert("w", Tensor::<1>::from_data([start, -start, 0.5], &Device::flex()));
            (name.to_owned(), parameters)
        };
        Self { parts: vec![part("one", 1.0), part("two", 3.0)], seen: 0, worse_after: u64::MAX, loss_at: |_| 1.0 }
    }

    fn values(&self, part: usize) -> Vec<f32> {
        self.parts[part].1.get::<1>("w").to_data().iter().collect()
    }
}

impl Trainee for Toy {
    fn parts(&self) -> Vec<Part<'_>> {
        self.parts.iter().map(|(name, parameters)| Part { name, parameters }).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameters> {
        self.parts.iter_mut().map(|(_, p)| p).collect()
    }

    fn device(&self) -> Device {
        Device::flex()
    }

    fn position(&self) -> Value {
        json!(self.seen)
    }

    fn restore(&mut self, position: &Value) -> Result<(), String> {
        self.seen = position.as_u64().ok_or("not a position")?;
        Ok(())
    }

    fn step(&mut self, seed: StepSeed, active: &[bool]) -> Result<Outcome, TrainError> {
        let step = self.seen;
        self.seen += 1;
        let gradients = self.parts.iter().enumerate().map(|(i, (_, p))| {
            let resting = i == 1 && step % 3 == 2;
            // Hundreds of times apart, so that a common norm would clip one by the other.
            let scale = [0.1, 100.0][i] + step as f64;
            (active[i] && !resting).then(|| vec![p.get::<1>("w") * scale])
        });
        Ok(Outcome {
            loss: (self.loss_at)(seed.step),
            numbers: vec![("half", 0.5)],
            tokens: 7,
            examples: "toys".into(),
            gradients: gradients.collect(),
        })
    }

    fn validate(&mut self, active: &[bool]) -> Result<BTreeMap<String, f64>, TrainError> {
        let fall = 1.0 / (1 + self.seen) as f64;
        let rising = if self.seen > self.worse_after { self.seen as f64 } else { fall };
        let numbers = [("one/nll".to_owned(), fall), ("two/nll".to_owned(), rising)];
        Ok(numbers.into_iter().zip(active).filter(|(_, active)| **active).map(|(n, _)| n).collect())
    }

    fn judged_by(&self, part: usize) -> Vec<String> {
        vec![format!("{}/nll", self.parts[part].0)]
    }

    fn export(&self, part: usize, folder: &Path, recipe: Value) -> Result<(), TrainError> {
        std::fs::create_dir_all(folder).expect("a folder");
        let text = json!({ "values": self.values(part), "step": recipe["step"] }).to_string();
        std::fs::write(folder.join("part.json"), text).expect("written");
        Ok(())
    }
}

fn config(steps: u64) -> TrainConfig {
    let mut config = TrainConfig::defaults(Trainer::Lora);
    config.run.steps = steps;
    config.run.checkpoint_every = 4;
    config.run.validate_every = 3;
    config.optimizer.learning_rate = 0.05;
    config
}

fn quietly(toy: &mut Toy, config: &TrainConfig, folder: &Path, stop: &Stop) -> Result<Ended, TrainError> {
    run(toy, config, folder, stop, &mut |_| {})
}

fn exported(folder: &Path, name: &str) -> Value {
    t2l_testing::json(&folder.join(name).join("part.json"))
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let (whole, parts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let config = config(10);
    assert_eq!(quietly(&mut Toy::new(), &config, whole.path(), &Stop::new()).expect("runs"), Ended::Complete);
    let ended = quietly(&mut Toy::new(), &config, parts.path(), &Stop::new().at_step(5)).expect("runs");
    assert_eq!(ended, Ended::Stopped { step: 5 });
    // Lines after the last checkpoint, as a killed process leaves them, are dropped.
    let metrics = parts.path().join("metrics.jsonl");
    let mut text = std::fs::read_to_string(&metrics).expect("metrics");
    text.push_str("{\"step\":6,\"torn");
    std::fs::write(&metrics, text).expect("written");
    let mut starts = vec![];
    run(&mut Toy::new(), &config, parts.path(), &Stop::new(), &mut |event| {
        if let Event::Start { step, .. } = event {
            starts.push(step);
        }
    })
    .expect("runs");
    assert_eq!(starts, [5]);
    for file in ["state.safetensors", "metrics.jsonl", "last/one/part.json", "best/two/part.json"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(file)).expect(file);
        assert_eq!(read(&whole), read(&parts), "{file}");
    }
}

/// Each part fares as if the other were not there: clipped by its own norm, with moments that rest when it rests.
#[test]
fn parts_do_not_touch_each_other() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let config = config(7);
    let mut both = Toy::new();
    quietly(&mut both, &config, folders[0].path(), &Stop::new()).expect("runs");
    for (part, folder) in folders[1..].iter().enumerate() {
        // Alone: the other part never gets a gradient, because it is far from active.
        let mut alone = Alone(Toy::new(), part);
        run(&mut alone, &config, folder.path(), &Stop::new(), &mut |_| {}).expect("runs");
        assert_eq!(alone.0.values(part), both.values(part));
        assert_eq!(alone.0.values(1 - part), Toy::new().values(1 - part), "a part without rows stays as it is");
    }
}

/// A toy of which only one part ever has rows.
struct Alone(Toy, usize);

impl Trainee for Alone {
    fn parts(&self) -> Vec<Part<'_>> {
        self.0.parts()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameters> {
        self.0.parameters_mut()
    }

    fn device(&self) -> Device {
        self.0.device()
    }

    fn position(&self) -> Value {
        self.0.position()
    }

    fn restore(&mut self, position: &Value) -> Result<(), String> {
        self.0.restore(position)
    }

    fn step(&mut self, seed: StepSeed, active: &[bool]) -> Result<Outcome, TrainError> {
        let mut outcome = self.0.step(seed, active)?;
        outcome.gradients[1 - self.1] = None;
        Ok(outcome)
    }

    fn validate(&mut self, active: &[bool]) -> Result<BTreeMap<String, f64>, TrainError> {
        self.0.validate(active)
    }

    fn judged_by(&self, part: usize) -> Vec<String> {
        self.0.judged_by(part)
    }

    fn export(&self, part: usize, folder: &Path, recipe: Value) -> Result<(), TrainError> {
        self.0.export(part, folder, recipe)
    }
}

#[test]
fn a_part_without_patience_left_keeps_its_best_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(30);
    config.lora.patience = 2;
    let mut toy = Toy { worse_after: 6, ..Toy::new() };
    assert_eq!(quietly(&mut toy, &config, folder.path(), &Stop::new()).expect("runs"), Ended::Complete);
    assert_eq!(exported(folder.path(), "best/two")["step"], 6);
    assert_eq!(exported(folder.path(), "best/one")["step"], 30);
    // Validated at 9 and 12 without a new best; from then on its values rest.
    let mut until_then = Toy { worse_after: 6, ..Toy::new() };
    let other = tempfile::tempdir().expect("a folder");
    quietly(&mut until_then, &config, other.path(), &Stop::new().at_step(12)).expect("runs");
    assert_eq!(until_then.values(1), toy.values(1));
    assert_ne!(until_then.values(0), toy.values(0));
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut toy = Toy { loss_at: |step| if step == 6 { f64::NAN } else { 1.0 }, ..Toy::new() };
    let error = quietly(&mut toy, &config(10), folder.path(), &Stop::new()).expect_err("ends");
    assert_eq!(error.to_string(), "step 6: loss is NaN; examples: toys");
    assert_eq!(exported(folder.path(), "last/one")["step"], 4);
}

#[test]
fn a_state_of_another_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    quietly(&mut Toy::new(), &config(10), folder.path(), &Stop::new().at_step(2)).expect("runs");
    let refused = |toy: &mut Toy, config: &TrainConfig| {
        quietly(toy, config, folder.path(), &Stop::new()).expect_err("refused").to_string()
    };
    assert!(refused(&mut Toy::new(), &config(11)).contains("another configuration"));
    let mut fewer = Toy::new();
    fewer.parts.pop();
    assert!(refused(&mut fewer, &config(10)).contains("has 2 parts, the run has 1"));
    let mut renamed = Toy::new();
    renamed.parts[1].0 = "three".into();
    assert!(refused(&mut renamed, &config(10)).contains("has no tensor p.three/w"));
    // Counts that no run comes to.
    let path = folder.path().join("state.safetensors");
    let mut bytes = std::fs::read(&path).expect("state");
    for count in ["steps", "waited"] {
        let (key, mut lying) = (format!(r#"\"{count}\":"#), bytes.clone());
        let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).expect("it is there") + key.len();
        lying[at] = b'9';
        std::fs::write(&path, lying).expect("written");
        let error = refused(&mut Toy::new(), &config(10));
        assert!(error.contains("state.safetensors: a part counts more steps"), "{count}: {error}");
    }
    // One byte of a tensor changed.
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&path, bytes).expect("written");
    assert!(refused(&mut Toy::new(), &config(10)).contains("damaged"));
}

#[test]
fn a_folder_with_files_of_ones_own_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mine = folder.path().join("config.toml");
    std::fs::write(&mine, "[run]\nsteps = 10 # mine\n").expect("written");
    std::fs::write(folder.path().join("metrics.jsonl"), "mine").expect("written");
    let error = quietly(&mut Toy::new(), &config(10), folder.path(), &Stop::new()).expect_err("refused").to_string();
    assert!(error.contains("holds config.toml") && error.contains(&*folder.path().to_string_lossy()), "{error}");
    assert_eq!(std::fs::read_to_string(&mine).expect("still there"), "[run]\nsteps = 10 # mine\n");
    assert_eq!(std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("still there"), "mine");
    assert!(!folder.path().join("lock").exists());
}

/// Killed before its first checkpoint, a run has left no state; the same command begins again.
#[test]
fn a_run_without_a_checkpoint_begins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    quietly(&mut Toy::new(), &config(10), folder.path(), &Stop::new().at_step(3)).expect("runs");
    std::fs::remove_file(folder.path().join("state.safetensors")).expect("removed");
    let ended = quietly(&mut Toy::new(), &config(10), folder.path(), &Stop::new()).expect("runs");
    assert_eq!(ended, Ended::Complete);
}

#[test]
fn a_misspelt_selection_is_refused_with_the_names_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(10);
    config.run.select = Some("one/nil".into());
    let error = quietly(&mut Toy::new(), &config, folder.path(), &Stop::new()).expect_err("refused").to_string();
    assert!(error.contains("\"one/nil\"") && error.ends_with("one/nll, two/nll"), "{error}");
}

/// What `[lora]` says of patience is not for a hypernetwork, whose own stands in `[run]`.
#[test]
fn a_hypernetworks_run_has_its_own_patience() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = TrainConfig { trainer: Trainer::Sft, ..config(30) };
    config.lora.patience = 2;
    let mut toy = Toy { worse_after: 6, ..Toy::new() };
    quietly(&mut toy, &config, folder.path(), &Stop::new()).expect("runs");
    let mut until_then = Toy { worse_after: 6, ..Toy::new() };
    let other = tempfile::tempdir().expect("a folder");
    quietly(&mut until_then, &config, other.path(), &Stop::new().at_step(12)).expect("runs");
    assert_ne!(until_then.values(1), toy.values(1));

    // The best of part two is that of step 6; two validations later its training is over.
    config.run.patience = 2;
    let (third, mut patient) = (tempfile::tempdir().expect("a folder"), Toy { worse_after: 6, ..Toy::new() });
    quietly(&mut patient, &config, third.path(), &Stop::new()).expect("runs");
    assert_eq!(until_then.values(1), patient.values(1));
    assert_eq!(exported(third.path(), "best/two")["step"], 6);
}

/// The gradient of a step is the mean over its batches.
#[test]
fn batches_of_a_step_are_averaged() {
    let first_line = |accumulation| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(1);
        config.run.validate_every = 0;
        config.sampling.accumulation = accumulation;
        quietly(&mut Toy::new(), &config, folder.path(), &Stop::new()).expect("runs");
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
        serde_json::from_str::<Value>(text.lines().next().expect("a line")).expect("JSON")
    };
    let (one, two) = (first_line(1), first_line(2));
    // Batch i has gradient (0.1 + i)·w in part one and (100 + i)·w in part two.
    let norm = |start: f64| (2.0 * start * start + 0.25).sqrt();
    let expected = |batch: f64| (norm(1.0) * (0.1 + batch) + norm(3.0) * (100.0 + batch)) / 2.0;
    let close = |line: &Value, batch: f64| (line["grad_norm"].as_f64().expect("a norm") / expected(batch) - 1.0).abs();
    assert!(close(&one, 0.0) < 1e-5 && close(&two, 0.5) < 1e-5, "{one} {two}");
    assert_eq!((&one["tokens"], &two["tokens"]), (&json!(7), &json!(14)));
}
