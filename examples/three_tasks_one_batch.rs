//! Three descriptions, three adapters, one batch: every row wears its own, and one row wears none.
//!
//! `cargo run --release -p t2l --example three_tasks_one_batch`

use t2l::data::PromptRenderer;
use t2l::prelude::*;

fn main() -> Result<(), Error> {
    let t2l = TextToLora::builder().build()?;
    let generated = t2l.generate(&[
        "Give the superlative form of the adjective.",
        "You are asked to return the first letter of the word. From a word, provide one letter.",
        "You are asked to negate the statement. From a factual statement, provide the negated statement.",
    ])?;
    let model = t2l.base_model(None, WeightType::F32, &mut ())?;

    // Row by row: which of the three adapters, or none.
    let wears = [Some(0), Some(1), Some(2), None];
    let adapters = AdapterBatch::select_factors(&generated.factors, &wears)?;
    let renderer = PromptRenderer::of(&model)?;
    let inputs = ["tall", "tall", "Time is finite.", "tall"];
    let prompts = inputs.iter().map(|input| renderer.prompt(input)).collect::<Result<Vec<_>, _>>()?;
    let options = model.until_end_of_turn(vec![16], Sampling::GREEDY);
    let answers = model.decoder.generate(&prompts, &adapters, &options, |_, _| ())?;
    for ((worn, input), answer) in wears.iter().zip(inputs).zip(&answers) {
        let name = worn.map_or("no adapter", |i| generated.descriptions[i].as_str());
        println!("{name}\n    {input} → {}", model.text(answer)?.trim().replace('\n', " "));
    }
    Ok(())
}
