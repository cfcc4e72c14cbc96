//! A forward pass that the caller takes a layer at a time, and so decides what is kept in between.

use burn::tensor::Tensor;
use t2l_core::AdapterBatch;

use super::layer::{Layer, Worn};
use super::rope::Rotations;
use super::{Decoder, DecoderConfig};
use crate::BackboneError;

/// What all layers of one pass share: right-padded rows, no cache.
pub struct LayerPass<'a> {
    config: &'a DecoderConfig,
    layers: &'a [Layer],
    starts: Vec<usize>,
    rotations: Rotations,
}

/// One layer of a [`LayerPass`].
pub struct OneLayer<'a> {
    pass: &'a LayerPass<'a>,
    number: usize,
    layer: &'a Layer,
}

impl Decoder {
    /// A pass over `adapters.rows()` rows of `tokens` tokens. All its layers in order and then [`Decoder::final_norm`] are
    /// [`Decoder::hidden`] without a cache.
    ///
    /// # Errors
    /// Adapters that do not fit, rows too long for their scores.
    pub fn layer_by_layer(&self, tokens: usize, adapters: &AdapterBatch) -> Result<LayerPass<'_>, BackboneError> {
        self.check_fit(adapters, adapters.rows())?;
        self.check_length(adapters.rows(), tokens, 0)?;
        let starts = vec![0; adapters.rows()];
        let rotations = Rotations::new(&self.config, &starts, 0, tokens, tokens, &self.device());
        Ok(LayerPass { config: &self.config, layers: &self.layers, starts, rotations })
    }
}

impl LayerPass<'_> {
    /// The layers, from the embeddings on.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = OneLayer<'_>> {
        let numbered = 0..self.layers.len();
        numbered.zip(self.layers).map(|(number, layer)| OneLayer { pass: self, number, layer })
    }
}

impl OneLayer<'_> {
    /// Its number, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The stream after this layer: `[rows, tokens, hidden]` in and out. `adapters` have the shapes that the pass was
    /// made for.
    pub fn forward(&self, stream: Tensor<3>, adapters: &AdapterBatch) -> Tensor<3> {
        let LayerPass { config, starts, rotations, .. } = self.pass;
        let worn = Worn { adapters, layer: self.number };
        let attended = self.layer.attended(config, &stream, starts, rotations, None, &worn);
        self.layer.after_attention(config, stream, attended, &worn)
    }
}
