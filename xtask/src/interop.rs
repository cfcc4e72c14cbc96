//! `cargo xtask interop`: the scripts of `interop/` one after another, and a table of what they found.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::environment;

const SMOLLM2: &str = "smollm2-135m-instruct";
const GEMMA: &str = "gemma-3-270m";

/// A script, and the model that it works with.
struct Script {
    name: &'static str,
    model: Option<&'static str>,
}

const LIGHT: &[Script] = &[script("light.py", Some(SMOLLM2))];
const FULL: &[Script] = &[
    script("light.py", Some(SMOLLM2)),
    script("peft_adapters.py", None),
    script("peft_fused.py", None),
    script("smollm2.py", Some(SMOLLM2)),
    script("llama_cpp_adapters.py", Some(SMOLLM2)),
    script("llama_cpp_gemma.py", Some(GEMMA)),
];

const fn script(name: &'static str, model: Option<&'static str>) -> Script {
    Script { name, model }
}

/// What a script said in one line.
struct Finding {
    script: &'static str,
    verdict: &'static str,
    text: String,
}

/// Runs the comparison; whether everything agreed. The light one is skipped, with a word, where Python cannot be had.
///
/// # Errors
/// A program that does not build, an environment that cannot be made.
pub fn run(light: bool) -> Result<bool> {
    let python = match environment::python(light) {
        Err(error) if light => {
            println!("interop skipped: {error:#}");
            return Ok(true);
        }
        python => python?,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
    let release = build(root, light)?;
    if !light && !t2l(&release, &["models", "pull"])?.status.success() {
        bail!("t2l models pull failed");
    }
    let mut findings = Vec::new();
    let mut agreed = true;
    for &Script { name, model: wanted } in if light { LIGHT } else { FULL } {
        println!("== {name}");
        let model = wanted.map(|model| path(&release, model)).transpose()?.flatten();
        if wanted == Some(GEMMA) && model.is_none() {
            let text = format!("skipped; `t2l models pull {GEMMA}` fetches its model");
            println!("note: {text}");
            findings.push(Finding { script: name, verdict: "note", text });
            continue;
        }
        agreed &= follow(&python, root, &release, model.as_deref(), name, &mut findings)?;
    }
    table(&findings);
    Ok(agreed)
}

/// Builds the program and the examples that give the scripts our numbers; the folder they lie in.
fn build(root: &Path, light: bool) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--release", "-p", "t2l", "-p", "t2l-gguf", "--bin", "t2l"]);
    cargo.args(["--example", "dequantise"]);
    if !light {
        cargo.args(["-p", "t2l-backbone", "--example", "probe", "--example", "random_hypernetwork"]);
    }
    if !cargo.status().context("cargo cannot be run")?.success() {
        bail!("the program does not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join("release"))
}

fn t2l(release: &Path, words: &[&str]) -> Result<Output> {
    Command::new(release.join("t2l")).args(words).output().context("t2l cannot be run")
}

/// Where a model lies, if it is here.
fn path(release: &Path, model: &str) -> Result<Option<String>> {
    let said = t2l(release, &["models", "path", model])?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    Ok(said.status.success().then_some(text).filter(|path| Path::new(path).exists()))
}

/// Runs one script and gathers its lines; whether it ended well.
fn follow(
    python: &Path,
    root: &Path,
    release: &Path,
    model: Option<&str>,
    script: &'static str,
    findings: &mut Vec<Finding>,
) -> Result<bool> {
    let mut command = Command::new(python);
    command.arg(root.join("interop").join(script)).arg("--bin").arg(release);
    if let Some(model) = model {
        command.args(["--model", model]);
    }
    // Only these lines are wanted of the peers.
    command.env("PYTHONWARNINGS", "ignore").env("TRANSFORMERS_VERBOSITY", "error").env("HF_HUB_OFFLINE", "1");
    let mut child = command.stdout(Stdio::piped()).spawn().context("python cannot be run")?;
    let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    for line in lines {
        let line = line.context("the script's output")?;
        println!("{line}");
        for verdict in ["ok", "FAILED", "note"] {
            if let Some(text) = line.strip_prefix(verdict).and_then(|rest| rest.strip_prefix(": ")) {
                findings.push(Finding { script, verdict, text: text.to_owned() });
            }
        }
    }
    let ended_well = child.wait().context("the script")?.success();
    if !ended_well && !findings.iter().any(|f| f.script == script && f.verdict == "FAILED") {
        findings.push(Finding { script, verdict: "FAILED", text: "the script broke off; see above".into() });
    }
    Ok(ended_well)
}

fn table(findings: &[Finding]) {
    println!("\n{:8} {:24} what", "verdict", "script");
    for Finding { script, verdict, text } in findings {
        println!("{verdict:8} {script:24} {text}");
    }
    let count = |verdict: &str| findings.iter().filter(|f| f.verdict == verdict).count();
    println!("{} agreed, {} did not", count("ok"), count("FAILED"));
}
