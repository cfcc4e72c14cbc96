//! Answers questions about a model, one JSON object a line on standard input, one on standard output: for scripts that
//! compare it with another program.
//!
//! `cargo run --release -p t2l-backbone --example probe -- MODEL`
//!
//! | question | answer |
//! |---|---|
//! | `{"encode": TEXT}` | `{"ids": […]}`, with what the model's own recipe puts around a text |
//! | `{"decode": [ID…]}` | `{"text": TEXT}` |
//! | `{"render": [{"role": …, "content": …}…]}` | `{"text": TEXT}`, up to where the model's answer begins |
//! | `{"greedy": [ID…], "count": N, "adapter": PATH}` | `{"ids": […]}`; PATH is a PEFT folder and may be left out |
//! | `{"logits": [ID…], "out": FILE, "adapter": PATH}` | `{"shape": [TOKENS, VOCABULARY]}`; FILE gets them as f32, little-endian |

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;
use serde_json::{Value, json};
use t2l_backbone::chat::Message;
use t2l_backbone::{Backbone, GenerateOptions, Sampling};
use t2l_core::{AdapterBatch, device};

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Encode(String),
    Decode(Vec<u32>),
    Render(Vec<Message>),
    Greedy(Vec<u32>),
    Logits(Vec<u32>),
}

#[derive(Deserialize)]
struct Question {
    #[serde(flatten)]
    kind: Kind,
    #[serde(default)]
    count: usize,
    out: Option<PathBuf>,
    adapter: Option<PathBuf>,
}

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: probe MODEL")?;
    let model = Backbone::load(Path::new(&path), &device::parse("cpu")?)?;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&model, serde_json::from_str(&line?)?)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn answer(model: &Backbone, question: Question) -> Result<Value, Failure> {
    let adapters = match &question.adapter {
        Some(folder) => {
            let device = model.decoder.device();
            AdapterBatch::from_adapters(&[&t2l_adapter::peft::load(folder, &device)?], &[Some(0)], &device)?
        }
        None => AdapterBatch::none(1),
    };
    Ok(match question.kind {
        Kind::Encode(text) => json!({ "ids": model.tokenizer.encode_with_special(&text)? }),
        Kind::Decode(ids) => json!({ "text": model.tokenizer.decode(&ids, false)? }),
        Kind::Render(messages) => json!({ "text": model.chat.render(&messages, true)? }),
        Kind::Greedy(prompt) => {
            let options =
                GenerateOptions { max_new_tokens: vec![question.count], sampling: Sampling::GREEDY, stops: vec![] };
            let answers = model.decoder.generate(&[prompt], &adapters, &options, |_, _| ())?;
            json!({ "ids": answers.first().map(|a| &a.ids) })
        }
        Kind::Logits(ids) => {
            let out = question.out.ok_or("logits want a file to go to: out")?;
            let flat: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let device = model.decoder.device();
            let tokens: Tensor<2, Int> = Tensor::from_data(TensorData::new(flat, [1, ids.len()]), &device);
            let hidden = model.decoder.hidden(model.decoder.embed(tokens), &[0], None, &adapters)?;
            let logits = model.decoder.logits(hidden);
            let shape = [ids.len(), model.decoder.config().vocab_size];
            let bytes: Vec<u8> = logits.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
            std::fs::write(out, bytes)?;
            json!({ "shape": shape })
        }
    })
}
