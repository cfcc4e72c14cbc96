//! The program: arguments in, one module per subcommand, results on standard output, everything else on standard error.

mod adapter;
mod args;
mod ask;
mod baselines;
mod chat;
mod data;
mod distil;
mod eval;
mod generate;
mod import;
mod models;
mod output;
mod stale;
mod target;
mod train;
mod typed;

use std::process::ExitCode;

use anyhow::bail;
use t2l::backbone::Backbone;

pub use args::Cli;
use args::{CheckpointArgs, Command, Global};
pub use output::Closed;
use output::Terminal;

/// Runs a parsed command line.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    // An unknown device is an error whatever the subcommand does with it.
    t2l::core::device::parse(&global.device)?;
    match cli.command {
        Command::Generate(args) => generate::run(&args, global)?,
        Command::Ask(args) => ask::run(&args, global)?,
        Command::Chat(args) => chat::run(&args, global)?,
        Command::Train(command) => return train::run(&command, global),
        Command::Eval(args) => eval::run(&args, global)?,
        Command::Data(command) => data::run(&command, global)?,
        Command::Adapter(command) => adapter::run(&command, global)?,
        Command::Import(command) => import::run(&command, global)?,
        Command::Models(command) => models::run(&command, global)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the hypernetwork and encoder that a command asks for; `model` is the base model that it names.
fn text_to_lora(checkpoint: &CheckpointArgs, model: Option<&str>, global: &Global) -> anyhow::Result<t2l::TextToLora> {
    let mut builder = t2l::TextToLora::builder().device(&global.device);
    if let Some(path) = &checkpoint.checkpoint {
        builder = builder.checkpoint(path);
    }
    if let Some(encoder) = &checkpoint.encoder {
        builder = builder.encoder(encoder);
    }
    if let Some(model) = model {
        builder = builder.base(model);
    }
    Ok(builder.build_with(&mut Terminal::new())?)
}

/// Refuses answers that no prompt leaves room for, by the option's name.
fn check_max_tokens(max_tokens: usize, model: &Backbone) -> anyhow::Result<()> {
    let longest = model.decoder.config().longest_context();
    if max_tokens >= longest {
        bail!("--max-tokens {max_tokens}: the base model reads {longest} tokens, prompt and answer together");
    }
    Ok(())
}

/// Says which descriptions were cut.
fn warn_truncated(generated: &t2l::GeneratedAdapters) {
    for (description, _) in generated.descriptions.iter().zip(&generated.truncated).filter(|(_, cut)| **cut) {
        let start: String = description.chars().take(40).collect();
        eprintln!("warning: description {start:?}… is longer than the encoder reads; its end was cut off");
    }
}
