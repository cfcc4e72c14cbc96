//! One decoder for every family: pre-norm attention and gated MLP, in the switches of [`DecoderConfig`].

mod config;
mod layer;
mod pass;
mod random;
mod rope;

use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use t2l_core::{AdapterBatch, AdapterLayout, TargetModule, ops};
use t2l_gguf::GgufFile;

pub use config::{Activation, DecoderConfig, FAMILIES, RopeScaling, Sliding};
use layer::{Layer, Worn};
pub use pass::{LayerPass, OneLayer};
pub(crate) use random::random_values;
use rope::Rotations;

use crate::BackboneError;
use crate::cache::KvCache;
use crate::weights::{WeightType, Weights};

/// Most scores of attention that one layer may have at a time: 64 GiB as f32.
const MOST_SCORES: u64 = 1 << 34;

/// How a frozen model's layers multiply while something is trained through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// In f32.
    #[default]
    F32,
    /// Weights, inputs and gradients rounded to bf16 for the product, sums in f32; attention, norms, the head and the
    /// adapters stay in f32.
    Bf16,
}

/// A frozen decoder language model.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    embeddings: Tensor<2>,
    layers: Vec<Layer>,
    norm: Tensor<1>,
    /// `None` when tied to the embeddings.
    head: Option<Tensor<2>>,
}

impl Decoder {
    /// Loads a model from a folder (config.json and safetensors) or a GGUF file, its weights held in f32.
    ///
    /// # Errors
    /// An unsupported family, or weights that do not fit the configuration.
    pub fn load(path: &Path, device: &Device) -> Result<Self, BackboneError> {
        Self::load_as(path, WeightType::F32, device)
    }

    /// As [`Decoder::load`], with the weights held in another type.
    ///
    /// # Errors
    /// As [`Decoder::load`], and weights that the type cannot hold.
    pub fn load_as(path: &Path, held: WeightType, device: &Device) -> Result<Self, BackboneError> {
        let (config, weights) = Weights::open(path)?;
        Self::from_weights(config, &weights, held, device)
    }

    /// Loads a model from an open GGUF file.
    ///
    /// # Errors
    /// As [`Decoder::load_as`].
    pub fn from_gguf(file: GgufFile, held: WeightType, device: &Device) -> Result<Self, BackboneError> {
        let (config, weights) = Weights::of_gguf(file)?;
        Self::from_weights(config, &weights, held, device)
    }

    fn from_weights(
        config: DecoderConfig,
        weights: &Weights,
        held: WeightType,
        device: &Device,
    ) -> Result<Self, BackboneError> {
        let table =
            |name: &str| weights.stacked(&[(name.to_owned(), config.vocab_size)], config.hidden_size, held, device);
        let embeddings = table("model.embed_tokens.weight")?;
        let head = match config.tied {
            true => None,
            false => Some(table("lm_head.weight")?),
        };
        let layers =
            (0..config.layers).map(|i| Layer::load(&config, weights, i, held, device)).collect::<Result<_, _>>()?;
        let norm = layer::norm(&config, weights, "model.norm.weight", config.hidden_size, device)?;
        Ok(Self { config, embeddings, layers, norm, head })
    }

    /// The same model as constants of the autodiff device: gradients flow through it, none are kept for it.
    ///
    /// [`Products::Bf16`] holds the layers' weights as two packed copies in bf16, one for each direction, and no longer as
    /// they were; where the device has no such products they stay in f32, as [`Decoder::products`] then says. Layers that
    /// are packed already stay so.
    #[must_use]
    pub fn for_training(&self, products: Products) -> Self {
        Self {
            config: self.config.clone(),
            embeddings: Tensor::from_inner(self.embeddings.clone()),
            layers: self.layers.iter().map(|layer| layer.for_training(products)).collect(),
            norm: Tensor::from_inner(self.norm.clone()),
            head: self.head.clone().map(Tensor::from_inner),
        }
    }

    /// How the layers multiply.
    pub fn products(&self) -> Products {
        if self.layers.iter().any(Layer::is_packed) { Products::Bf16 } else { Products::F32 }
    }

    /// Shape and switches.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embeddings.device()
    }

    /// Every linear module of a layer that an adapter may attach to, fused ones as the parts they are made of.
    pub fn linear_modules(&self) -> Vec<TargetModule> {
        let c = &self.config;
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        [
            ("q_proj", c.hidden_size, q),
            ("k_proj", c.hidden_size, kv),
            ("v_proj", c.hidden_size, kv),
            ("o_proj", q, c.hidden_size),
            ("gate_proj", c.hidden_size, c.intermediate_size),
            ("up_proj", c.hidden_size, c.intermediate_size),
            ("down_proj", c.intermediate_size, c.hidden_size),
        ]
        .map(|(name, input, output)| TargetModule::new(name, input, output))
        .to_vec()
    }

    /// [`Decoder::linear_modules`], and the fused ones of a checkpoint that has them.
    fn attachable(&self) -> Vec<TargetModule> {
        let c = &self.config;
        let mut modules = self.linear_modules();
        if c.fused {
            let qkv = (c.heads + 2 * c.kv_heads) * c.head_dim;
            modules.push(TargetModule::new("qkv_proj", c.hidden_size, qkv));
            modules.push(TargetModule::new("gate_up_proj", c.hidden_size, 2 * c.intermediate_size));
        }
        modules
    }

    /// The layout of adapters on the named modules of every layer, in the given order.
    ///
    /// # Errors
    /// A module that this model does not have.
    pub fn layout(&self, base_model: &str, modules: &[impl AsRef<str>]) -> Result<AdapterLayout, BackboneError> {
        let known = self.attachable();
        let find = |name: &str| {
            known.iter().find(|m| m.name == name).cloned().ok_or_else(|| BackboneError::NoSuchModule {
                module: name.to_owned(),
                known: known.iter().map(|m| m.name.clone()).collect(),
            })
        };
        let modules = modules.iter().map(|m| find(m.as_ref())).collect::<Result<_, _>>()?;
        Ok(AdapterLayout { base_model: base_model.to_owned(), layers: self.config.layers, modules })
    }

    /// The output head: `[vocabulary, hidden]`.
    pub fn lm_head(&self) -> &Tensor<2> {
        self.head.as_ref().unwrap_or(&self.embeddings)
    }

    /// Embeds token ids `[batch, tokens]`: `[batch, tokens, hidden]`, scaled where the family does.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        let hidden = self.config.hidden_size;
        let embedded = self
            .embeddings
            .clone()
            .select(0, ids.reshape([batch * tokens]))
            .cast(DType::F32)
            .reshape([batch, tokens, hidden]);
        if self.config.scale_embeddings { embedded.mul_scalar((hidden as f64).sqrt()) } else { embedded }
    }

    /// Runs all layers: `[batch, tokens, hidden]` in, the stream after the final norm out.
    ///
    /// `starts`: left-padding positions of each row, counted from the first token of the cache. Right padding needs
    /// nothing: no real token sees it. With a cache the tokens follow those it holds.
    ///
    /// Where RoPE frequencies depend on the length (dynamic, LongRoPE) it is that of the longest row, right padding
    /// included, or [`KvCache::reach`] where that is more; keys in a cache keep the frequencies of their time.
    ///
    /// # Errors
    /// Adapters that do not fit, starts for another number of rows, a cache of another shape or without room, rows too long
    /// for their scores.
    pub fn hidden(
        &self,
        embeddings: Tensor<3>,
        starts: &[usize],
        cache: Option<&mut KvCache>,
        adapters: &AdapterBatch,
    ) -> Result<Tensor<3>, BackboneError> {
        self.run(embeddings, starts, cache, adapters, |_, _, _| ())
    }

    /// As [`Decoder::hidden`] without a cache, giving the stream before every layer and after the final norm.
    ///
    /// # Errors
    /// Adapters that do not fit.
    pub fn hidden_states(
        &self,
        embeddings: Tensor<3>,
        starts: &[usize],
        adapters: &AdapterBatch,
    ) -> Result<Vec<Tensor<3>>, BackboneError> {
        let mut states = Vec::new();
        let last = self.run(embeddings, starts, None, adapters, |_, stream, _| states.push(stream.clone()))?;
        states.push(last);
        Ok(states)
    }

    /// What every layer's attention projects to queries, keys and values, without adapters: `[batch, tokens, hidden]` each.
    ///
    /// # Errors
    /// Starts for another number of rows.
    pub fn attention_inputs(&self, embeddings: Tensor<3>, starts: &[usize]) -> Result<Vec<Tensor<3>>, BackboneError> {
        let streams = self.hidden_states(embeddings, starts, &AdapterBatch::none(starts.len()))?;
        let inputs = self.layers.iter().zip(streams);
        Ok(inputs.map(|(layer, stream)| layer.attention_input(&self.config, stream)).collect())
    }

    /// Gives what attention hands to its output projection in each layer from `first` on: `[batch, tokens, heads · head size]`.
    ///
    /// Rows begin at the first token; padding on the right is seen by no real token.
    ///
    /// # Errors
    /// Adapters that do not fit, rows too long for their scores.
    pub fn attention_outputs(
        &self,
        embeddings: Tensor<3>,
        adapters: &AdapterBatch,
        first: usize,
        mut give: impl FnMut(Tensor<3>),
    ) -> Result<(), BackboneError> {
        let starts = vec![0; embeddings.dims()[0]];
        self.run(embeddings, &starts, None, adapters, |i, _, attended| {
            if i >= first {
                give(attended.clone());
            }
        })?;
        Ok(())
    }

    /// The weight of a layer's output projection, `o_proj`, in f32: `[hidden, heads · head size]`. `None` where there is no
    /// such layer, or its weights are packed for training.
    pub fn output_weight(&self, layer: usize) -> Option<Tensor<2>> {
        Some(self.layers.get(layer)?.output_weight()?.clone().cast(DType::F32))
    }

    /// Logits of hidden states: `[batch, tokens, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let logits = ops::linear(hidden, self.lm_head());
        match self.config.logit_softcap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// Negative log-likelihood of labels after hidden states, without ever keeping the logits: `[n]`.
    ///
    /// `hidden`: `[n, width]`, `labels`: `[n]`. `smoothing` spreads that share of the target evenly over the vocabulary.
    pub fn label_nll(&self, hidden: Tensor<2>, labels: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
        ops::label_nll(hidden, self.lm_head(), labels, smoothing, self.config.logit_softcap)
    }

    /// All layers and the final norm. `visit` sees each layer's number, the stream before it, and what its attention hands
    /// to the output projection.
    fn run(
        &self,
        embeddings: Tensor<3>,
        starts: &[usize],
        mut cache: Option<&mut KvCache>,
        adapters: &AdapterBatch,
        mut visit: impl FnMut(usize, &Tensor<3>, &Tensor<3>),
    ) -> Result<Tensor<3>, BackboneError> {
        let [batch, tokens, _] = embeddings.dims();
        if starts.len() != batch {
            return Err(BackboneError::Prompt(format!("{} row starts for {batch} rows", starts.len())));
        }
        self.check_fit(adapters, batch)?;
        let past = cache.as_ref().map_or(0, |c| c.len());
        if let Some(cache) = &cache {
            if !cache.suits(&self.config) || cache.rows() != batch {
                let reason = format!("a cache of {} rows, or of another model, for {batch} rows", cache.rows());
                return Err(BackboneError::Prompt(reason));
            }
            if past + tokens > cache.capacity() {
                return Err(BackboneError::TooLong { tokens: past + tokens, limit: cache.capacity() });
            }
        }
        self.check_length(batch, tokens, past)?;
        let reach = (past + tokens).saturating_sub(starts.iter().min().copied().unwrap_or(0));
        let longest = reach.max(cache.as_ref().map_or(0, |c| c.reach()));
        let rotations = Rotations::new(&self.config, starts, past, tokens, longest, &self.device());
        let mut stream = embeddings;
        for (i, layer) in self.layers.iter().enumerate() {
            let worn = Worn { adapters, layer: i };
            let attended = layer.attended(&self.config, &stream, starts, &rotations, cache.as_deref_mut(), &worn);
            visit(i, &stream, &attended);
            stream = layer.after_attention(&self.config, stream, attended, &worn);
        }
        if let Some(cache) = cache {
            cache.advance(tokens, reach);
        }
        Ok(self.final_norm(stream))
    }

    /// The norm after the last layer. Any shape that ends in the hidden size.
    pub fn final_norm<const D: usize>(&self, stream: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(stream, &self.norm, self.config.norm_eps)
    }

    /// Refuses a pass whose attention has more scores than are held: their number grows with the square of the length.
    pub(crate) fn check_length(&self, rows: usize, tokens: usize, past: usize) -> Result<(), BackboneError> {
        let (reach, heads) = (past.saturating_add(tokens), self.config.heads);
        let scores = [rows, heads, tokens, reach].iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
        if scores <= MOST_SCORES {
            return Ok(());
        }
        let limit = (MOST_SCORES / (rows as u64).saturating_mul(heads as u64).max(1)).isqrt() as usize;
        Err(BackboneError::TooLong { tokens: reach, limit })
    }

    fn check_fit(&self, adapters: &AdapterBatch, rows: usize) -> Result<(), BackboneError> {
        if adapters.is_empty() {
            return Ok(());
        }
        let (layers, modules) = (self.config.layers, self.attachable());
        Ok(adapters.check(rows, &AdapterLayout { base_model: String::new(), layers, modules })?)
    }
}
