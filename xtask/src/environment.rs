//! The Python environment of the peers: found, else made, and kept between runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What the light comparison needs: the name that Python imports, and what pip installs.
pub const LIGHT: &[(&str, &str)] = &[NUMPY, SAFETENSORS, GGUF];
/// What the whole comparison needs.
pub const FULL: &[(&str, &str)] = &[
    NUMPY,
    SAFETENSORS,
    GGUF,
    ("torch", "torch==2.15.0"),
    ("transformers", "transformers==5.23.0"),
    ("peft", "peft==0.21.2"),
    ("llama_cpp", "llama-cpp-python==0.3.36"),
];
const NUMPY: (&str, &str) = ("numpy", "numpy==2.4.6");
const SAFETENSORS: (&str, &str) = ("safetensors", "safetensors==0.8.0");
const GGUF: (&str, &str) = ("gguf", "gguf==0.19.0");

/// A Python that can import the packages.
///
/// It lies in the folder that `T2L_INTEROP_ENV` names, else in `~/.cache/t2l-py` (`~/.cache/t2l-py-light` for the light
/// comparison, unless the other one is there). What is missing is installed with pip, in the versions above; what is there
/// stays as it is.
///
/// # Errors
/// No Python 3 with venv, or packages that pip cannot fetch.
pub fn python(light: bool) -> Result<PathBuf> {
    let packages = if light { LIGHT } else { FULL };
    let folder = folder(light)?;
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        eprintln!("making {}", folder.display());
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context("python3 -m venv")?;
    }
    let missing: Vec<&str> = packages.iter().filter(|(name, _)| !imports(&python, name)).map(|(_, pip)| *pip).collect();
    if !missing.is_empty() {
        eprintln!("installing {} into {}", missing.join(", "), folder.display());
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(&missing);
        quiet(&mut pip).context("pip install")?;
    }
    Ok(python)
}

fn folder(light: bool) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("T2L_INTEROP_ENV") {
        return Ok(PathBuf::from(named));
    }
    let home = std::env::home_dir().context("there is no home folder; name one in T2L_INTEROP_ENV")?;
    let full = home.join(".cache/t2l-py");
    Ok(if light && !full.exists() { home.join(".cache/t2l-py-light") } else { full })
}

/// Whether a module is there; it is not run.
fn imports(python: &Path, module: &str) -> bool {
    let code = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    let status = Command::new(python).args(["-c", &code]).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

/// Runs a command whose output matters only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{}", String::from_utf8_lossy(&text).trim().lines().last().unwrap_or("it failed and said nothing"));
    }
    Ok(())
}
