//! A checkpoint of random weights for a base model that none was trained for: to try the machinery, not the answers.
//!
//! `cargo run --release -p t2l --example random_hypernetwork -- BASE_MODEL OUT_DIR [ALPHA]`

use std::path::Path;

use t2l::core::{LoraScaling, device};
use t2l::hypernet::{Arch, Checkpoint, Dtype, Hypernet, HypernetConfig, Init, Manifest, Rendering, VERSION};
use t2l::models::Models;
use t2l::prelude::*;
use t2l::{fetch, model_ref};

const ENCODER: &str = "all-minilm-l6-v2";
/// Width of that encoder's embeddings.
const EMBEDDING: usize = 384;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (base, out, alpha) = match arguments.as_slice() {
        [base, out] => (base, out, 1.0),
        [base, out, alpha] => (base, out, alpha.parse()?),
        _ => return Err("usage: random_hypernetwork BASE_MODEL OUT_DIR [ALPHA]".into()),
    };
    let models = Models::new(None)?;
    let device = device::parse("cpu")?;
    let (base_model, encoder) = (model_ref(&models, base), model_ref(&models, ENCODER));
    let path = fetch(&models, &base_model, &mut ())?;
    let layout = Backbone::load(&path, &device)?.decoder.layout(&base_model.id, &["q_proj", "v_proj"])?;
    let scaling = LoraScaling { alpha, rank: 8, use_rslora: false };
    let config = HypernetConfig::new(Arch::M, layout, scaling, EMBEDDING);
    let hypernet = Hypernet::new(config.clone(), Init::Reconstruction, 1, &device)?;
    let manifest = Manifest {
        version: VERSION,
        created_by: "random_hypernetwork".to_owned(),
        config,
        base_model,
        encoder,
        quoted_words: false,
        rendering: Rendering { max_tokens: 512, input_share: 0.5, system_turn: false },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    };
    Checkpoint { manifest, hypernet }.save(Path::new(out), Dtype::F32)?;
    println!("random hypernetwork for {} written to {out}", path.display());
    Ok(())
}
