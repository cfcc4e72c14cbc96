//! Tasks read, examples rendered, batches made, on the small folder of fixtures and on the real data where it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use t2l_backbone::chat::ChatTemplate;
use t2l_backbone::gguf::GgufFile;
use t2l_backbone::tokenizer::ModelTokenizer;
#[cfg(feature = "flex")]
use t2l_backbone::{Backbone, Decoder, DecoderConfig};
use t2l_data::{
    Corpus, DataError, DeriveConfig, DerivedTask, Example, Part, PromptMode, PromptRenderer, Sampler, SamplerConfig,
    Task, TaskSet, TokenizedExample, TrainBatch, cut, derive, example_turn, write_derived,
};

fn tiny() -> TaskSet {
    TaskSet::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-tasks")).expect("opens")
}

/// SmolLM2's tokenizer and template, where the model is here.
fn smollm2() -> Option<(ModelTokenizer, ChatTemplate)> {
    match t2l_testing::smollm2() {
        Ok(path) => {
            let file = GgufFile::open(&path).expect("opens");
            Some((
                ModelTokenizer::from_gguf(&file).expect("tokenizer"),
                ChatTemplate::from_gguf(&file).expect("template"),
            ))
        }
        Err(skip) => {
            println!("0 cases, 1 skipped: smollm2 ({skip})");
            None
        }
    }
}

/// A tokenizer of bytes and a ChatML template with a default system turn.
fn tiny_model() -> (ModelTokenizer, ChatTemplate) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-tokenizer");
    let tokenizer = ModelTokenizer::from_tokenizer_json(folder.join("tokenizer.json")).expect("tokenizer");
    (tokenizer, ChatTemplate::from_folder(&folder).expect("template"))
}

#[test]
fn parts_of_a_task() {
    let set = tiny();
    let task = set.find("warm_or_cold").expect("is there");
    let count = |part| set.examples(task, part).expect("reads").len();
    assert_eq!((count(Part::Train), count(Part::Valid), count(Part::All)), (6, 2, 8));
    let bench = set.find("tiny_bench").expect("is there");
    assert!(bench.benchmark);
    assert_eq!(set.examples(bench, Part::Dev).expect("reads").len(), 3);
    assert_eq!(set.split("train").expect("split").len(), 2);
    assert!(matches!(set.split("nothing"), Err(DataError::NoSuch { .. })));
}

#[test]
fn turns_in_both_modes() {
    let set = tiny();
    let task = set.find("warm_or_cold").expect("is there");
    let example = &set.examples(task, Part::All).expect("reads")[0];
    assert_eq!(example_turn(task, example, PromptMode::Input), "snow\nOptions:\n- warm\n- cold");
    assert_eq!(
        example_turn(task, example, PromptMode::Definition),
        "Is the thing warm or cold?\n\nsnow\nOptions:\n- warm\n- cold"
    );
    assert_eq!(example.target, "cold");
    // Without an instruction of its own, a task is introduced by its evaluation description.
    let task = set.find("double_number").expect("is there");
    let example = &set.examples(task, Part::All).expect("reads")[0];
    assert_eq!(example_turn(task, example, PromptMode::Definition), "Double the given number.\n\n3");
}

#[test]
fn smollm2_prompts_have_no_system_turn() {
    let Some((tokenizer, chat)) = smollm2() else { return };
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let text = |ids: &[u32]| tokenizer.decode(ids, false).expect("decodes");
    let prompt = renderer.prompt("hot").expect("renders");
    assert_eq!(text(&prompt), "<|im_start|>user\nhot<|im_end|>\n<|im_start|>assistant\n");
    let response = renderer.response("cold").expect("renders");
    assert_eq!(text(&response), "cold<|im_end|>");
}

#[test]
fn broken_folders_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let message = |result: Result<TaskSet, DataError>| result.expect_err("is broken").to_string();
    assert!(message(TaskSet::open(folder.path())).contains("neither tasks.json nor benchmarks.json"));
    write("tasks.json", "{");
    assert!(message(TaskSet::open(folder.path())).contains("tasks.json"));
    let task = |file: &str| format!(r#"{{"tasks":[{{"name":"a","file":"{file}","descriptions":{{"train":["x"]}}}}]}}"#);
    write("tasks.json", &task("../secret.jsonl"));
    assert!(message(TaskSet::open(folder.path())).contains("leaves the folder"));
    write("tasks.json", &task("a.jsonl"));
    let set = TaskSet::open(folder.path()).expect("opens");
    assert!(matches!(set.examples(&set.tasks[0], Part::All), Err(DataError::Io { .. })));
    write("a.jsonl", "{\"input\":\"x\",\"target\":\"y\"}\n{\"input\":\"x\",\"choices\":[\"a\"],\"answer\":5}\n");
    let error = set.examples(&set.tasks[0], Part::All).expect_err("is broken").to_string();
    assert!(error.contains("a.jsonl:2") && error.contains("answer 5 of 1 choices"), "{error}");
}

#[test]
fn test_items_lie_beside_a_dev_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let bench =
        |name: &str, file: &str| format!(r#"{{"name":"{name}","file":"{file}","descriptions":{{"eval":["x"]}}}}"#);
    let list = [bench("a", "x.dev.jsonl.dev.jsonl"), bench("b", "b.jsonl")].join(",");
    write("benchmarks.json", &format!(r#"{{"benchmarks":[{list}]}}"#));
    write("x.dev.jsonl.test.jsonl", "{\"input\":\"x\",\"target\":\"y\"}\n");
    write("b.jsonl", "{\"input\":\"x\",\"target\":\"y\"}\n");
    let set = TaskSet::open(folder.path()).expect("opens");
    assert_eq!(set.examples(&set.benchmarks[0], Part::Test).expect("reads").len(), 1);
    assert_eq!(set.examples(&set.benchmarks[1], Part::Dev).expect("reads").len(), 1);
    // Development items are not passed off as test items.
    let error = set.examples(&set.benchmarks[1], Part::Test).expect_err("no such file").to_string();
    assert!(error.contains("b.jsonl: is not named *.dev.jsonl"), "{error}");
}

#[test]
fn lines_are_checked_and_filled_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("written");
    // The least that a user's folder must say.
    write("tasks.json", br#"{"tasks":[{"name":"a","file":"a.jsonl","descriptions":{"train":["Say it twice."]}}]}"#);
    let set = TaskSet::open(folder.path()).expect("opens");
    let task = &set.tasks[0];
    let read = |text: &[u8]| {
        write("a.jsonl", text);
        set.examples(task, Part::All)
    };
    let lines =
        b"{\"input\":\"x\",\"targets\":[\"y\",\"z\"]}\n\n{\"input\":\"x\",\"target\":\"w\",\"targets\":[\"y\"]}\n";
    let examples = read(lines).expect("reads");
    assert_eq!((examples[0].target.as_str(), examples[0].targets.len()), ("y", 2));
    assert_eq!(examples[1].targets, ["w", "y"]);
    assert_eq!(example_turn(task, &examples[0], PromptMode::Definition), "Say it twice.\n\nx");
    // Examples without a split are for training.
    assert_eq!(set.examples(task, Part::Train).expect("reads").len(), 2);
    assert!(set.examples(task, Part::Valid).expect("reads").is_empty());
    for (text, reason) in [
        (&b"{\"input\":\"x\",\"target\":\"y\"}\n{\"input\":\"\xff\"}\n"[..], "a.jsonl:2: is not UTF-8"),
        (b"{\"input\":\"x\"}", "a.jsonl:1: has neither target nor answer"),
        (b"{\"input\":\"x\",\"target\":\"y\",\"choices\":[\"y\"],\"answer\":1}", "a.jsonl:1: answer 1 of 1 choices"),
        (b"{\"input\":\"x\",\"choices\":[\"y\"],\"answer\":-1}", "a.jsonl:1"),
        (b"[1]", "a.jsonl:1"),
    ] {
        let error = read(text).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn lists_that_lie_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let task = r#"{"name":"a","file":"a.jsonl","descriptions":{"train":["x"]}}"#;
    for (tasks, reason) in [
        (format!("{task},{task}"), "stands twice"),
        (task.replace(r#""x""#, r#""x"," ""#), "empty description"),
        (task.replace(r#""x""#, ""), "no description"),
        (task.replace("a.jsonl", "/etc/hostname"), "leaves the folder"),
    ] {
        write("tasks.json", &format!(r#"{{"tasks":[{tasks}]}}"#));
        let error = TaskSet::open(folder.path()).expect_err(reason).to_string();
        assert!(error.contains("tasks.json") && error.contains(reason), "{error}");
    }
    write("tasks.json", &format!(r#"{{"tasks":[{task}]}}"#));
    let error = TaskSet::open(folder.path()).expect("opens").split("train").expect_err("no lists").to_string();
    assert!(error.contains(r#"has no splits.json, which would hold the list "train""#), "{error}");
    let error = TaskSet::open(folder.path().join("gone")).expect_err("is not there").to_string();
    assert!(error.contains("gone: No such file"), "{error}");
    // A slip does not lose the example.
    write("a.jsonl", "{\"input\":\"x\",\"target\":\"y\"}\n{\"input\":\"x\",\"target\":\"y\",\"split\":\"valdi\"}\n");
    let set = TaskSet::open(folder.path()).expect("opens");
    let error = set.examples(&set.tasks[0], Part::Train).expect_err("is refused").to_string();
    assert!(
        error.contains("a.jsonl:2: unknown variant `valdi`, expected one of `train`, `valid`, `dev`, `test`"),
        "{error}"
    );
    write("splits.json", r#"{"train":["a"],"odd":[3],"gone":["b"],"about":"words"}"#);
    let set = TaskSet::open(folder.path()).expect("opens");
    assert_eq!(set.split("train").expect("is there").len(), 1);
    for (split, reason) in
        [("odd", "holds 3"), ("gone", r#"no task or benchmark "b""#), ("about", r#"no split "about""#)]
    {
        let error = set.split(split).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn families_follow_names_unless_a_task_says_its_own() {
    let family = |name: &str| {
        let record = format!(r#"{{"name":"{name}","file":"x","descriptions":{{"train":["x"]}}}}"#);
        serde_json::from_str::<Task>(&record).expect("a task").family().to_owned()
    };
    for (name, expected) in [
        ("task003_mctaco_question_generation", "mctaco"),
        ("bb_arithmetic_addition", "arithmetic"),
        ("lre_company_hq", "lre"),
        ("taskless_thing", "taskless"),
        ("task5", "task5"),
        ("mathqa", "mathqa"),
        ("bb", "bb"),
    ] {
        assert_eq!(family(name), expected);
    }
    let record = r#"{"name":"lre_a","file":"x","family":"mine","descriptions":{"train":["x"]}}"#;
    assert_eq!(serde_json::from_str::<Task>(record).expect("a task").family(), "mine");
}

#[test]
fn prompts_without_system_turn_and_answers_with_their_end() {
    let (tokenizer, chat) = tiny_model();
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let text = |ids: &[u32]| tokenizer.decode(ids, false).expect("decodes");
    let prompt = renderer.prompt("hot").expect("renders");
    assert_eq!(text(&prompt), "<|im_start|>user\nhot<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(renderer.end_of_turn(), [tokenizer.token_id("<|im_end|>").expect("is there")]);
    assert_eq!(text(&renderer.response("cold").expect("renders")), "cold<|im_end|>");
    // Templates that write nothing after an answer end it with the end of sequence; others may write words.
    let with = |source: &str| ChatTemplate::new(source.to_owned(), None, None).expect("parses");
    let plain = with("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    let renderer = PromptRenderer::new(&tokenizer, &plain).expect("renders");
    assert_eq!(renderer.end_of_turn(), [tokenizer.eos().expect("is there")]);
    let worded = with("{% for m in messages %}[{{ m.role }}] {{ m.content }} [end]\n{% endfor %}");
    let renderer = PromptRenderer::new(&tokenizer, &worded).expect("renders");
    assert_eq!(text(renderer.end_of_turn()), " [end]");
    // An answer may be introduced by more than the generation prompt, as reasoning models do.
    let thinking = with(
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}\
         <|im_end|>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    );
    let renderer = PromptRenderer::new(&tokenizer, &thinking).expect("renders");
    assert_eq!(text(renderer.end_of_turn()), "<|im_end|>");
    let silent = with("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
    assert!(PromptRenderer::new(&tokenizer, &silent).is_err());
}

/// What a template writes after an answer is of the model's vocabulary too.
#[cfg(feature = "flex")]
#[test]
fn ends_of_turns_that_the_model_has_not_are_refused() {
    let (tokenizer, _) = tiny_model();
    let source = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}old{% endif %}{% endfor %}";
    let chat = ChatTemplate::new(source.to_owned(), None, None).expect("parses");
    let config = |vocab_size| DecoderConfig {
        vocab_size,
        hidden_size: 8,
        intermediate_size: 16,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        rotary_dim: 4,
        ..DecoderConfig::smollm2_135m()
    };
    let device = t2l_core::device::parse("cpu").expect("a device");
    let of = |vocab_size| Backbone {
        decoder: Decoder::random(config(vocab_size), 1, &device).expect("made"),
        tokenizer: tokenizer.clone(),
        chat: chat.clone(),
        id: "tiny".into(),
    };
    let (whole, short) = (of(265), of(264));
    assert_eq!(PromptRenderer::of(&whole).expect("renders").end_of_turn(), [264]);
    let error = PromptRenderer::of(&short).expect_err("refused").to_string();
    assert!(error.contains("token 264 is outside the model's vocabulary of 264"), "{error}");
}

#[test]
fn only_tasks_can_be_trained_on() {
    let (tokenizer, chat) = tiny_model();
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let set = tiny();
    let bench = set.find("tiny_bench").expect("is there");
    assert!(matches!(Corpus::build(&set, &[bench], &renderer, 64), Err(DataError::Benchmark { .. })));
    assert!(matches!(Corpus::build(&set, &[], &renderer, 64), Err(DataError::Format { .. })));
}

/// On the small tasks: every epoch visits each task once, the rest is dropped, modes and descriptions are all drawn.
#[test]
fn sampler_visits_every_task_once_an_epoch() {
    let (tokenizer, chat) = tiny_model();
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let set = tiny();
    let corpus = Corpus::build(&set, &set.tasks.iter().collect::<Vec<_>>(), &renderer, 200).expect("builds");
    assert_eq!(corpus.tasks(), 3);
    for (tasks_per_step, bucket_window) in [(1, 1), (1, 8), (2, 1), (2, 4), (3, 2), (9, 2)] {
        let config =
            SamplerConfig { tasks_per_step, points_per_task: 2, input_share: 0.5, bucket_window, extra_share: 0.0 };
        let mut sampler = Sampler::new(config.clone(), 5);
        let per_step = tasks_per_step.min(3);
        let mut drawn = Vec::new();
        for epoch in 0..20 {
            let mut seen = BTreeSet::new();
            for _ in 0..3 / per_step {
                let saved = sampler.state();
                let draws = sampler.next_batch(&corpus);
                let mut other = Sampler::new(config.clone(), 6);
                other.restore(&saved, &corpus).expect("restores");
                assert_eq!(other.next_batch(&corpus), draws, "goes on as if it had never stopped");
                assert_eq!(draws.len(), 2 * per_step);
                for pair in draws.chunks(2) {
                    assert_eq!(pair[0].task, pair[1].task);
                    assert!(seen.insert(pair[0].task), "epoch {epoch}: a task twice");
                }
                drawn.extend(draws);
            }
        }
        assert!([PromptMode::Input, PromptMode::Definition].iter().all(|m| drawn.iter().any(|d| d.mode == *m)));
        assert!((0..2).all(|i| drawn.iter().any(|d| d.description == i)));
    }
    let mut sampler = Sampler::new(
        SamplerConfig { tasks_per_step: 1, points_per_task: 1, input_share: 1.0, bucket_window: 1, extra_share: 0.0 },
        1,
    );
    assert!(sampler.restore(&serde_json::json!({"rng": 1}), &corpus).is_err());
    // A batch of no row, and one of more rows than any has.
    let draw = serde_json::json!({"task": 0, "example": 0, "description": 0, "mode": "input"});
    for (rows, restored) in [(0, false), (1, true), (2, false)] {
        let mut state = sampler.state();
        state["ready"] = serde_json::json!([vec![draw.clone(); rows]]);
        assert_eq!(sampler.restore(&state, &corpus).is_ok(), restored, "{rows} rows");
    }
}

/// On the real tasks: an epoch visits every task once, batches hold distinct tasks, and padding stays small.
#[test]
fn sampler_on_the_real_tasks() {
    let (Some(data), Some((tokenizer, chat))) = (t2l_testing::data(), smollm2()) else { return };
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let set = TaskSet::open(data).expect("opens");
    let tasks = set.split("train").expect("split");
    let corpus = Corpus::build(&set, &tasks, &renderer, 128).expect("builds");
    let config =
        SamplerConfig { tasks_per_step: 8, points_per_task: 1, input_share: 0.5, bucket_window: 8, extra_share: 0.0 };
    let mut sampler = Sampler::new(config.clone(), 3);
    let (mut real, mut padded) = (0, 0);
    for step in 0..80 {
        if step == 37 {
            // Going on from a saved state gives the same batches.
            let mut other = Sampler::new(config.clone(), 99);
            other.restore(&sampler.state(), &corpus).expect("restores");
            assert_eq!(other.clone().next_batch(&corpus), sampler.clone().next_batch(&corpus));
        }
        let draws = sampler.next_batch(&corpus);
        let distinct: BTreeSet<usize> = draws.iter().map(|d| d.task).collect();
        assert_eq!(distinct.len(), 8, "step {step}");
        let rows: Vec<&TokenizedExample> = draws.iter().map(|d| corpus.example(d)).collect();
        let batch = TrainBatch::new(&rows, 8, 0);
        real += batch.tokens;
        padded += batch.rows * batch.width;
        assert!(rows.iter().all(|r| r.prompt.len() + r.response.len() <= 128 && !r.response.is_empty()));
    }
    let share = 1.0 - real as f64 / padded as f64;
    println!("padding {:.1} % of the tokens", 100.0 * share);
    assert!(share < 0.15, "padding is {share}");
}

#[test]
fn files_and_lines_without_end_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let endless = |name: &str| {
        let file = std::fs::File::create(folder.path().join(name)).expect("a file");
        file.set_len(1 << 33).expect("a sparse file");
    };
    let tasks = r#"{"tasks": [{"name": "a", "file": "a.jsonl", "descriptions": {"train": ["Do."]}}]}"#;
    std::fs::write(folder.path().join("tasks.json"), tasks).expect("written");
    let set = TaskSet::open(folder.path()).expect("opens");
    endless("a.jsonl");
    let error = set.examples(&set.tasks[0], Part::All).expect_err("is too long").to_string();
    assert!(error.ends_with("a.jsonl:1: has more than 16777216 bytes, the most that it can have"), "{error}");
    endless("splits.json");
    let error = set.split("train").expect_err("is too long").to_string();
    assert!(error.contains("splits.json: has more than 268435456 bytes"), "{error}");
    endless("tasks.json");
    let error = TaskSet::open(folder.path()).expect_err("is too long").to_string();
    assert!(error.contains("tasks.json: has more than 268435456 bytes"), "{error}");
}

#[test]
fn the_fixture_folder_is_where_it_should_be() {
    let path: PathBuf = tiny().folder().to_owned();
    assert!(path.join("splits.json").exists());
}

proptest! {
    /// The published rule, one token at a time: the longer side loses its first token, ties take from the prompt.
    #[test]
    fn cutting_takes_from_the_longer_side(prompt in 0usize..40, response in 0usize..40, limit in 0usize..60) {
        let (p, r): (Vec<u32>, Vec<u32>) = ((0..prompt as u32).collect(), (100..100 + response as u32).collect());
        let found = cut(p.clone(), r.clone(), limit);
        let (mut p, mut r) = (&p[..], &r[..]);
        while p.len() + r.len() > limit {
            if p.len() >= r.len() { p = &p[1..] } else { r = &r[1..] }
        }
        prop_assert_eq!(found.prompt, p);
        prop_assert_eq!(found.response, r);
    }

    /// Every label is predicted by the position before it, in its own row.
    #[test]
    fn labels_stand_where_they_are_predicted(lengths in prop::collection::vec((0usize..9, 1usize..9), 1..6)) {
        let examples: Vec<TokenizedExample> = lengths
            .iter()
            .map(|&(p, r)| TokenizedExample { prompt: (1..=p as u32).collect(), response: (50..50 + r as u32).collect() })
            .collect();
        let batch = TrainBatch::new(&examples.iter().collect::<Vec<_>>(), 8, 7);
        prop_assert_eq!(batch.width % 8, 0);
        prop_assert_eq!(batch.ids.len(), batch.rows * batch.width);
        for ((&position, &label), &row) in batch.label_positions.iter().zip(&batch.labels).zip(&batch.label_rows) {
            let position = position as usize;
            prop_assert_eq!(position / batch.width, row);
            prop_assert_eq!(batch.ids[position + 1], label);
        }
        let expected: usize = lengths.iter().map(|&(p, r)| if p == 0 { r - 1 } else { r }).sum();
        prop_assert_eq!(batch.labels.len(), expected);
    }
}

/// A folder of tasks with enough inputs to derive others from: made up, two classes and free answers.
fn sources() -> (tempfile::TempDir, TaskSet) {
    let folder = tempfile::tempdir().expect("a folder");
    let tasks = r#"{"tasks": [
        {"name": "colour", "file": "colour.jsonl", "kind": "choice", "metric": "accuracy", "licence": "CC0-1.0",
         "descriptions": {"train": ["Name the colour of the fruit."], "eval": ["Which colour has the fruit?"]}},
        {"name": "plural", "file": "plural.jsonl", "licence": "CC0-1.0",
         "descriptions": {"train": ["Give the plural.", "Write it in the plural."], "eval": ["Say it for many."]}}]}"#;
    std::fs::write(folder.path().join("tasks.json"), tasks).expect("written");
    let (mut colours, mut plurals) = (String::new(), String::new());
    for i in 0..48 {
        let split = if i % 6 == 0 { "valid" } else { "train" };
        let fruit = ["a ripe, sweet cherry", "the banana", "one Lemon in a bowl", "some red pepper"][i % 4];
        let colour = ["red", "yellow"][i % 2];
        let line = serde_json::json!({"input": format!("{fruit} {i}"), "choices": ["red", "yellow"], "answer": i % 2, "split": split});
        colours += &format!("{line}\n");
        let line = serde_json::json!({"input": format!("{colour} thing {i}"), "target": format!("{colour} things {i}"), "split": split});
        plurals += &format!("{line}\n");
    }
    std::fs::write(folder.path().join("colour.jsonl"), colours).expect("written");
    std::fs::write(folder.path().join("plural.jsonl"), plurals).expect("written");
    let set = TaskSet::open(folder.path()).expect("opens");
    (folder, set)
}

#[test]
fn derived_tasks_say_what_they_ask_and_answer_it() {
    let (_folder, set) = sources();
    let tasks: Vec<&Task> = set.tasks.iter().collect();
    let config = DeriveConfig { tasks: 140, examples: 16, seed: 7 };
    let derived = derive(&set, &tasks, config).expect("derives");
    assert!(derived.len() > 100, "{} tasks", derived.len());
    assert_eq!(derived, derive(&set, &tasks, config).expect("derives"), "the same seed gives the same tasks");
    let kinds: BTreeSet<&str> = derived.iter().filter_map(|d| d.task.family.as_deref()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["derived-extract", "derived-format", "derived-judged", "derived-question", "derived-renamed"]
    );
    let inputs = |part| -> BTreeSet<String> {
        tasks.iter().flat_map(|t| set.examples(t, part).expect("reads")).map(|e| e.input).collect()
    };
    let (train, valid) = (inputs(Part::Train), inputs(Part::Valid));
    for DerivedTask { task, examples } in &derived {
        let told: Vec<&String> = task.descriptions.train.iter().chain(&task.descriptions.eval).collect();
        assert!(!task.descriptions.train.is_empty() && !task.descriptions.eval.is_empty(), "{}", task.name);
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{}: said twice", task.name);
        assert!(told.iter().all(|t| !t.contains(['{', '}']) || t.contains("curly")), "{}: {told:?}", task.name);
        // What evaluation is told never stands in a prompt of training.
        assert!(task.descriptions.train.iter().any(|told| told == task.instruction()), "{}", task.name);
        // Which words to answer with stands in every description.
        assert!(told.iter().all(|t| task.labels.iter().all(|label| t.contains(&format!("\"{label}\"")))), "{told:?}");
        let of_part = |part| examples.iter().filter(move |(p, _)| *p == part).map(|(_, e)| e);
        assert!((1..=16).contains(&of_part(Part::Train).count()), "{}", task.name);
        assert!(of_part(Part::Valid).count() <= 2, "{}", task.name);
        // What is held out stays held out.
        let of_source = |e: &Example| e.input.split("\nAnswer: ").next().unwrap_or_default().to_owned();
        assert!(of_part(Part::Train).all(|e| train.contains(&of_source(e))), "{}", task.name);
        assert!(of_part(Part::Valid).all(|e| valid.contains(&of_source(e))), "{}", task.name);
        if !task.labels.is_empty() {
            let answers: BTreeSet<Option<usize>> = of_part(Part::Train).map(|e| e.answer).collect();
            assert_eq!(answers.len(), task.labels.len(), "{}: every label is some answer", task.name);
        }
    }
}

/// What a source is asked to judge, and its classes under other names, against what the descriptions say.
#[test]
fn derived_answers_are_right() {
    let (_folder, set) = sources();
    let tasks: Vec<&Task> = set.tasks.iter().collect();
    let derived = derive(&set, &tasks, DeriveConfig { tasks: 300, examples: 16, seed: 1 }).expect("derives");
    let colour = |input: &str| if input.contains("cherry") || input.contains("Lemon") { "red" } else { "yellow" };
    let right = |source: &str, input: &str, answer: &str| match source {
        "colour" => answer == colour(input),
        _ => answer == input.replace("thing", "things"),
    };
    let mut checked = [0; 2];
    for DerivedTask { task, examples } in &derived {
        let source = task.derived_from.as_deref().expect("a source");
        for (_, e) in examples {
            if task.name.starts_with("judged") {
                let (input, answer) = e.input.split_once("\nAnswer: ").expect("an answer");
                assert_eq!(e.answer == Some(0), right(source, input, answer), "{e:?}");
                checked[0] += 1;
            } else if task.name.starts_with("renamed") {
                let said = |told: &String| {
                    let between = [
                        "\" instead of \"",
                        "\" for \"",
                        "\" where it is \"",
                        "\" (",
                        "\" if it would be \"",
                        "\" in place of \"",
                    ];
                    between.iter().any(|words| told.contains(&format!("\"{}{words}{}", e.target, colour(&e.input))))
                };
                assert!(
                    task.descriptions.train.iter().chain(&task.descriptions.eval).all(said),
                    "{:?} {e:?}",
                    task.descriptions
                );
                checked[1] += 1;
            }
        }
    }
    assert!(checked.iter().all(|n| *n > 500), "{checked:?}");
}

#[test]
fn each_label_has_as_many_examples() {
    let (_folder, set) = sources();
    let tasks: Vec<&Task> = set.tasks.iter().collect();
    for most in [8, 9, 16] {
        let derived = derive(&set, &tasks, DeriveConfig { tasks: 60, examples: most, seed: 3 }).expect("derives");
        assert!(derived.iter().any(|d| !d.task.labels.is_empty()));
        for DerivedTask { task, examples } in &derived {
            let count = |part, label| examples.iter().filter(|(p, e)| *p == part && e.answer == Some(label)).count();
            for part in [Part::Train, Part::Valid] {
                let counts: BTreeSet<usize> = (0..task.labels.len()).map(|label| count(part, label)).collect();
                assert!(counts.len() <= 1, "{}: {counts:?}", task.name);
            }
            assert!(examples.iter().filter(|(p, _)| *p == Part::Train).count() <= most, "{}", task.name);
        }
    }
    for (count, examples) in [(10_000, 10_000), (10, 7)] {
        let error = derive(&set, &tasks, DeriveConfig { tasks: count, examples, seed: 0 }).expect_err("is refused");
        assert!(error.to_string().ends_with("tasks have at least 8, and all together at most 1000000"), "{error}");
    }
}

#[test]
fn derived_tasks_make_a_folder_that_reads_back() {
    let (folder, set) = sources();
    let tasks: Vec<&Task> = set.tasks.iter().collect();
    let derived = derive(&set, &tasks, DeriveConfig { tasks: 21, examples: 8, seed: 0 }).expect("derives");
    let out = folder.path().join("new/derived");
    write_derived(&out, &derived).expect("writes");
    let read = TaskSet::open(&out).expect("opens");
    assert_eq!(read.tasks.len(), derived.len());
    for (task, derived) in read.tasks.iter().zip(&derived) {
        assert_eq!(*task, derived.task);
        let parts = [Part::Train, Part::Valid].map(|part| (part, read.examples(task, part).expect("reads")));
        let back: Vec<(Part, Example)> =
            parts.into_iter().flat_map(|(p, es)| es.into_iter().map(move |e| (p, e))).collect();
        assert_eq!(back, derived.examples, "{}", task.name);
    }
    // What is derived from these is still known to come of the first ones.
    let sources: Vec<&Task> = read.tasks.iter().collect();
    let twice = derive(&read, &sources, DeriveConfig { tasks: 7, examples: 8, seed: 0 }).expect("derives");
    assert!(twice.iter().all(|d| d.task.derived_from.as_deref().is_some_and(|name| set.find(name).is_ok())));
    let again = write_derived(&out, &derived).expect_err("is there").to_string();
    assert!(again.contains("is not empty"), "{again}");
    assert_eq!(std::fs::read_dir(folder.path().join("new")).expect("lists").count(), 1, "nothing half-written stays");
}

#[test]
fn nothing_is_derived_from_benchmarks_or_from_nothing() {
    let set = tiny();
    let bench = set.find("tiny_bench").expect("is there");
    let config = DeriveConfig::default();
    assert!(matches!(derive(&set, &[bench], config), Err(DataError::Benchmark { .. })));
    assert!(matches!(derive(&set, &[], config), Err(DataError::Format { .. })));
}

/// Further tasks come at their share, in epochs of their own; without them the draws are what they were.
#[test]
fn sampler_mixes_extra_tasks_in_at_their_share() {
    let (tokenizer, chat) = tiny_model();
    let renderer = PromptRenderer::new(&tokenizer, &chat).expect("renders");
    let (_folder, set) = sources();
    let build =
        |set: &TaskSet| Corpus::build(set, &set.tasks.iter().collect::<Vec<_>>(), &renderer, 200).expect("builds");
    let plain = build(&tiny());
    let mixed = build(&tiny()).with_extra(build(&set));
    assert_eq!((mixed.tasks(), mixed.extra().len()), (5, 2));
    let config = |extra_share| SamplerConfig {
        tasks_per_step: 2,
        points_per_task: 1,
        input_share: 0.5,
        bucket_window: 2,
        extra_share,
    };
    let mut with = Sampler::new(config(0.25), 3);
    let (mut without, mut alone) = (Sampler::new(config(0.0), 3), Sampler::new(config(0.25), 3));
    let mut counts = [0_usize; 5];
    for _ in 0..1000 {
        let saved = with.state();
        let draws = with.next_batch(&mixed);
        let mut other = Sampler::new(config(0.25), 4);
        other.restore(&saved, &mixed).expect("restores");
        assert_eq!(other.next_batch(&mixed), draws, "goes on as if it had never stopped");
        assert_eq!(draws.len(), 2);
        draws.iter().for_each(|d| counts[d.task] += 1);
        assert_eq!(without.next_batch(&mixed), alone.next_batch(&plain));
    }
    let extra = counts[3] + counts[4];
    assert!((430..570).contains(&extra), "{counts:?}");
    assert!(counts[3].abs_diff(counts[4]) < 60, "{counts:?}");
    while with.state().get("extra").is_none() {
        with.next_batch(&mixed);
    }
    assert!(Sampler::new(config(0.25), 4).restore(&with.state(), &plain).is_err(), "a state of other tasks");
}
