//! Results and progress.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use t2l::models::Progress;

/// Whoever read the results has seen enough, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct Closed;

/// Prints one JSON object.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Prints a line.
pub fn line(line: impl Display) -> anyhow::Result<()> {
    text(format_args!("{line}\n"))
}

/// Prints a piece of text at once, without ending the line.
pub fn text(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.context("standard output"),
    }
}

/// Shows downloads on standard error.
pub struct Terminal {
    bar: Option<(String, ProgressBar)>,
}

impl Terminal {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self { bar: None }
    }
}

impl Progress for Terminal {
    fn advance(&mut self, file: &str, done: u64, total: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        if self.bar.as_ref().is_none_or(|(name, _)| name != file) {
            let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some((file.to_owned(), ProgressBar::new(total).with_style(style).with_message(file.to_owned())));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
            if done == total {
                bar.finish();
            }
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some((_, bar)) if !bar.is_finished() => bar.suspend(|| eprintln!("{text}")),
            _ => eprintln!("{text}"),
        }
    }
}
