//! One decoder layer: attention and gated MLP, each with its norms, each module with its adapters.

use burn::tensor::{Device, Tensor, activation};
use t2l_core::ops::{AttentionMask, Bf16Weight};
use t2l_core::{AdapterBatch, ops};

use super::rope::Rotations;
use super::{Activation, DecoderConfig, Products};
use crate::BackboneError;
use crate::cache::KvCache;
use crate::weights::{WeightType, Weights};

/// Weights of one layer, `[out, in]`. Projections with one input are one matrix.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// q, k, v.
    qkv: Linear,
    output: Linear,
    /// gate, up.
    gate_up: Linear,
    down: Linear,
    input_norm: Tensor<1>,
    /// After attention where the family has one (Gemma).
    attention_norm: Option<Tensor<1>>,
    mlp_norm: Tensor<1>,
    /// After the MLP where the family has one (Gemma).
    output_norm: Option<Tensor<1>>,
    /// Of every query and key head.
    head_norms: Option<(Tensor<1>, Tensor<1>)>,
}

#[derive(Debug, Clone)]
struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// In the type it was loaded as.
    Held(Box<Tensor<2>>),
    /// For training with products in bf16.
    Packed(Bf16Weight),
}

impl Linear {
    fn load(
        weights: &Weights,
        modules: &[(String, usize)],
        input: usize,
        bias: bool,
        held: WeightType,
        device: &Device,
    ) -> Result<Self, BackboneError> {
        let named = |kind: &str| -> Vec<(String, usize)> {
            modules.iter().map(|(name, out)| (format!("{name}.{kind}"), *out)).collect()
        };
        let weight = weights.stacked(&named("weight"), input, held, device)?;
        let bias = match bias {
            true => {
                let parts = named("bias").into_iter().map(|(name, out)| weights.tensor(&name, [out], device));
                Some(Tensor::cat(parts.collect::<Result<_, _>>()?, 0))
            }
            false => None,
        };
        Ok(Self { weight: Weight::Held(Box::new(weight)), bias })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = match &self.weight {
            Weight::Held(weight) => ops::linear(x, weight),
            Weight::Packed(packed) => ops::linear_bf16(x, packed),
        };
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }

    fn for_training(&self, products: Products) -> Self {
        Self {
            weight: match &self.weight {
                Weight::Held(weight) => {
                    let packed = if products == Products::Bf16 { Bf16Weight::new(weight) } else { None };
                    packed
                        .map_or_else(|| Weight::Held(Box::new(Tensor::from_inner((**weight).clone()))), Weight::Packed)
                }
                Weight::Packed(packed) => Weight::Packed(packed.clone()),
            },
            bias: self.bias.clone().map(Tensor::from_inner),
        }
    }
}

/// A norm's weight, with Gemma's offset folded in.
pub(super) fn norm(
    config: &DecoderConfig,
    weights: &Weights,
    name: &str,
    width: usize,
    device: &Device,
) -> Result<Tensor<1>, BackboneError> {
    let weight: Tensor<1> = weights.tensor(name, [width], device)?;
    Ok(if config.norm_plus_one { weight.add_scalar(1.0) } else { weight })
}

impl Layer {
    pub(super) fn load(
        config: &DecoderConfig,
        weights: &Weights,
        layer: usize,
        held: WeightType,
        device: &Device,
    ) -> Result<Self, BackboneError> {
        let c = config;
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let hidden_norm = |rest: &str| norm(c, weights, &name(rest), c.hidden_size, device);
        let head_norm = |rest: &str| norm(c, weights, &name(rest), c.head_dim, device);
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let linear = |modules: &[(&str, usize)], input: usize, bias: bool| {
            let modules: Vec<(String, usize)> = modules.iter().map(|(m, out)| (name(m), *out)).collect();
            Linear::load(weights, &modules, input, bias, held, device)
        };
        let inter = c.intermediate_size;
        let (qkv, gate_up): (&[_], &[_]) = match c.fused {
            true => (&[("self_attn.qkv_proj", q + 2 * kv)], &[("mlp.gate_up_proj", 2 * inter)]),
            false => (
                &[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
                &[("mlp.gate_proj", inter), ("mlp.up_proj", inter)],
            ),
        };
        Ok(Self {
            qkv: linear(qkv, c.hidden_size, c.qkv_bias)?,
            output: linear(&[("self_attn.o_proj", c.hidden_size)], q, c.output_bias)?,
            gate_up: linear(gate_up, c.hidden_size, c.mlp_bias)?,
            down: linear(&[("mlp.down_proj", c.hidden_size)], inter, c.mlp_bias)?,
            input_norm: hidden_norm("input_layernorm.weight")?,
            attention_norm: match c.post_norms {
                true => Some(hidden_norm("post_attention_layernorm.weight")?),
                false => None,
            },
            mlp_norm: hidden_norm(match c.post_norms {
                true => "pre_feedforward_layernorm.weight",
                false => "post_attention_layernorm.weight",
            })?,
            output_norm: match c.post_norms {
                true => Some(hidden_norm("post_feedforward_layernorm.weight")?),
                false => None,
            },
            head_norms: match c.qk_norm {
                true => Some((head_norm("self_attn.q_norm.weight")?, head_norm("self_attn.k_norm.weight")?)),
                false => None,
            },
        })
    }

    /// What attention reads of the stream.
    pub(super) fn attention_input(&self, config: &DecoderConfig, stream: Tensor<3>) -> Tensor<3> {
        ops::rms_norm(stream, &self.input_norm, config.norm_eps)
    }

    /// The weight of attention's output projection, in the type it is held in; `None` once it is packed.
    pub(super) fn output_weight(&self) -> Option<&Tensor<2>> {
        match &self.output.weight {
            Weight::Held(weight) => Some(weight),
            Weight::Packed(_) => None,
        }
    }

    /// Whether the products are in bf16.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.qkv.weight, Weight::Packed(_))
    }

    pub(super) fn for_training(&self, products: Products) -> Self {
        let norm = |n: &Tensor<1>| Tensor::from_inner(n.clone());
        Self {
            qkv: self.qkv.for_training(products),
            output: self.output.for_training(products),
            gate_up: self.gate_up.for_training(products),
            down: self.down.for_training(products),
            input_norm: norm(&self.input_norm),
            attention_norm: self.attention_norm.as_ref().map(norm),
            mlp_norm: norm(&self.mlp_norm),
            output_norm: self.output_norm.as_ref().map(norm),
            head_norms: self.head_norms.as_ref().map(|(q, k)| (norm(q), norm(k))),
        }
    }

    /// What the heads read of the stream before this layer: `[batch, tokens, heads · head size]`.
    pub(super) fn attended(
        &self,
        config: &DecoderConfig,
        stream: &Tensor<3>,
        starts: &[usize],
        rotations: &Rotations,
        cache: Option<&mut KvCache>,
        worn: &Worn<'_>,
    ) -> Tensor<3> {
        let x = self.attention_input(config, stream.clone());
        let [batch, tokens, _] = x.dims();
        let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
        let window = config.window_of(worn.layer);
        let mask = AttentionMask { starts: starts.to_vec(), window };
        let (cos, sin) = rotations.of(window.is_some());
        let mut qkv = self.qkv.forward(x.clone());
        for (module, first) in [("qkv_proj", 0), ("q_proj", 0), ("k_proj", heads), ("v_proj", heads + kv_heads)] {
            qkv = worn.add(module, qkv, first * head_dim, &x);
        }
        let whole_heads = config.rotary_dim == head_dim;
        let plain = cache.is_none() && self.head_norms.is_none() && config.attention_softcap.is_none() && whole_heads;
        if plain {
            ops::rope_attention(qkv, cos, sin, [heads, kv_heads], &mask, config.attention_scale)
        } else {
            let part = |first: usize, heads: usize| -> Tensor<4> {
                qkv.clone().narrow(2, first * head_dim, heads * head_dim).reshape([batch, tokens, heads, head_dim])
            };
            let (mut q, mut k, mut v) = (part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads));
            if let Some((q_norm, k_norm)) = &self.head_norms {
                q = ops::rms_norm(q, q_norm, config.norm_eps);
                k = ops::rms_norm(k, k_norm, config.norm_eps);
            }
            let turn = |x: Tensor<4>| match config.rotary_dim {
                all if all == head_dim => ops::rope(x, cos, sin),
                some => {
                    let turned = ops::rope(x.clone().narrow(3, 0, some), cos, sin);
                    Tensor::cat(vec![turned, x.narrow(3, some, head_dim - some)], 3)
                }
            };
            let q = turn(q);
            k = turn(k);
            if let Some(cache) = cache {
                (k, v) = cache.append(worn.layer, k, v);
            }
            let attended = ops::attention(q, k, v, &mask, config.attention_scale, config.attention_softcap);
            attended.reshape([batch, tokens, heads * head_dim])
        }
    }

    /// The stream after this layer, of the one before it and what [`Layer::attended`] gave: attention's output projection,
    /// and the MLP.
    pub(super) fn after_attention(
        &self,
        config: &DecoderConfig,
        stream: Tensor<3>,
        attended: Tensor<3>,
        worn: &Worn<'_>,
    ) -> Tensor<3> {
        let mut attended = worn.add("o_proj", self.output.forward(attended.clone()), 0, &attended);
        if let Some(norm) = &self.attention_norm {
            attended = ops::rms_norm(attended, norm, config.norm_eps);
        }
        let stream = stream + attended;
        let x = ops::rms_norm(stream.clone(), &self.mlp_norm, config.norm_eps);
        let mut out = self.mlp(config, x, worn);
        if let Some(norm) = &self.output_norm {
            out = ops::rms_norm(out, norm, config.norm_eps);
        }
        stream + out
    }

    fn mlp(&self, config: &DecoderConfig, x: Tensor<3>, worn: &Worn<'_>) -> Tensor<3> {
        let width = config.intermediate_size;
        let mut gate_up = self.gate_up.forward(x.clone());
        for (module, first) in [("gate_up_proj", 0), ("gate_proj", 0), ("up_proj", width)] {
            gate_up = worn.add(module, gate_up, first, &x);
        }
        let gated = match config.activation {
            Activation::Silu => ops::silu_gate(gate_up),
            Activation::Gelu => {
                activation::gelu(gate_up.clone().narrow(2, 0, width)).mul(gate_up.narrow(2, width, width))
            }
            Activation::GeluTanh => {
                activation::gelu_approximate(gate_up.clone().narrow(2, 0, width)).mul(gate_up.narrow(2, width, width))
            }
        };
        let out = self.down.forward(gated.clone());
        worn.add("down_proj", out, 0, &gated)
    }
}

/// What the rows wear in one layer.
pub(super) struct Worn<'a> {
    pub(super) adapters: &'a AdapterBatch,
    pub(super) layer: usize,
}

impl Worn<'_> {
    /// Adds a module's updates to its columns of `y`.
    fn add(&self, module: &str, y: Tensor<3>, first: usize, x: &Tensor<3>) -> Tensor<3> {
        let Some(factors) = self.adapters.get(self.layer, module) else { return y };
        let place = (self.layer as u64) << 8 | module.bytes().fold(0, |hash, b| (hash * 31 + u64::from(b)) & 0xff);
        ops::low_rank(y, first, x.clone(), factors, self.adapters.input_dropout, place)
    }
}
