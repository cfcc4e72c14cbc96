//! The `t2l` program.

#[cfg(target_os = "linux")]
mod allocator;
mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // clap exits with 2 when the command line itself cannot be parsed.
    let cli = cli::Cli::parse();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) if error.is::<cli::Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// What went wrong and why, each reason once: errors of the libraries already name what caused them.
fn message(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    #[test]
    fn every_reason_is_named_once() {
        let error = anyhow!("a.json: not there").context("a.json: not there");
        assert_eq!(super::message(&error), "a.json: not there");
        let error = Err::<(), _>(anyhow!("not there")).context("a.json").expect_err("an error");
        assert_eq!(super::message(&error), "a.json: not there");
    }
}
