//! Keys and values of tokens already seen.

use burn::tensor::{Device, Tensor, TensorData};

use crate::decoder::DecoderConfig;

/// The key/value cache of one batch: per layer `[batch, capacity, kv_heads, head_dim]`, filled from the left.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    length: usize,
}

impl KvCache {
    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn new(config: &DecoderConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, capacity, config.kv_heads, config.head_dim];
        let empty = || Some((Tensor::zeros(shape, device), Tensor::zeros(shape, device)));
        Self { layers: (0..config.layers).map(|_| empty()).collect(), length: 0 }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.layers.first().and_then(Option::as_ref).map_or(0, |(k, _)| k.dims()[1])
    }

    /// Appends a layer's new keys and values and gives all of them. The caller checked that they fit.
    pub(crate) fn append(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, tokens, heads, width] = k.dims();
        let end = self.length + tokens;
        let place = [0..batch, self.length..end, 0..heads, 0..width];
        // Taken out of its slot so that the tensor is uniquely owned and written in place.
        let Some((keys, values)) = self.layers[layer].take() else { return (k, v) };
        let (keys, values) = (keys.slice_assign(place.clone(), k), values.slice_assign(place, v));
        let seen = (keys.clone().narrow(1, 0, end), values.clone().narrow(1, 0, end));
        self.layers[layer] = Some((keys, values));
        seen
    }

    /// A cache whose row `i` is a copy of row `rows[i]` of this one, with room for `extra` more tokens.
    pub fn select(&self, rows: &[usize], extra: usize) -> Self {
        let copy = |x: &Tensor<4>| -> Tensor<4> {
            let [_, _, heads, width] = x.dims();
            let device = x.device();
            let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
            let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &device);
            let kept = x.clone().narrow(1, 0, self.length).select(0, index);
            Tensor::cat(vec![kept, Tensor::zeros([rows.len(), extra, heads, width], &device)], 1)
        };
        let layers = self.layers.iter().map(|l| l.as_ref().map(|(k, v)| (copy(k), copy(v)))).collect();
        Self { layers, length: self.length }
    }

    /// Counts the tokens appended to every layer.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}
