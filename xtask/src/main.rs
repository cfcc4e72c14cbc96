//! Chores of this repository, run as `cargo xtask …`.

mod environment;
mod interop;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask interop [--light]

  interop    compare with PEFT, transformers, llama.cpp and gguf; interop/README.md says what is compared
  --light    only what needs numpy, safetensors and gguf";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["interop"] => interop::run(false),
        ["interop", "--light"] => interop::run(true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
