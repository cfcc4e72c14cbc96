//! `t2l chat`: a conversation with the base model wearing a description's adapter.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use t2l::backbone::chat::Message;
use t2l::backbone::{Backbone, GenerateOptions, Sampling};
use t2l::core::files::lines_at_most;
use t2l::core::{AdapterBatch, counted};
use t2l::data::PromptRenderer;

use super::args::{ChatArgs, Global};
use super::distil::Lessons;
use super::output::{self, Terminal};

/// Bytes of the longest line that is read.
const LINE_LIMIT: u64 = 1 << 20;

pub fn run(args: &ChatArgs, global: &Global) -> anyhow::Result<()> {
    if args.distil.distil.is_some() && args.description.is_none() {
        bail!("--distil: there is no description to learn");
    }
    if args.distil.inputs.as_deref().is_some_and(|inputs| inputs == Path::new("-")) {
        bail!("--inputs -: standard input is the conversation");
    }
    let lessons = Lessons::of(&args.distil)?;
    let t2l = super::text_to_lora(&args.checkpoint, args.model.model.as_deref(), global)?;
    let generated = match &args.description {
        Some(description) => Some(t2l.generate(&[description])?),
        None => None,
    };
    let model = t2l.base_model(args.model.model.as_deref(), args.model.weights.into(), &mut Terminal::new())?;
    super::check_max_tokens(args.max_tokens, &model)?;
    let adapters = match generated {
        Some(mut generated) => {
            super::warn_truncated(&generated);
            t2l.check_fits(&model)?;
            if let Some(lessons) = lessons {
                generated = lessons.teach(&t2l, &model, generated)?;
            }
            AdapterBatch::select_factors(&generated.factors, &[Some(0)])?
        }
        None => AdapterBatch::none(1),
    };
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    let options = model.until_end_of_turn(vec![args.max_tokens], sampling);
    let room = model.decoder.config().longest_context().saturating_sub(args.max_tokens);
    let chat = Chat { model: &model, adapters, options, room, show: !global.json };
    let mut turns = Vec::new();
    let ended = chat.talk(&mut turns);
    if global.json {
        // Also what was said before something went wrong.
        let printed = output::json(&json!({ "description": args.description, "turns": turns }));
        return ended.and(printed);
    }
    ended
}

struct Chat<'a> {
    model: &'a Backbone,
    adapters: AdapterBatch,
    options: GenerateOptions,
    /// Tokens that a prompt may have.
    room: usize,
    /// Whether answers are printed as they come.
    show: bool,
}

impl Chat<'_> {
    /// Answers every line of standard input.
    fn talk(&self, turns: &mut Vec<Value>) -> anyhow::Result<()> {
        let interactive = std::io::stdin().is_terminal();
        if interactive {
            eprintln!("An empty line forgets the conversation; Ctrl-D ends it.");
        }
        let mut messages: Vec<Message> = Vec::new();
        let mut lines = lines_at_most(std::io::stdin().lock(), LINE_LIMIT);
        loop {
            if interactive {
                eprint!("> ");
            }
            let Some(line) = lines.next() else { return Ok(()) };
            let line = line.context("a line of standard input")?;
            if line.trim().is_empty() {
                messages.clear();
                continue;
            }
            messages.push(Message::user(line.clone()));
            let prompt = self.prompt(&mut messages)?;
            let answer = self.answer(prompt)?;
            turns.push(json!({ "user": line, "assistant": answer }));
            messages.push(Message::assistant(answer));
        }
    }

    /// The conversation in tokens, without its oldest exchanges where the model could not hold them and an answer.
    fn prompt(&self, messages: &mut Vec<Message>) -> anyhow::Result<Vec<u32>> {
        let (renderer, before) = (PromptRenderer::of(self.model)?, messages.len());
        loop {
            let prompt = renderer.conversation(messages)?;
            // The last message is the user's; before it they come in pairs.
            if prompt.len() <= self.room || messages.len() < 3 {
                let dropped = (before - messages.len()) / 2;
                if dropped > 0 {
                    let dropped = counted(dropped, "exchange");
                    eprintln!("note: the model cannot hold all of this; left out at the start: {dropped}");
                }
                return Ok(prompt);
            }
            messages.drain(..2);
        }
    }

    fn answer(&self, prompt: Vec<u32>) -> anyhow::Result<String> {
        let mut stream = self.model.tokenizer.stream(true);
        let mut answer = String::new();
        let mut outcome = Ok(());
        self.model.decoder.generate(&[prompt], &self.adapters, &self.options, |_, token| {
            if outcome.is_ok() {
                outcome = stream.push(token).map_err(Into::into).and_then(|text| self.say(&mut answer, &text));
            }
        })?;
        outcome?;
        self.say(&mut answer, &stream.finish()?)?;
        if self.show {
            output::line("")?;
        }
        Ok(answer)
    }

    fn say(&self, answer: &mut String, text: &str) -> anyhow::Result<()> {
        answer.push_str(text);
        if self.show { output::text(text) } else { Ok(()) }
    }
}
