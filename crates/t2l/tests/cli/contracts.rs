//! Machine-readable results: the keys that other programs read.

use super::tiny::program;
use super::{command, json, models_here, t2l, text, tiny_tasks};

#[test]
fn models_list_names_every_model() {
    let output = json(&t2l(&["models", "list", "--json"]));
    let models = output["models"].as_array().expect("models");
    assert!(models.iter().any(|m| m["name"] == "smollm2-135m-instruct"));
    for model in models {
        assert!(model["bytes"].is_u64() && model["licence"].is_string(), "{model}");
        assert!(model["path"].is_string() || model["path"].is_null(), "{model}");
    }
}

#[test]
fn generate_then_inspect() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("adapters");
    let target_text = target.to_str().expect("utf-8");
    let output = json(&t2l(&["generate", "Sort the words.", "Name the capital!", "-o", target_text, "--json"]));
    let adapters = output["adapters"].as_array().expect("adapters");
    assert_eq!(adapters.len(), 2);
    assert!(output["seconds"].is_number());
    for key in ["rank", "layers", "parameters"] {
        assert!(adapters[0][key].is_u64(), "{key}");
    }
    assert!(adapters[0]["alpha"].is_number());
    assert_eq!(adapters[0]["format"], "peft");
    assert_eq!(adapters[0]["path"], target.join("0001-sort-the-words").to_str().expect("utf-8"));
    assert_eq!(adapters[1]["description"], "Name the capital!");

    let inspected = json(&t2l(&["adapter", "inspect", adapters[0]["path"].as_str().expect("path"), "--json"]));
    assert_eq!(inspected["rank"], adapters[0]["rank"]);
    assert_eq!(inspected["base_model"], "HuggingFaceTB/SmolLM2-135M-Instruct");
    let modules = inspected["modules"].as_array().expect("modules");
    assert_eq!(modules.len() as u64, 2 * adapters[0]["layers"].as_u64().expect("layers"));
    for module in modules {
        assert!(module["norm"].as_f64().expect("norm") > 0.0, "{module}");
        for key in ["layer", "in", "out", "rank"] {
            assert!(module[key].is_u64(), "{key}");
        }
    }

    // Again into the same place: refused, then allowed.
    assert_eq!(t2l(&["generate", "Sort the words.", "Name the capital!", "-o", target_text]).status.code(), Some(1));
    let forced =
        t2l(&["generate", "Sort the words.", "Name the capital!", "-o", target_text, "--force", "--base-name", "mine"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    let config = std::fs::read_to_string(target.join("0001-sort-the-words/adapter_config.json")).expect("read");
    assert!(config.contains("\"base_model_name_or_path\": \"mine\""), "{config}");
    // Other descriptions leave no adapter of the first ones behind.
    let forced = t2l(&["generate", "Add them.", "Name the capital!", "-o", target_text, "--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    let mut names: Vec<_> =
        std::fs::read_dir(&target).expect("read").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["0001-add-them", "0002-name-the-capital"]);
}

#[test]
fn more_descriptions_than_one_forward_pass_takes() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let (list, all, alone) = (place("list.txt"), place("all"), place("alone"));
    let lines: Vec<String> = (1..=34).map(|i| format!("Add {i} to the number.")).collect();
    std::fs::write(&list, lines.join("\n")).expect("written");
    let output = json(&t2l(&["generate", "-f", &list, "-o", &all, "--json"]));
    let adapters = output["adapters"].as_array().expect("adapters");
    let described: Vec<_> = adapters.iter().map(|a| a["description"].as_str().expect("text")).collect();
    assert_eq!(described, lines);
    // The last one is of the second pass, and is what it is alone.
    assert!(t2l(&["generate", &lines[33], "-o", &alone]).status.success());
    let last = place("all/0034-add-34-to-the-number");
    let compared = json(&t2l(&["adapter", "diff", &last, &alone, "--json"]));
    let cosine = |layer: &serde_json::Value| layer["cosine"].as_f64().expect("a cosine");
    let modules = compared["modules"].as_array().expect("modules");
    assert!(modules.len() == 60 && modules.iter().all(|m| cosine(m) > 0.9999), "{compared}");
}

#[test]
fn a_distilled_adapter_follows_what_it_was_told() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let description = "Name the capital of the country.";
    let plain = json(&t2l(&["ask", description, "Italy", "--max-tokens", "4", "--json"]));
    assert_ne!(plain["adapted"], "Rome", "nothing is left to learn");
    let taught = json(&t2l(&["ask", description, "Italy", "--max-tokens", "4", "--distil", "8", "--json"]));
    assert_eq!(taught["adapted"], "Rome");
    assert!(taught["seconds"]["distil"].is_number() && plain["seconds"]["distil"].is_null());
    // Two at once: each is what it is alone.
    let colour = "Name the colour of the thing.";
    let (both, alone) = (place("both"), place("alone"));
    assert!(t2l(&["generate", description, colour, "-o", &both, "--distil", "1"]).status.success());
    assert!(t2l(&["generate", colour, "-o", &alone, "--distil", "1"]).status.success());
    let cosine = |one: &str, other: &str| {
        json(&t2l(&["adapter", "diff", one, other, "--json"]))["cosine"].as_f64().expect("a cosine")
    };
    assert!(cosine(&place("both/0002-name-the-colour-of-the-thing"), &alone) > 0.999_99);
    assert!(cosine(&place("both/0001-name-the-capital-of-the-country"), &alone) < 0.99);
    // On inputs of a file.
    std::fs::write(place("inputs.txt"), "Spain\n\nKenya\nPeru\n").expect("written");
    let output =
        t2l(&["generate", description, "-o", &place("taught"), "--distil", "1", "--inputs", &place("inputs.txt")]);
    assert!(text(&output.stderr).contains("distilled in 1 step, "), "{}", text(&output.stderr));
    assert!(t2l(&["generate", description, "-o", &place("plain")]).status.success());
    let moved = cosine(&place("taught"), &place("plain"));
    assert!((0.9..0.999_999).contains(&moved), "{moved}");
}

#[test]
fn generate_writes_gguf() {
    if !models_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let (one, several) = (place("sort.gguf"), place("several"));
    let output = json(&t2l(&["generate", "Sort the words.", "-o", &one, "--json"]));
    assert_eq!(output["adapters"][0]["format"], "gguf");
    let inspected = json(&t2l(&["adapter", "inspect", &one, "--json"]));
    assert_eq!(inspected["rank"], output["adapters"][0]["rank"]);
    let again = t2l(&["generate", "Sort the words.", "-o", &one]);
    assert!(text(&again.stderr).contains("is there already; use --force to replace it"), "{}", text(&again.stderr));
    assert!(t2l(&["generate", "Sort the words.", "-o", &one, "--force"]).status.success());
    let output = json(&t2l(&["generate", "Sort.", "Count.", "-o", &several, "--format", "gguf", "--json"]));
    let path = output["adapters"][1]["path"].as_str().expect("a path");
    assert!(path.ends_with("0002-count.gguf") && std::path::Path::new(path).is_file(), "{path}");
    // A name that says another format, or a file's for several.
    assert_eq!(t2l(&["generate", "Sort.", "Count.", "-o", &place("y.gguf")]).status.code(), Some(1));
    assert_eq!(t2l(&["generate", "Sort.", "-o", &place("x.gguf"), "--format", "peft"]).status.code(), Some(1));
    assert_eq!(t2l(&["generate", "Sort.", "-o", &place("x"), "--format", "gguf"]).status.code(), Some(1));
}

#[test]
fn ask_gives_both_answers() {
    if !models_here() {
        return;
    }
    let output = json(&t2l(&["ask", "Write the opposite of the word.", "hot", "--max-tokens", "4", "--json"]));
    assert_eq!(output["input"], "hot");
    assert!(output["base"].is_string() && output["adapted"].is_string());
    for key in ["generate", "base", "adapted"] {
        assert!(output["seconds"][key].is_number(), "{key}");
    }
    assert_eq!(output["cut"]["base"], true, "the base model does not answer in four tokens");
    assert!(output["cut"]["adapted"].is_boolean());
}

#[test]
fn ask_says_that_an_answer_was_cut_and_what_cannot_be_asked_for() {
    if !models_here() {
        return;
    }
    let output = t2l(&["ask", "Tell a story.", "Tell me a long story about a ship.", "--max-tokens", "1"]);
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("the base answer was cut at --max-tokens 1"), "{said}");
    for command in [&["ask", "Sort.", "b a"][..], &["chat"]] {
        let output = t2l(&[command, &["--max-tokens", "8192"]].concat());
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("--max-tokens 8192: the base model reads 8192 tokens"), "{said}");
    }
}

#[test]
fn chat_answers_every_line() {
    if !models_here() {
        return;
    }
    let mut command = assert_cmd::Command::from_std(command(program()));
    command.args(["chat", "Write the opposite of the word.", "--max-tokens", "3", "--json"]).write_stdin("hot\nbig\n");
    let output = json(&command.output().expect("it runs"));
    assert_eq!(output["turns"].as_array().expect("turns").len(), 2);
}

#[test]
fn chat_drops_what_does_not_fit_and_prints_what_was_said() {
    if !models_here() {
        return;
    }
    // Longer than the model's 8192 positions: dropping what was said before makes no room for it.
    let mut command = assert_cmd::Command::from_std(command(program()));
    let long = "word ".repeat(9000);
    command.args(["chat", "--max-tokens", "3", "--json"]).write_stdin(format!("hot\nbig\n{long}\n"));
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("left out at the start: 2 exchanges"), "{}", text(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the turns so far");
    assert_eq!(said["turns"].as_array().expect("turns").len(), 2);
}

#[test]
fn eval_reports_rows_averages_and_differences() {
    if !models_here() {
        return;
    }
    let data = tiny_tasks();
    let data = data.to_str().expect("utf-8");
    let arguments = [
        "eval",
        "--data",
        data,
        "--tasks",
        "all",
        "--benchmarks",
        "all",
        "--conditions",
        "base,own,other,own",
        "--limit",
        "2",
        "--json",
    ];
    let output = json(&t2l(&arguments));
    for key in ["base_model", "checkpoint", "checkpoint_sha256", "command"] {
        assert!(output[key].is_string(), "{key}");
    }
    let rows = output["rows"].as_array().expect("rows");
    let choice = rows.iter().filter(|r| r["task"] == "warm_or_cold" && r["metric"] == "acc_norm").count();
    assert_eq!(choice, 3, "one row a condition");
    assert!(rows.iter().any(|r| r["task"] == "double_number" && r["metric"] == "numeric"));
    assert!(rows.iter().any(|r| r["task"] == "tiny_bench" && r["part"] == "dev"));
    for row in rows {
        assert!(
            row["n"].is_u64() && row["value"].is_number() && row["ci95"].as_array().is_some_and(|c| c.len() == 2),
            "{row}"
        );
    }
    assert!(output["macro"].as_array().expect("macro").iter().any(|m| m["group"] == "tasks" && m["metric"] == "nll"));
    let paired = output["paired"].as_array().expect("paired");
    assert!(paired.iter().any(|p| p["a"] == "own" && p["b"] == "other" && p["metric"] == "nll"), "{paired:?}");
}
