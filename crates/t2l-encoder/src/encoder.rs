//! From descriptions to task embeddings.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use t2l_core::{EncodeError, EncodedTexts, TextEncoder};

use crate::format::trim;
use crate::pooling::normalise;
use crate::sentence::Recipe;
use crate::tokenize::{TextTokenizer, Tokens};
use crate::{BertModel, EncoderError, Pooling, TokenBatch, format_description};

/// Longest description in bytes: 64 KiB.
pub const MAX_DESCRIPTION_BYTES: usize = 64 << 10;

/// Tokens, padding included, that go through the model at once: enough to keep the products busy.
const BATCH_TOKENS: usize = 2048;

/// An encoder of the BERT family: MiniLM, BGE, E5, GTE v1.5 and their like.
#[derive(Debug, Clone)]
pub struct BertEncoder {
    id: String,
    model: BertModel,
    tokenizer: TextTokenizer,
    pooling: Vec<Pooling>,
    normalise: bool,
    max_seq_length: usize,
}

impl BertEncoder {
    /// Loads a folder as sentence-transformers or `save_pretrained` writes it: config.json, model.safetensors,
    /// tokenizer.json (or vocab.txt); modules.json, 1_Pooling and sentence_bert_config.json if they are there.
    ///
    /// Its [`id`](TextEncoder::id) is the folder's name until [`with_id`](Self::with_id) gives it another.
    ///
    /// # Errors
    /// Files that are missing, unsupported or damaged; each error names the file and the tensor or setting.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, EncoderError> {
        let folder = folder.as_ref();
        let recipe = Recipe::read(folder)?;
        let model = BertModel::load(&recipe.model, device)?;
        let config = model.config();
        let max_seq_length = recipe.max_seq_length(config)?;
        let tokenizer = TextTokenizer::load(&recipe.model, max_seq_length, config.vocab_size, recipe.lower_case)?;
        let id = folder_name(folder);
        let (pooling, normalise) = (recipe.pooling(config), recipe.normalise);
        Ok(Self { id, model, tokenizer, pooling, normalise, max_seq_length })
    }

    /// The same encoder under the name by which checkpoints refer to it.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// The model inside.
    pub fn model(&self) -> &BertModel {
        &self.model
    }

    /// How it pools; several vectors stand side by side.
    pub fn pooling(&self) -> &[Pooling] {
        &self.pooling
    }

    /// Tokens, special ones included, at which texts are cut.
    pub fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// Token ids of one text as it stands, special ones included, and whether it was cut.
    ///
    /// # Errors
    /// An empty text, one over 64 KiB, or one the tokenizer refuses.
    pub fn tokenize(&self, text: &str) -> Result<(Vec<u32>, bool), EncodeError> {
        check(&[text])?;
        let tokens = self.tokens(0, text)?;
        Ok((tokens.ids, tokens.truncated))
    }

    /// Sentence embeddings as sentence-transformers gives them: the texts as they stand, normalised only if the
    /// folder's modules.json asks for it, not scaled. `[texts, width]`.
    ///
    /// # Errors
    /// An empty text, one over 64 KiB, or one the tokenizer refuses.
    pub fn sentence_embeddings(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        check(texts)?;
        let mut encoded = self.pooled(texts)?;
        if self.normalise {
            encoded.embeddings = normalise(encoded.embeddings);
        }
        Ok(encoded)
    }

    fn tokens(&self, index: usize, text: &str) -> Result<Tokens, EncodeError> {
        self.tokenizer.encode(trim(text)).map_err(|reason| EncodeError::Tokenize { index, reason })
    }

    fn pooled(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        let tokens: Vec<Tokens> =
            texts.iter().enumerate().map(|(i, text)| self.tokens(i, text)).collect::<Result<_, _>>()?;
        let truncated = tokens.iter().map(|t| t.truncated).collect();
        let mut values = vec![0.0f32; texts.len() * self.width()];
        let lengths: Vec<usize> = tokens.iter().map(|t| t.ids.len()).collect();
        for batch in batches(&lengths) {
            let ids: Vec<&[u32]> = batch.iter().filter_map(|&i| tokens.get(i)).map(|t| t.ids.as_slice()).collect();
            let refused = |e: EncoderError| EncodeError::Model { reason: e.to_string() };
            let rows = TokenBatch::padded(&ids, self.model.config().padding).map_err(refused)?;
            let states = self.model.forward(&rows).map_err(refused)?;
            let pooled = Tensor::cat(self.pooling.iter().map(|p| p.pool(states.clone(), &rows)).collect(), 1);
            let pooled = pooled.into_data().convert::<f32>();
            let pooled = pooled.as_slice::<f32>().map_err(|e| EncodeError::Model { reason: format!("{e:?}") })?;
            for (row, &i) in pooled.chunks(self.width()).zip(&batch) {
                if let Some(place) = values.chunks_mut(self.width()).nth(i) {
                    place.copy_from_slice(row);
                }
            }
        }
        let data = TensorData::new(values, [texts.len(), self.width()]);
        Ok(EncodedTexts { embeddings: Tensor::from_data(data, self.model.device()), truncated })
    }
}

impl TextEncoder for BertEncoder {
    fn id(&self) -> &str {
        &self.id
    }

    fn width(&self) -> usize {
        self.model.config().hidden_size * self.pooling.len()
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        check(texts)?;
        let formatted: Vec<String> = texts.iter().map(|t| format_description(t)).collect();
        let formatted: Vec<&str> = formatted.iter().map(String::as_str).collect();
        let EncodedTexts { embeddings, truncated } = self.pooled(&formatted)?;
        let embeddings = normalise(embeddings).mul_scalar((self.width() as f64).sqrt());
        Ok(EncodedTexts { embeddings, truncated })
    }
}

/// What an encoder is called until it is told.
pub(crate) fn folder_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "encoder".into(), |n| n.to_string_lossy().into_owned())
}

/// Refuses what cannot be meant as a description.
pub(crate) fn check(texts: &[&str]) -> Result<(), EncodeError> {
    for (index, text) in texts.iter().enumerate() {
        let (of, bytes, limit) = (texts.len(), text.len(), MAX_DESCRIPTION_BYTES);
        if bytes > limit {
            return Err(EncodeError::TooLong { index, of, bytes, limit });
        }
        if trim(text).is_empty() {
            return Err(EncodeError::Empty { index, of });
        }
    }
    Ok(())
}

/// Groups texts of similar length, so that little is spent on padding; masks keep the rows apart.
pub(crate) fn batches(lengths: &[usize]) -> Vec<Vec<usize>> {
    let length = |i: &usize| lengths.get(*i).copied().unwrap_or(0);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(length);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match batches.last_mut() {
            Some(batch)
                if (batch.len() + 1) * length(&i) <= BATCH_TOKENS
                    && batch.first().is_some_and(|first| length(&i) <= length(first) + length(first) / 4) =>
            {
                batch.push(i);
            }
            _ => batches.push(vec![i]),
        }
    }
    batches
}
