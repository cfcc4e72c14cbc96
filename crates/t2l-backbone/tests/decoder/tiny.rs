//! Tiny models of every family, written as files: what the properties and the hostile cases start from.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use t2l_backbone::{BackboneError, Decoder, WeightType};
use t2l_core::{Adapter, LoraWeights};

pub const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// What the size of a tiny model is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    pub family: &'static str,
    pub layers: usize,
    pub kv_heads: usize,
    pub group: usize,
    pub half_head: usize,
    pub hidden: usize,
    pub inter: usize,
    pub vocabulary: usize,
    pub window: Option<usize>,
    pub bias: bool,
    pub tied: bool,
    pub seed: u64,
}

impl Shape {
    /// A Llama of two layers.
    pub fn small() -> Self {
        Self {
            family: "llama",
            layers: 2,
            kv_heads: 1,
            group: 2,
            half_head: 4,
            hidden: 16,
            inter: 16,
            vocabulary: 64,
            window: None,
            bias: false,
            tied: true,
            seed: 1,
        }
    }
}

pub fn any_shape() -> impl Strategy<Value = Shape> {
    let family = prop::sample::select(vec!["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"]);
    let heads = (1usize..4, 1usize..4, 1usize..5);
    let widths = (8usize..32, 4usize..32, 4usize..40);
    let switches = (prop::option::of(1usize..6), any::<bool>(), any::<bool>());
    (family, 1usize..=8, heads, widths, switches, any::<u64>()).prop_map(
        |(family, layers, (kv_heads, group, half_head), (hidden, inter, vocabulary), (window, bias, tied), seed)| {
            Shape { family, layers, kv_heads, group, half_head, hidden, inter, vocabulary, window, bias, tied, seed }
        },
    )
}

/// A model as its files hold it.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub config: Map<String, Value>,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    shape: Shape,
}

impl Tiny {
    pub fn new(shape: Shape) -> Self {
        let s = shape.clone();
        let (heads, head_dim) = (s.kv_heads * s.group, 2 * s.half_head);
        let mut config = json!({
            "model_type": s.family, "vocab_size": s.vocabulary, "hidden_size": s.hidden, "intermediate_size": s.inter,
            "num_hidden_layers": s.layers, "num_attention_heads": heads, "num_key_value_heads": s.kv_heads,
            "head_dim": head_dim, "rms_norm_eps": 1e-6, "max_position_embeddings": 256, "tie_word_embeddings": s.tied,
            "attention_bias": s.bias, "sliding_window": s.window,
        });
        if s.family == "gemma2" {
            config["attn_logit_softcapping"] = json!(5.0);
            config["final_logit_softcapping"] = json!(6.0);
        }
        if s.family == "gemma3_text" {
            config["sliding_window_pattern"] = json!(2);
        }
        if s.family == "phi3" && s.half_head.is_multiple_of(2) {
            config["partial_rotary_factor"] = json!(0.5);
        }
        let Value::Object(config) = config else { unreachable!("an object was written") };
        let mut tiny = Self { config, tensors: BTreeMap::new(), shape };
        tiny.fill();
        tiny
    }

    fn fill(&mut self) {
        let s = self.shape.clone();
        let head_dim = 2 * s.half_head;
        let gemma = s.family.starts_with("gemma");
        let bias = |module: &str| match s.family {
            "qwen2" => matches!(module, "q_proj" | "k_proj" | "v_proj"),
            "mistral" | "phi3" => false,
            _ => s.bias && matches!(module, "q_proj" | "k_proj" | "v_proj" | "o_proj"),
        };
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![s.vocabulary, s.hidden])];
        if !s.tied {
            shapes.push(("lm_head.weight".to_owned(), vec![s.vocabulary, s.hidden]));
        }
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if gemma {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for layer in 0..s.layers {
            let layer = format!("model.layers.{layer}");
            shapes.extend(norms.iter().map(|n| (format!("{layer}.{n}.weight"), vec![s.hidden])));
            let modules: Vec<&str> = match s.family {
                "phi3" => vec!["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
                _ => MODULES.to_vec(),
            };
            for (module, [out, input]) in modules.into_iter().map(|m| (m, module_shape(&s, m))) {
                let module_name = format!("{layer}.{}.{module}", block(module));
                shapes.push((format!("{module_name}.weight"), vec![out, input]));
                if bias(module) {
                    shapes.push((format!("{module_name}.bias"), vec![out]));
                }
            }
            if matches!(s.family, "qwen3" | "gemma3_text") {
                let head_norm = |n: &str| (format!("{layer}.self_attn.{n}_norm.weight"), vec![head_dim]);
                shapes.extend([head_norm("q"), head_norm("k")]);
            }
        }
        shapes.push(("model.norm.weight".to_owned(), vec![s.hidden]));
        let mut rng = ChaCha8Rng::seed_from_u64(s.seed);
        for (name, shape) in shapes {
            let count = shape.iter().product();
            let bound = if shape.len() == 1 { 0.3 } else { (3.0 / shape[1] as f32).sqrt() };
            let centre = if name.ends_with("norm.weight") && !gemma { 1.0 } else { 0.0 };
            let values = (0..count).map(|_| centre + rng.random_range(-bound..bound)).collect();
            self.tensors.insert(name, (shape, values));
        }
    }

    /// The values of one weight, `[out, in]`: those of its rows where it is a part of a fused one.
    pub fn weight(&mut self, layer: usize, module: &str) -> &mut [f32] {
        let s = self.shape.clone();
        let size = |m: &str| module_shape(&s, m).iter().product::<usize>();
        let (holder, before): (&str, &[&str]) = match (s.family, module) {
            ("phi3", "q_proj") => ("qkv_proj", &[]),
            ("phi3", "k_proj") => ("qkv_proj", &["q_proj"]),
            ("phi3", "v_proj") => ("qkv_proj", &["q_proj", "k_proj"]),
            ("phi3", "gate_proj") => ("gate_up_proj", &[]),
            ("phi3", "up_proj") => ("gate_up_proj", &["gate_proj"]),
            _ => (module, &[]),
        };
        let first: usize = before.iter().map(|m| size(m)).sum();
        let name = format!("model.layers.{layer}.{}.{holder}.weight", block(module));
        &mut self.tensors.get_mut(&name).expect("written").1[first..first + size(module)]
    }

    /// Writes config.json and model.safetensors.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), Value::Object(self.config.clone()).to_string()).expect("writes");
        std::fs::write(folder.join("model.safetensors"), self.safetensors(|_| true)).expect("writes");
    }

    /// The bytes of a safetensors file of some of the tensors.
    pub fn safetensors(&self, keep: impl Fn(&str) -> bool) -> Vec<u8> {
        let bytes: Vec<(&str, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .filter(|(name, _)| keep(name))
            .map(|(name, (shape, values))| {
                (name.as_str(), shape.as_slice(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).expect("a view")));
        safetensors::serialize(views, None).expect("serialises")
    }

    /// Loads what [`Tiny::write`] writes.
    pub fn load(&self) -> Result<Decoder, BackboneError> {
        self.load_as(WeightType::F32)
    }

    /// The same with its weights held in another type.
    pub fn load_as(&self, held: WeightType) -> Result<Decoder, BackboneError> {
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path());
        Decoder::load_as(folder.path(), held, &Device::flex())
    }

    /// The same model with every matrix rounded to a type.
    pub fn rounded(&self, held: WeightType) -> Self {
        let mut rounded = self.clone();
        for (_, values) in rounded.tensors.values_mut().filter(|(shape, _)| shape.len() == 2) {
            for x in values {
                *x = match held {
                    WeightType::F32 => *x,
                    WeightType::F16 => f16::from_f32(*x).to_f32(),
                    WeightType::Bf16 => bf16::from_f32(*x).to_f32(),
                };
            }
        }
        rounded
    }

    /// The bytes of the same model as llama.cpp would write it: its names, and rotated rows interleaved.
    pub fn gguf(&self) -> Vec<u8> {
        let s = &self.shape;
        let head_dim = 2 * s.half_head;
        let mut out = b"GGUF".to_vec();
        let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let sizes = [
            ("block_count", s.layers),
            ("context_length", 256),
            ("embedding_length", s.hidden),
            ("feed_forward_length", s.inter),
            ("attention.head_count", s.kv_heads * s.group),
            ("attention.head_count_kv", s.kv_heads),
            ("attention.key_length", head_dim),
        ];
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((sizes.len() as u64 + 2).to_le_bytes());
        out.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
        for (key, size) in sizes {
            out.extend([string(&format!("llama.{key}")), 4u32.to_le_bytes().to_vec()].concat());
            out.extend((size as u32).to_le_bytes());
        }
        out.extend([string("llama.attention.layer_norm_rms_epsilon"), 6u32.to_le_bytes().to_vec()].concat());
        out.extend(1e-6f32.to_le_bytes());
        let mut data: Vec<u8> = vec![];
        for (name, (shape, values)) in &self.tensors {
            let name = gguf_name(name);
            out.extend(string(&name));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            let rotated = name.contains("attn_q") || name.contains("attn_k");
            let width = shape.get(1).copied().unwrap_or(1);
            for row in 0..shape[0] {
                // Row 2i of a head is the half-split row i, row 2i + 1 is i + d/2.
                let (head, at) = (row / head_dim, row % head_dim);
                let from = if rotated { head * head_dim + at / 2 + (at % 2) * s.half_head } else { row };
                values[from * width..][..width].iter().for_each(|x| data.extend(x.to_le_bytes()));
            }
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    /// An adapter on a random choice of places, of random ranks.
    pub fn adapter(&self, seed: u64) -> Adapter {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut adapter = Adapter::new("tiny", rng.random());
        for layer in 0..self.shape.layers {
            for (module, [output, input]) in MODULES.map(|m| (m, module_shape(&self.shape, m))) {
                if rng.random_bool(0.3) {
                    continue;
                }
                let rank = rng.random_range(1usize..=32);
                let mut matrix = |shape: [usize; 2]| -> Tensor<2> {
                    let bound = (3.0 / shape[1] as f32).sqrt();
                    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.random_range(-bound..bound)).collect();
                    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
                };
                let (a, b) = (matrix([rank, input]), matrix([output, rank]));
                adapter.insert(layer, module, LoraWeights { a, b, alpha: 0.5 * rank as f64 });
            }
        }
        adapter
    }

    /// The model with an adapter's `s·B·A` added to its weights.
    pub fn merged(&self, adapter: &Adapter) -> Self {
        let mut merged = self.clone();
        for (layer, module, w) in adapter.iter() {
            let scaling = adapter.scaling(w).value();
            let ([rank, input], [output, _]) = (w.a.dims(), w.b.dims());
            let (a, b) = (super::values(w.a.clone()), super::values(w.b.clone()));
            let weight = merged.weight(layer, module);
            for o in 0..output {
                for i in 0..input {
                    let sum: f64 =
                        (0..rank).map(|r| f64::from(b[o * rank + r]) * f64::from(a[r * input + i])).sum::<f64>();
                    weight[o * input + i] += (scaling * sum) as f32;
                }
            }
        }
        merged
    }
}

/// The block of a layer that a module belongs to.
fn block(module: &str) -> &'static str {
    if ["gate_proj", "up_proj", "down_proj", "gate_up_proj"].contains(&module) { "mlp" } else { "self_attn" }
}

/// `[out, in]`.
fn module_shape(s: &Shape, module: &str) -> [usize; 2] {
    let (q, kv) = (s.kv_heads * s.group * 2 * s.half_head, s.kv_heads * 2 * s.half_head);
    match module {
        "q_proj" => [q, s.hidden],
        "k_proj" | "v_proj" => [kv, s.hidden],
        "qkv_proj" => [q + 2 * kv, s.hidden],
        "gate_up_proj" => [2 * s.inter, s.hidden],
        "o_proj" => [s.hidden, q],
        "down_proj" => [s.hidden, s.inter],
        _ => [s.inter, s.hidden],
    }
}

fn gguf_name(name: &str) -> String {
    let renamed = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    renamed.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}
