//! `t2l chat`: a conversation with the base model wearing a description's adapter.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::json;
use t2l::backbone::Sampling;
use t2l::backbone::chat::Message;
use t2l::core::AdapterBatch;

use super::args::{ChatArgs, Global};
use super::output::{self, Terminal};

pub fn run(args: &ChatArgs, global: &Global) -> anyhow::Result<()> {
    let t2l = super::text_to_lora(&args.checkpoint, global)?;
    let adapters = match &args.description {
        Some(description) => {
            let generated = t2l.generate(&[description])?;
            super::warn_truncated(&generated);
            AdapterBatch::select_factors(&generated.factors, &[Some(0)])?
        }
        None => AdapterBatch::none(1),
    };
    let model = t2l.base_model(args.model.model.as_deref(), &mut Terminal::new())?;
    if args.description.is_some() {
        t2l.check_fits(&model)?;
    }
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    let options = model.until_end_of_turn(vec![args.max_tokens], sampling);
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("An empty line forgets the conversation; Ctrl-D ends it.");
    }
    let mut messages: Vec<Message> = Vec::new();
    let mut turns = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if interactive {
            eprint!("> ");
        }
        let Some(line) = lines.next() else { break };
        let line = line?;
        if line.trim().is_empty() {
            messages.clear();
            continue;
        }
        messages.push(Message::user(line.clone()));
        let prompt = model.tokenizer.encode(&model.chat.render_bare(&messages, true)?)?;
        let mut stream = model.tokenizer.stream(true);
        let mut shown = String::new();
        let mut failed = None;
        model.decoder.generate(&[prompt], &adapters, &options, |_, token| match stream.push(token) {
            Ok(text) => {
                shown.push_str(&text);
                if !global.json {
                    print!("{text}");
                    let _ = std::io::stdout().flush();
                }
            }
            Err(error) => failed = Some(error),
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let rest = stream.finish()?;
        shown.push_str(&rest);
        if !global.json {
            println!("{rest}");
        }
        turns.push(json!({ "user": line, "assistant": shown }));
        messages.push(Message::assistant(shown));
    }
    if global.json {
        output::json(&json!({ "description": args.description, "turns": turns }))?;
    }
    Ok(())
}
