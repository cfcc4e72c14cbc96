//! Computes the embeddings of every description in some task files, once.
//!
//! `cargo run --release -p t2l-encoder --example embed_descriptions -- ENCODER ID OUT.safetensors tasks.json …`
//!
//! Every string below a key `descriptions` is a description, and so is every one below
//! `ablation_nonsense_descriptions`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use t2l_encoder::{EmbeddingTable, Encoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, id, out, files @ ..] = arguments.as_slice() else {
        return Err("usage: embed_descriptions ENCODER ID OUT.safetensors TASKS.json …".into());
    };
    let mut texts = BTreeSet::new();
    for file in files {
        let json: Value = serde_json::from_slice(&std::fs::read(file)?)?;
        descriptions(&json, false, &mut texts);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoder = Encoder::load(folder, &t2l_core::device::parse("cpu")?)?.with_id(id);
    let start = Instant::now();
    let table = EmbeddingTable::fill(Path::new(out), &encoder, &texts, |done, of| {
        eprintln!("{done}/{of} after {:.1} s", start.elapsed().as_secs_f64());
    })?;
    let cut = texts.iter().filter(|t| table.truncated(t) == Some(true)).count();
    println!("{}: {} descriptions, {} embeddings, {cut} cut", out, texts.len(), table.len());
    Ok(())
}

/// Collects the strings below the keys that hold descriptions.
fn descriptions(json: &Value, inside: bool, into: &mut BTreeSet<String>) {
    match json {
        Value::String(text) if inside => {
            into.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| descriptions(item, inside, into)),
        Value::Object(entries) => {
            for (key, value) in entries {
                let inside = inside || matches!(key.as_str(), "descriptions" | "ablation_nonsense_descriptions");
                descriptions(value, inside, into);
            }
        }
        _ => {}
    }
}
