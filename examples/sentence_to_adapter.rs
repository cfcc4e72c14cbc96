//! A sentence becomes an adapter, and the base model wears it.
//!
//! `cargo run --release -p t2l --example sentence_to_adapter -- superlative-adapter`

use t2l::prelude::*;

fn main() -> Result<(), Error> {
    let t2l = TextToLora::builder().device("cpu").build()?;
    let description = "Give the superlative form of the adjective.";
    let generated = t2l.generate(&[description])?;

    // Files that PEFT, vLLM and SGLang load.
    let folder = std::env::args().nth(1).unwrap_or_else(|| "superlative-adapter".to_owned());
    generated.adapter(0).save(&folder)?;
    println!("adapter written to {folder}");

    // The base model with and without it.
    let model = t2l.base_model(None, WeightType::F32, &mut ())?;
    let answers = Question::new("tall").answer(&model, &generated.factors)?;
    println!("base:    {}", answers.base);
    println!("adapted: {}", answers.adapted);
    Ok(())
}
