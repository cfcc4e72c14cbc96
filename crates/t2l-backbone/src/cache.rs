//! Keys and values of tokens already seen.

use burn::tensor::{Device, Tensor, TensorData};

use crate::decoder::DecoderConfig;

/// Tokens that a cache has room for at first; beyond them it doubles, so that a high limit alone costs no memory.
const FIRST: usize = 1024;

/// The key/value cache of one batch: per layer `[batch, room, kv_heads, head_dim]`, filled from the left.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    /// Batch, key/value heads, width of a head.
    shape: [usize; 3],
    length: usize,
    capacity: usize,
    /// Real tokens of the longest row that ever was in it, which may have left: RoPE that depends on the length goes by it.
    reach: usize,
}

impl KvCache {
    /// An empty cache for `batch` rows of up to `capacity` tokens. Memory is taken as tokens come.
    pub fn new(config: &DecoderConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let room = capacity.min(FIRST);
        let shape = [batch, room, config.kv_heads, config.head_dim];
        let empty = || Some((Tensor::zeros(shape, device), Tensor::zeros(shape, device)));
        Self {
            layers: (0..config.layers).map(|_| empty()).collect(),
            shape: [batch, config.kv_heads, config.head_dim],
            length: 0,
            capacity,
            reach: 0,
        }
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
        self.capacity
    }

    /// Real tokens of the longest row that it ever held, those counted that [`KvCache::select`] left out.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Whether it was made for a model of this shape.
    pub(crate) fn suits(&self, config: &DecoderConfig) -> bool {
        let [_, heads, width] = self.shape;
        self.layers.len() == config.layers && heads == config.kv_heads && width == config.head_dim
    }

    /// Appends a layer's new keys and values and gives all of them. The caller checked that they fit.
    pub(crate) fn append(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, tokens, heads, width] = k.dims();
        let end = self.length + tokens;
        let place = [0..batch, self.length..end, 0..heads, 0..width];
        // Taken out of its slot so that the tensor is uniquely owned and written in place.
        let Some((keys, values)) = self.layers[layer].take() else { return (k, v) };
        let (keys, values) = (self.grown(keys, end), self.grown(values, end));
        let (keys, values) = (keys.slice_assign(place.clone(), k), values.slice_assign(place, v));
        let seen = (keys.clone().narrow(1, 0, end), values.clone().narrow(1, 0, end));
        self.layers[layer] = Some((keys, values));
        seen
    }

    /// The same tensor with room for `end` tokens.
    fn grown(&self, x: Tensor<4>, end: usize) -> Tensor<4> {
        let [batch, room, heads, width] = x.dims();
        if end <= room {
            return x;
        }
        let room = end.max((2 * room).min(self.capacity));
        let larger = Tensor::zeros([batch, room, heads, width], &x.device());
        if self.length == 0 {
            return larger;
        }
        larger.slice_assign([0..batch, 0..self.length, 0..heads, 0..width], x.narrow(1, 0, self.length))
    }

    /// A cache whose row `i` is a copy of row `rows[i]` of this one, for up to `extra` more tokens. As with
    /// [`KvCache::new`], memory for most of them is taken as they come.
    ///
    /// # Panics
    /// A row that this cache does not have.
    pub fn select(&self, rows: &[usize], extra: usize) -> Self {
        let room = extra.min(FIRST);
        let copy = |x: &Tensor<4>| -> Tensor<4> {
            let [_, _, heads, width] = x.dims();
            let device = x.device();
            let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
            let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &device);
            let kept = x.clone().narrow(1, 0, self.length).select(0, index);
            Tensor::cat(vec![kept, Tensor::zeros([rows.len(), room, heads, width], &device)], 1)
        };
        let layers = self.layers.iter().map(|l| l.as_ref().map(|(k, v)| (copy(k), copy(v)))).collect();
        let [_, heads, width] = self.shape;
        Self {
            layers,
            shape: [rows.len(), heads, width],
            length: self.length,
            capacity: self.length.saturating_add(extra),
            reach: self.reach,
        }
    }

    /// Counts the tokens appended to every layer; the longest row now has `reach` real ones.
    pub(crate) fn advance(&mut self, tokens: usize, reach: usize) {
        self.length += tokens;
        self.reach = self.reach.max(reach);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    fn numbered(tokens: std::ops::Range<usize>, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = tokens.clone().flat_map(|t| [t as f32, t as f32 + 0.5]).collect();
        Tensor::from_data(TensorData::new(values, [1, tokens.len(), 1, 2]), device)
    }

    #[test]
    fn holds_what_was_appended_while_it_grows() {
        let device = Device::flex();
        let config = DecoderConfig { layers: 1, kv_heads: 1, head_dim: 2, ..DecoderConfig::smollm2_135m() };
        let mut cache = KvCache::new(&config, 1, usize::MAX / 2, &device);
        // Steps that stay inside the first room, cross it, and go beyond twice of it at once.
        for tokens in [1, FIRST - 2, 1, 1, 7, 5 * FIRST, 1] {
            let start = cache.len();
            let new = numbered(start..start + tokens, &device);
            let (k, v) = cache.append(0, new.clone(), new.neg());
            cache.advance(tokens, start + tokens);
            let expected = numbered(0..start + tokens, &device);
            assert_eq!(k.to_data(), expected.to_data());
            assert_eq!(v.to_data(), expected.neg().to_data());
        }
        assert_eq!(cache.len(), 6 * FIRST + 9);
    }

    #[test]
    fn selected_rows_go_their_own_way() {
        let device = Device::flex();
        let config = DecoderConfig { layers: 1, kv_heads: 1, head_dim: 2, ..DecoderConfig::smollm2_135m() };
        let mut cache = KvCache::new(&config, 1, 8, &device);
        cache.append(0, numbered(0..3, &device), numbered(0..3, &device));
        cache.advance(3, 3);
        let mut branch = cache.select(&[0, 0], 1);
        assert_eq!((branch.rows(), branch.len(), branch.capacity(), branch.reach()), (2, 3, 4, 3));
        let new = Tensor::cat(vec![numbered(3..4, &device), numbered(9..10, &device)], 0);
        let (k, _) = branch.append(0, new.clone(), new);
        let row = |x: Tensor<4>, i| x.narrow(0, i, 1).to_data();
        assert_eq!(row(k.clone(), 0), numbered(0..4, &device).to_data());
        assert_eq!(row(k, 1), Tensor::cat(vec![numbered(0..3, &device), numbered(9..10, &device)], 1).to_data());
        let (k, _) = cache.append(0, numbered(3..4, &device), numbered(3..4, &device));
        assert_eq!(k.to_data(), numbered(0..4, &device).to_data());
    }

    #[test]
    fn a_selection_takes_memory_as_tokens_come() {
        let device = Device::flex();
        let config = DecoderConfig { layers: 1, kv_heads: 1, head_dim: 2, ..DecoderConfig::smollm2_135m() };
        let mut cache = KvCache::new(&config, 1, usize::MAX, &device);
        cache.append(0, numbered(0..3, &device), numbered(0..3, &device));
        cache.advance(3, 3);
        let mut branch = cache.select(&[0], usize::MAX - 3);
        let room = |cache: &KvCache| cache.layers[0].as_ref().map(|(k, _)| k.dims()[1]);
        assert_eq!((branch.capacity(), room(&branch)), (usize::MAX, Some(3 + FIRST)));
        let (k, _) = branch.append(0, numbered(3..9 + FIRST, &device), numbered(3..9 + FIRST, &device));
        assert_eq!(k.to_data(), numbered(0..9 + FIRST, &device).to_data());
    }
}
