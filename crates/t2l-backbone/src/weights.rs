//! Where a decoder's weights come from: safetensors shards or GGUF, under one set of names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Element, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use t2l_core::files::read_at_most;
use t2l_gguf::{GgufFile, map_file};

use crate::BackboneError;
use crate::decoder::{DecoderConfig, random_values};

/// Longest config.json or index of shards that is read.
pub(crate) const JSON_LIMIT: u64 = 64 << 20;

/// Named weights of one model, read on demand as f32.
pub(crate) enum Weights {
    /// One safetensors file or several.
    Safetensors {
        /// Mapped files.
        shards: Vec<(PathBuf, Mmap)>,
        /// Which shard holds a tensor.
        places: BTreeMap<String, usize>,
        /// Where the model lies, for errors.
        folder: PathBuf,
    },
    /// A GGUF file; llama.cpp's order of rotated rows is undone.
    Gguf(Box<GgufFile>, Box<DecoderConfig>),
    /// Drawn from a seed.
    Random(u64),
}

impl Weights {
    /// Opens a folder in Hugging Face's layout or a GGUF file, and tells the shape of the model in it.
    pub(crate) fn open(path: &Path) -> Result<(DecoderConfig, Self), BackboneError> {
        if path.is_dir() {
            return Ok((DecoderConfig::from_json(&path.join("config.json"))?, Self::open_folder(path)?));
        }
        Self::of_gguf(GgufFile::open(path)?)
    }

    /// As [`Weights::open`], of an open file.
    pub(crate) fn of_gguf(file: GgufFile) -> Result<(DecoderConfig, Self), BackboneError> {
        let config = DecoderConfig::from_gguf(&file)?;
        Ok((config.clone(), Self::Gguf(Box::new(file), Box::new(config))))
    }

    /// Opens model.safetensors, or the shards that model.safetensors.index.json lists.
    fn open_folder(folder: &Path) -> Result<Self, BackboneError> {
        let index = folder.join("model.safetensors.index.json");
        let mut names = vec!["model.safetensors".to_owned()];
        if index.exists() {
            let bytes = read_at_most(&index, JSON_LIMIT).map_err(BackboneError::io(&index))?;
            let json: serde_json::Value =
                serde_json::from_slice(&bytes).map_err(|e| BackboneError::config(&index, e.to_string()))?;
            let map = json.get("weight_map").and_then(serde_json::Value::as_object);
            let map = map.ok_or_else(|| BackboneError::config(&index, "has no weight_map"))?;
            names = map.values().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            names.sort();
            names.dedup();
            if let Some(name) = names.iter().find(|n| n.contains(['/', '\\']) || n.as_str() == "..") {
                return Err(BackboneError::config(&index, format!("shard {name:?} is not a file name")));
            }
        }
        let mut shards = Vec::new();
        let mut places = BTreeMap::new();
        for name in names {
            let path = folder.join(name);
            let map = map_file(&path).map_err(BackboneError::io(&path))?;
            let header = SafeTensors::deserialize(&map).map_err(|e| BackboneError::config(&path, e.to_string()))?;
            for tensor in header.names() {
                if places.insert(tensor.to_owned(), shards.len()).is_some() {
                    return Err(BackboneError::tensor(&path, tensor, "stands in two shards"));
                }
            }
            shards.push((path, map));
        }
        Ok(Self::Safetensors { shards, places, folder: folder.to_owned() })
    }

    /// Where the weights come from, for errors.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Safetensors { folder, .. } => folder,
            Self::Gguf(file, _) => file.path(),
            Self::Random(_) => Path::new("random weights"),
        }
    }

    /// Values of a tensor of a known shape. All must be finite.
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, BackboneError> {
        let error = |reason: String| BackboneError::tensor(self.path(), name, reason);
        let (found, values) = match self {
            Self::Safetensors { shards, places, .. } => {
                let (path, map) = places.get(name).map(|&i| &shards[i]).ok_or_else(|| error("is missing".into()))?;
                let tensors = SafeTensors::deserialize(map).map_err(|e| BackboneError::config(path, e.to_string()))?;
                let view = tensors.tensor(name).map_err(|e| error(e.to_string()))?;
                check_shape(view.shape(), shape).map_err(error)?;
                let data = view.data();
                let values = match view.dtype() {
                    Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                    Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
                    Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
                    other => return Err(error(format!("has type {other:?}; f32, f16 and bf16 are read"))),
                };
                (view.shape().to_vec(), values)
            }
            Self::Gguf(file, config) => {
                let gguf = gguf_name(name, config.post_norms);
                let info = file.tensor(&gguf).ok_or_else(|| error(format!("({gguf}) is missing")))?;
                check_shape(&info.shape, shape).map_err(error)?;
                let mut values = file.read_f32(&gguf)?;
                for (module, heads) in [("attn_q.", config.heads), ("attn_k.", config.kv_heads)] {
                    // Other architectures rotate halves in llama.cpp too, and keep their rows as they are.
                    if config.family == "llama" && gguf.contains(module) {
                        values = half_split_rows(&values, heads, config.head_dim);
                    }
                }
                (info.shape.clone(), values)
            }
            Self::Random(seed) => (shape.to_vec(), random_values(*seed, name, shape)),
        };
        check_shape(&found, shape).map_err(error)?;
        if let Some(i) = values.iter().position(|x: &f32| !x.is_finite()) {
            return Err(error(format!("value {i} is {}", values[i])));
        }
        Ok(values)
    }

    /// A tensor on a device.
    pub(crate) fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, BackboneError> {
        Ok(Tensor::from_data(TensorData::new(self.values(name, &shape)?, shape), device))
    }

    /// Several `[out, in]` weights under one another, as one.
    pub(crate) fn stacked(
        &self,
        names: &[(String, usize)],
        input: usize,
        held: WeightType,
        device: &Device,
    ) -> Result<Tensor<2>, BackboneError> {
        match held {
            WeightType::F32 => self.stacked_as(names, input, device, Ok),
            WeightType::F16 => {
                self.stacked_as(names, input, device, |values| rounded(values, f16::from_f32, f16::is_finite))
            }
            WeightType::Bf16 => {
                self.stacked_as(names, input, device, |values| rounded(values, bf16::from_f32, bf16::is_finite))
            }
        }
    }

    /// The same in the type that `held` turns values into; fails with one that it cannot hold.
    fn stacked_as<E: Element>(
        &self,
        names: &[(String, usize)],
        input: usize,
        device: &Device,
        held: impl Fn(Vec<f32>) -> Result<Vec<E>, f32>,
    ) -> Result<Tensor<2>, BackboneError> {
        let mut values: Vec<E> = Vec::new();
        for (name, out) in names {
            let part = held(self.values(name, &[*out, input])?).map_err(|value| {
                BackboneError::tensor(self.path(), name, format!("holds {value}, which is beyond {:?}", E::dtype()))
            })?;
            values.extend(part);
        }
        let rows = names.iter().map(|n| n.1).sum();
        Ok(Tensor::from_data(TensorData::new(values, [rows, input]), (device, E::dtype())))
    }
}

/// Values in a smaller type, or the first that it cannot hold.
fn rounded<E: Copy>(values: Vec<f32>, from: impl Fn(f32) -> E, is_finite: impl Fn(E) -> bool) -> Result<Vec<E>, f32> {
    values.into_iter().map(|x| Some(from(x)).filter(|&half| is_finite(half)).ok_or(x)).collect()
}

/// How the weights of a model's linear modules and its embeddings are held. Everything is computed in f32, except that a
/// trainer may ask for products in bf16 ([`Products`](crate::Products)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Four bytes a weight.
    #[default]
    F32,
    /// Two bytes a weight, up to 65,504; rounds weights that were not in f16 before.
    F16,
    /// Two bytes a weight; rounds weights that were not in bf16 before.
    Bf16,
}

fn check_shape(found: &[usize], expected: &[usize]) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("has shape {found:?}, the configuration asks for {expected:?}"))
    }
}

/// llama.cpp interleaves the two halves of every rotated head: row `2i` is half-split row `i`, row `2i + 1` is `i + d/2`.
fn half_split_rows(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for parity in 0..2 {
            for row in head.chunks_exact(width).skip(parity).step_by(2) {
                out.extend_from_slice(row);
            }
        }
    }
    out
}

/// llama.cpp's name of a tensor that checkpoints call `name`; `post_norms`: of a family with norms after its modules,
/// whose names for norms mean other places.
fn gguf_name(name: &str, post_norms: bool) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let mapped = match name {
        "embed_tokens.weight" => return "token_embd.weight".into(),
        "norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        other => other.strip_prefix("layers.").and_then(|rest| rest.split_once('.')),
    };
    let Some((layer, rest)) = mapped else { return name.to_owned() };
    let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, "weight"));
    let module = match module {
        "self_attn.q_proj" => "attn_q",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        // Gate and up under one another go by the name of the second.
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if post_norms => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        other => other,
    };
    format!("blk.{layer}.{module}.{kind}")
}
