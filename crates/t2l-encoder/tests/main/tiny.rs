//! Small random models on disk, so that everything but the published numbers is tested with nothing downloaded.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use t2l_core::{EncodedTexts, TextEncoder};
use t2l_encoder::BertEncoder;

/// Words of the small vocabulary; ids follow the five special tokens.
pub const WORDS: [&str; 10] = ["translate", "the", "add", "numbers", "text", "into", "french", "count", "##s", "."];

pub const WIDTH: usize = 8;
const INNER: usize = 12;
const LAYERS: usize = 2;
pub const POSITIONS: usize = 24;

pub fn device() -> Device {
    t2l_core::device::parse("cpu").unwrap()
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// A tensor in a file to be: type, shape, bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A model folder to be: change what a test is about, then write it.
#[derive(Clone)]
pub struct Tiny {
    pub config: Value,
    pub tensors: BTreeMap<String, Stored>,
    pub files: BTreeMap<&'static str, String>,
}

impl Tiny {
    pub fn bert() -> Self {
        let mut shapes = embeddings();
        shapes.push(("embeddings.position_embeddings.weight".into(), vec![POSITIONS, WIDTH]));
        for layer in 0..LAYERS {
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("encoder.layer.{layer}.{name}"), shape.to_vec()));
            };
            for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
            {
                add(&format!("{name}.weight"), &[WIDTH, WIDTH]);
                add(&format!("{name}.bias"), &[WIDTH]);
            }
            add("intermediate.dense.weight", &[INNER, WIDTH]);
            add("intermediate.dense.bias", &[INNER]);
            add("output.dense.weight", &[WIDTH, INNER]);
            add("output.dense.bias", &[WIDTH]);
            for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
                add(&format!("{name}.weight"), &[WIDTH]);
                add(&format!("{name}.bias"), &[WIDTH]);
            }
        }
        Self::new("bert", &shapes)
    }

    pub fn gte() -> Self {
        let mut shapes = embeddings();
        for layer in 0..LAYERS {
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("encoder.layer.{layer}.{name}"), shape.to_vec()));
            };
            add("attention.qkv_proj.weight", &[3 * WIDTH, WIDTH]);
            add("attention.qkv_proj.bias", &[3 * WIDTH]);
            add("attention.o_proj.weight", &[WIDTH, WIDTH]);
            add("attention.o_proj.bias", &[WIDTH]);
            add("mlp.up_gate_proj.weight", &[2 * INNER, WIDTH]);
            add("mlp.down_proj.weight", &[WIDTH, INNER]);
            add("mlp.down_proj.bias", &[WIDTH]);
            for name in ["attn_ln", "mlp_ln"] {
                add(&format!("{name}.weight"), &[WIDTH]);
                add(&format!("{name}.bias"), &[WIDTH]);
            }
        }
        let mut tiny = Self::new("new", &shapes);
        tiny.config["rope_theta"] = json!(500.0);
        tiny.config["rope_scaling"] = json!({"type": "ntk", "factor": 2.0});
        tiny
    }

    fn new(family: &str, shapes: &[(String, Vec<usize>)]) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let tensors = shapes.iter().map(|(name, shape)| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| random()).collect();
            (name.clone(), stored(shape, &values))
        });
        let vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().chain(WORDS);
        Self {
            config: json!({
                "model_type": family, "vocab_size": 16, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
                "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": POSITIONS,
                "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
            }),
            tensors: tensors.collect(),
            files: BTreeMap::from([("vocab.txt", vocab.map(|token| format!("{token}\n")).collect())]),
        }
    }

    pub fn weights(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("model.safetensors"), self.weights()).unwrap();
        for (name, text) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    pub fn load(&self) -> Result<BertEncoder, t2l_encoder::EncoderError> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        BertEncoder::load(folder.path(), &device())
    }
}

fn embeddings() -> Vec<(String, Vec<usize>)> {
    vec![
        ("embeddings.word_embeddings.weight".into(), vec![16, WIDTH]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, WIDTH]),
        ("embeddings.LayerNorm.weight".into(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".into(), vec![WIDTH]),
    ]
}

pub fn stored(shape: &[usize], values: &[f32]) -> Stored {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

pub fn floats(stored: &Stored) -> Vec<f32> {
    stored.2.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Embeddings of texts, one after another.
pub fn encode(encoder: &dyn TextEncoder, texts: &[&str]) -> Vec<f32> {
    let EncodedTexts { embeddings, .. } = encoder.encode(texts).unwrap();
    values(embeddings)
}
