//! `t2l ask`: one input, answered with and without the description's adapter.

use std::time::Instant;

use serde_json::json;
use t2l::Question;

use super::args::{AskArgs, Global};
use super::distil::Lessons;
use super::output::{self, Terminal};

pub fn run(args: &AskArgs, global: &Global) -> anyhow::Result<()> {
    let lessons = Lessons::of(&args.distil)?;
    let t2l = super::text_to_lora(&args.checkpoint, args.model.model.as_deref(), global)?;
    if let Some(lessons) = &lessons {
        lessons.check(&t2l)?;
    }
    let started = Instant::now();
    let mut generated = t2l.generate_for(&args.description, &args.input)?;
    // Reading a value makes a lazy device finish.
    generated.factors.module(&t2l.checkpoint().hypernet.config.layout.modules[0].name).map(|m| m.a.clone().into_data());
    let generate = started.elapsed().as_secs_f64();
    super::warn_truncated(&generated);
    let model = t2l.base_model(args.model.model.as_deref(), args.model.weights.into(), &mut Terminal::new())?;
    t2l.check_fits(&model)?;
    super::check_max_tokens(args.max_tokens, &model)?;
    let mut distil = None;
    if let Some(lessons) = lessons {
        let started = Instant::now();
        generated = lessons.teach(&t2l, &model, generated)?;
        distil = Some(started.elapsed().as_secs_f64());
    }
    let question = Question {
        input: args.input.clone(),
        instruction: args.definition.then(|| args.description.clone()),
        max_tokens: args.max_tokens,
    };
    let answers = question.answer(&model, &generated.factors)?;
    if global.json {
        return output::json(&json!({
            "description": args.description,
            "input": args.input,
            "base": answers.base,
            "adapted": answers.adapted,
            "cut": { "base": answers.base_cut, "adapted": answers.adapted_cut },
            "seconds": {
                "generate": generate,
                "distil": distil,
                "base": answers.base_seconds,
                "adapted": answers.adapted_seconds,
            },
        }));
    }
    output::line(format_args!("base:    {}", indented(&answers.base)))?;
    output::line(format_args!("adapted: {}", indented(&answers.adapted)))?;
    for (whose, cut) in [("base", answers.base_cut), ("adapted", answers.adapted_cut)] {
        if cut {
            eprintln!("the {whose} answer was cut at --max-tokens {}", args.max_tokens);
        }
    }
    eprintln!(
        "adapter generated in {generate:.2} s; answers in {:.2} s and {:.2} s",
        answers.base_seconds, answers.adapted_seconds
    );
    Ok(())
}

/// Further lines of an answer stand under its first.
fn indented(answer: &str) -> String {
    answer.trim_end().replace('\n', "\n         ")
}
