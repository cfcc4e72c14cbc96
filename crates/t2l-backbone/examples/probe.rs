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
//! | `{"greedy": [ID…], "count": N, "adapter": PATH}` | `{"ids": […]}` |
//! | `{"logits": [ID…], "out": FILE, "adapter": PATH}` | `{"shape": [TOKENS, VOCABULARY]}`; FILE gets them as f32, little-endian |
//!
//! An adapter is a PEFT folder or a GGUF file, and may be left out. A model without a tokenizer answers the last two.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;
use serde_json::{Value, json};
use t2l_adapter::gguf::BaseShape;
use t2l_backbone::chat::{ChatTemplate, Message};
use t2l_backbone::tokenizer::ModelTokenizer;
use t2l_backbone::{Backbone, Decoder, GenerateOptions, Sampling};
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

struct Model {
    decoder: Decoder,
    shape: BaseShape,
    /// Or why there is none.
    text: Result<(ModelTokenizer, ChatTemplate), String>,
}

fn main() -> Result<(), Failure> {
    let path = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: probe MODEL")?;
    let model = Model::load(&path)?;
    for line in std::io::stdin().lock().lines() {
        let answer = model.answer(serde_json::from_str(&line?)?)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Model {
    fn load(path: &Path) -> Result<Self, Failure> {
        let device = device::parse("cpu")?;
        let (decoder, text) = match Backbone::load(path, &device) {
            Ok(whole) => (whole.decoder, Ok((whole.tokenizer, whole.chat))),
            Err(error) => (Decoder::load(path, &device)?, Err(error.to_string())),
        };
        Ok(Self { decoder, shape: BaseShape::read(path)?, text })
    }

    fn text(&self) -> Result<&(ModelTokenizer, ChatTemplate), Failure> {
        self.text.as_ref().map_err(|reason| reason.as_str().into())
    }

    fn answer(&self, question: Question) -> Result<Value, Failure> {
        let device = self.decoder.device();
        let adapters = match &question.adapter {
            Some(path) => {
                let adapter = t2l_adapter::load(path, Some(&self.shape), &device)?.adapter;
                AdapterBatch::from_adapters(&[&adapter], &[Some(0)], &device)?
            }
            None => AdapterBatch::none(1),
        };
        Ok(match question.kind {
            Kind::Encode(text) => json!({ "ids": self.text()?.0.encode_with_special(&text)? }),
            Kind::Decode(ids) => json!({ "text": self.text()?.0.decode(&ids, false)? }),
            Kind::Render(messages) => json!({ "text": self.text()?.1.render(&messages, true)? }),
            Kind::Greedy(prompt) => {
                let max_new_tokens = vec![question.count];
                let options = GenerateOptions { max_new_tokens, sampling: Sampling::GREEDY, stops: vec![] };
                let answers = self.decoder.generate(&[prompt], &adapters, &options, |_, _| ())?;
                json!({ "ids": answers.first().map(|a| &a.ids) })
            }
            Kind::Logits(ids) => {
                let out = question.out.ok_or("logits want a file to go to: out")?;
                let flat: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
                let tokens: Tensor<2, Int> = Tensor::from_data(TensorData::new(flat, [1, ids.len()]), &device);
                let hidden = self.decoder.hidden(self.decoder.embed(tokens), &[0], None, &adapters)?;
                let logits = self.decoder.logits(hidden);
                let shape = [ids.len(), self.decoder.config().vocab_size];
                let bytes: Vec<u8> = logits.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
                std::fs::write(out, bytes)?;
                json!({ "shape": shape })
            }
        })
    }
}
