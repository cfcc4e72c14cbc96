//! A decoder language model as a text encoder: what it holds at a text's last token.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use t2l_backbone::tokenizer::ModelTokenizer;
use t2l_backbone::{BackboneError, Decoder, WeightType, gguf::GgufFile};
use t2l_core::{AdapterBatch, EncodeError, EncodedTexts, TextEncoder};

use crate::encoder::{batches, check, folder_name};
use crate::pooling::normalise;
use crate::sentence::Recipe;
use crate::{EncoderError, Pooling, TokenBatch, format_description};

/// Longest text in tokens: descriptions of the published recipe are cut there.
const MAX_TOKENS: usize = 8192;

/// Any decoder that `t2l-backbone` loads. A text's vector is the stream at its last token, after the final norm.
#[derive(Debug, Clone)]
pub struct LastTokenEncoder {
    id: String,
    decoder: Decoder,
    tokenizer: ModelTokenizer,
}

impl LastTokenEncoder {
    /// Loads a folder in Hugging Face's layout, or a GGUF file.
    ///
    /// Its [`id`](TextEncoder::id) is the folder's or file's name until [`with_id`](Self::with_id) gives it another.
    ///
    /// # Errors
    /// Files that are missing, damaged or of an unsupported family; a sentence-transformers folder that pools otherwise.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self, EncoderError> {
        let path = path.as_ref();
        let id = folder_name(path);
        if !path.is_dir() {
            let file = GgufFile::open(path).map_err(BackboneError::from)?;
            let tokenizer = ModelTokenizer::from_gguf(&file).map_err(BackboneError::from)?;
            return Ok(Self { id, decoder: Decoder::from_gguf(file, WeightType::F32, device)?, tokenizer });
        }
        let recipe = Recipe::read(path)?;
        if let Some(other) = recipe.pooling.iter().find(|pooling| **pooling != Pooling::LastToken) {
            let reason = format!("{other:?} of a decoder is not supported, only its last token is");
            return Err(EncoderError::config(path, "pooling_mode", reason));
        }
        let tokenizer = ModelTokenizer::from_tokenizer_json(recipe.model.join("tokenizer.json"));
        let tokenizer = tokenizer.map_err(BackboneError::from)?;
        Ok(Self { id, decoder: Decoder::load(&recipe.model, device)?, tokenizer })
    }

    /// A language model that is loaded already. The weights are shared.
    pub fn new(id: impl Into<String>, decoder: Decoder, tokenizer: ModelTokenizer) -> Self {
        Self { id: id.into(), decoder, tokenizer }
    }

    /// The same encoder under the name by which checkpoints refer to it.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// Tokens, special ones included, at which texts are cut.
    pub fn max_seq_length(&self) -> usize {
        self.decoder.config().max_positions.min(MAX_TOKENS)
    }

    /// The stream at the last token of every row, after the final norm: `[rows, width]`.
    ///
    /// Rows are padded on the right, where no token of theirs looks, or go through the model one by one where its RoPE
    /// frequencies depend on the longest of them: a row's vector does not depend on the others.
    ///
    /// # Errors
    /// No row, an empty row, or an id that the model has no embedding for.
    pub fn last_states(&self, rows: &[&[u32]]) -> Result<Tensor<2>, EncoderError> {
        let bad = |reason: String| EncoderError::Batch { reason };
        let tokens = rows.iter().map(|row| row.len()).max().ok_or_else(|| bad("no rows".into()))?;
        for (i, row) in rows.iter().enumerate() {
            self.check_row(row).map_err(|reason| bad(format!("row {i}: {reason}")))?;
        }
        let steady = self.decoder.config().steady_context();
        if tokens > steady && rows.iter().any(|row| row.len() != tokens) {
            let alone = rows.iter().map(|row| self.last_states(&[row])).collect::<Result<_, _>>()?;
            return Ok(Tensor::cat(alone, 0));
        }
        let (batch, device) = (TokenBatch::padded(rows, 0)?, self.decoder.device());
        let embedded = self.decoder.embed(batch.ids(&device).reshape([rows.len(), tokens]));
        let none = AdapterBatch::none(rows.len());
        let states = self.decoder.hidden(embedded, &vec![0; rows.len()], None, &none)?;
        Ok(states.reshape([rows.len() * tokens, self.width()]).select(0, batch.last(&device)))
    }

    /// Why the model cannot take a row, if it cannot.
    fn check_row(&self, row: &[u32]) -> Result<(), String> {
        if row.is_empty() {
            return Err("it has no tokens".into());
        }
        let vocabulary = self.decoder.config().vocab_size;
        match row.iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => Err(format!("token {id}; the model has {vocabulary}")),
            None => Ok(()),
        }
    }

    /// Token ids of a text with whatever the model's recipe puts around it, and whether it was cut.
    fn tokens(&self, index: usize, text: &str) -> Result<(Vec<u32>, bool), EncodeError> {
        let tokens = self.tokenizer.encode_with_special(text);
        let mut ids = tokens.map_err(|e| EncodeError::Tokenize { index, reason: e.to_string() })?;
        let cut = ids.len() > self.max_seq_length();
        ids.truncate(self.max_seq_length());
        self.check_row(&ids).map_err(|reason| EncodeError::Tokenize { index, reason })?;
        Ok((ids, cut))
    }
}

impl TextEncoder for LastTokenEncoder {
    fn id(&self) -> &str {
        &self.id
    }

    fn width(&self) -> usize {
        self.decoder.config().hidden_size
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        check(texts)?;
        let tokens = texts.iter().enumerate().map(|(i, text)| self.tokens(i, &format_description(text)));
        let (ids, truncated): (Vec<Vec<u32>>, Vec<bool>) = tokens.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let order = batches(&lengths);
        let device = self.decoder.device();
        if order.is_empty() {
            return Ok(EncodedTexts { embeddings: Tensor::zeros([0, self.width()], &device), truncated });
        }
        let mut states = Vec::new();
        for batch in &order {
            let rows: Vec<&[u32]> = batch.iter().filter_map(|&i| ids.get(i)).map(Vec::as_slice).collect();
            states.push(self.last_states(&rows).map_err(|e| EncodeError::Model { reason: e.to_string() })?);
        }
        // Back from the order of the batches.
        let mut places = vec![0i64; texts.len()];
        for (at, &i) in (0..).zip(order.iter().flatten()) {
            if let Some(place) = places.get_mut(i) {
                *place = at;
            }
        }
        let places: Tensor<1, Int> = Tensor::from_data(TensorData::new(places, [texts.len()]), &device);
        let embeddings = normalise(Tensor::cat(states, 0).select(0, places)).mul_scalar((self.width() as f64).sqrt());
        Ok(EncodedTexts { embeddings, truncated })
    }
}
