//! The encoder stack: post-norm transformer layers, switched by [`EncoderConfig`], names as in the checkpoint.

use std::path::Path;

use burn::tensor::activation::{gelu, gelu_approximate, relu, silu};
use burn::tensor::module::{attention, layer_norm, linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::config::{Activation, EncoderConfig, Naming, Positions};
use crate::rope::Rope;
use crate::weights::{WeightFile, Weights};
use crate::{EncoderError, TokenBatch};

/// An encoder without tokenizer and pooling: token ids in, one vector per token out.
#[derive(Debug, Clone)]
pub struct BertModel {
    config: EncoderConfig,
    device: Device,
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Embeddings {
    words: Tensor<2>,
    positions: Option<Tensor<2>>,
    types: Option<Tensor<2>>,
    norm: Norm,
}

#[derive(Debug, Clone)]
struct Layer {
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    /// Up-projection; with a gate, its first half is "up" and its second half the gate.
    up: Linear,
    gated: bool,
    down: Linear,
    output_norm: Norm,
}

#[derive(Debug, Clone)]
struct Linear {
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

#[derive(Debug, Clone)]
struct Norm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}

impl BertModel {
    /// Loads `config.json` and `model.safetensors` of a folder.
    ///
    /// # Errors
    /// Files that are missing, unsupported or damaged; each error names the file and the tensor or setting.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, EncoderError> {
        let config = EncoderConfig::read(&folder.join("config.json"))?;
        let file = WeightFile::open(&folder.join("model.safetensors"))?;
        let weights = file.tensors(device)?;
        let embeddings = Embeddings::load(&weights, &config)?;
        let mut layers = Vec::new();
        for i in 0..config.layers {
            layers.push(Layer::load(&weights, &config, i)?);
        }
        Ok(Self { config, device: device.clone(), embeddings, layers })
    }

    /// Its switches.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Where its weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Vectors of all tokens after the last layer: `[rows, length, width]`. Those of padding mean nothing.
    ///
    /// # Errors
    /// Ids the model has no rows for, or more tokens than it has positions for.
    pub fn forward(&self, tokens: &TokenBatch) -> Result<Tensor<3>, EncoderError> {
        let (mut x, context) = self.start(tokens)?;
        for layer in &self.layers {
            x = layer.forward(x, &self.config, &context);
        }
        Ok(x)
    }

    /// The embeddings and the output of each layer, `layers + 1` tensors `[rows, length, width]`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn hidden_states(&self, tokens: &TokenBatch) -> Result<Vec<Tensor<3>>, EncoderError> {
        let (mut x, context) = self.start(tokens)?;
        let mut states = vec![x.clone()];
        for layer in &self.layers {
            x = layer.forward(x, &self.config, &context);
            states.push(x.clone());
        }
        Ok(states)
    }

    fn start(&self, tokens: &TokenBatch) -> Result<(Tensor<3>, Context), EncoderError> {
        let config = &self.config;
        tokens.check(config.vocab_size, config.type_vocab_size, config.position_limit())?;
        let context = Context {
            hidden_keys: tokens.hidden_keys(config.heads, &self.device),
            rope: match config.positions {
                Positions::Learned { .. } => None,
                Positions::Rotary { theta, ntk } => {
                    Some(Rope::new(config.head_dim(), theta, ntk, tokens.length(), &self.device))
                }
            },
        };
        Ok((self.embeddings.forward(tokens, config, &self.device), context))
    }
}

/// What all layers of one pass share.
struct Context {
    hidden_keys: Option<Tensor<4, Bool>>,
    rope: Option<Rope>,
}

impl Embeddings {
    fn load(weights: &Weights, config: &EncoderConfig) -> Result<Self, EncoderError> {
        let table =
            |name: &str, rows: usize| weights.get(&format!("embeddings.{name}.weight"), [rows, config.hidden_size]);
        Ok(Self {
            words: table("word_embeddings", config.vocab_size)?,
            positions: match config.positions {
                Positions::Learned { .. } => Some(table("position_embeddings", config.max_position_embeddings)?),
                Positions::Rotary { .. } => None,
            },
            types: match config.type_vocab_size {
                0 => None,
                rows => Some(table("token_type_embeddings", rows)?),
            },
            norm: Norm::load(weights, "embeddings.LayerNorm", config)?,
        })
    }

    fn forward(&self, tokens: &TokenBatch, config: &EncoderConfig, device: &Device) -> Tensor<3> {
        let (rows, length, width) = (tokens.rows(), tokens.length(), config.hidden_size);
        let lookup =
            |table: &Tensor<2>, ids: Tensor<1, Int>| table.clone().select(0, ids).reshape([rows, length, width]);
        let mut x = lookup(&self.words, tokens.ids(device));
        if let Some(types) = &self.types {
            x = match tokens.types(device) {
                Some(ids) => x + lookup(types, ids),
                None => x + types.clone().narrow(0, 0, 1).unsqueeze_dim::<3>(0),
            };
        }
        if let (Some(positions), Positions::Learned { first }) = (&self.positions, config.positions) {
            x = x + positions.clone().narrow(0, first, length).unsqueeze_dim::<3>(0);
        }
        self.norm.forward(x)
    }
}

impl Layer {
    fn load(weights: &Weights, config: &EncoderConfig, index: usize) -> Result<Self, EncoderError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let with_bias = |part: &str, inputs, outputs| Linear::load(weights, &name(part), inputs, outputs);
        let norm = |part: &str| Norm::load(weights, &name(part), config);
        let joined = |parts: [&str; 3]| -> Result<Linear, EncoderError> {
            let [q, k, v] = parts;
            Ok(Linear::side_by_side([
                with_bias(q, width, width)?,
                with_bias(k, width, width)?,
                with_bias(v, width, width)?,
            ]))
        };
        Ok(match config.naming {
            Naming::Bert => Self {
                qkv: joined(["attention.self.query", "attention.self.key", "attention.self.value"])?,
                output: with_bias("attention.output.dense", width, width)?,
                attention_norm: norm("attention.output.LayerNorm")?,
                up: with_bias("intermediate.dense", width, inner)?,
                gated: false,
                down: with_bias("output.dense", inner, width)?,
                output_norm: norm("output.LayerNorm")?,
            },
            Naming::Gte { packed_qkv } => Self {
                qkv: match packed_qkv {
                    true => with_bias("attention.qkv_proj", width, 3 * width)?,
                    false => joined(["attention.q_proj", "attention.k_proj", "attention.v_proj"])?,
                },
                output: with_bias("attention.o_proj", width, width)?,
                attention_norm: norm("attn_ln")?,
                up: Linear { weight: weights.linear(&name("mlp.up_gate_proj.weight"), width, 2 * inner)?, bias: None },
                gated: true,
                down: with_bias("mlp.down_proj", inner, width)?,
                output_norm: norm("mlp_ln")?,
            },
        })
    }

    fn forward(&self, x: Tensor<3>, config: &EncoderConfig, context: &Context) -> Tensor<3> {
        let x = self.attention_norm.forward(self.attend(x.clone(), config, context) + x);
        let up = self.up.forward(x.clone());
        let inner = if self.gated {
            let width = config.intermediate_size;
            up.clone().narrow(2, 0, width) * activate(config.activation, up.narrow(2, width, width))
        } else {
            activate(config.activation, up)
        };
        self.output_norm.forward(self.down.forward(inner) + x)
    }

    fn attend(&self, x: Tensor<3>, config: &EncoderConfig, context: &Context) -> Tensor<3> {
        let [rows, length, width] = x.dims();
        let qkv = self.qkv.forward(x);
        let part = |i: usize| {
            let heads =
                qkv.clone().narrow(2, i * width, width).reshape([rows, length, config.heads, config.head_dim()]);
            heads.swap_dims(1, 2)
        };
        let (mut q, mut k, v) = (part(0), part(1), part(2));
        if let Some(rope) = &context.rope {
            (q, k) = (rope.rotate(q), rope.rotate(k));
        }
        let seen = attention(q, k, v, context.hidden_keys.clone(), None, AttentionModuleOptions::default());
        self.output.forward(seen.swap_dims(1, 2).reshape([rows, length, width]))
    }
}

fn activate(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_approximate(x),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

impl Linear {
    fn load(weights: &Weights, name: &str, inputs: usize, outputs: usize) -> Result<Self, EncoderError> {
        Ok(Self {
            weight: weights.linear(&format!("{name}.weight"), inputs, outputs)?,
            bias: Some(weights.get(&format!("{name}.bias"), [outputs])?),
        })
    }

    /// One product in place of three.
    fn side_by_side(parts: [Self; 3]) -> Self {
        let weight = Tensor::cat(parts.iter().map(|p| p.weight.clone()).collect(), 1);
        let bias = Tensor::cat(parts.into_iter().filter_map(|p| p.bias).collect(), 0);
        Self { weight, bias: Some(bias) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(x, self.weight.clone(), self.bias.clone())
    }
}

impl Norm {
    fn load(weights: &Weights, name: &str, config: &EncoderConfig) -> Result<Self, EncoderError> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), [config.hidden_size])?,
            bias: weights.get(&format!("{name}.bias"), [config.hidden_size])?,
            eps: config.layer_norm_eps,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        layer_norm(x, self.weight.clone(), Some(self.bias.clone()), self.eps)
    }
}
