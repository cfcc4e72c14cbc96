//! A language model's token embeddings, without the rest of the model.

use std::path::Path;

use half::bf16;

use crate::BackboneError;
use crate::tokenizer::ModelTokenizer;
use crate::weights::Weights;

/// The vector of every token of a language model, held in bf16, and its tokenizer.
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// The model's tokenizer.
    pub tokenizer: ModelTokenizer,
    values: Vec<bf16>,
    width: usize,
}

impl TokenEmbeddings {
    /// Reads them from a folder in Hugging Face's layout or a GGUF file, and nothing else of the model.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of an unsupported family.
    pub fn load(path: &Path) -> Result<Self, BackboneError> {
        let (config, weights) = Weights::open(path)?;
        let tokenizer = match &weights {
            Weights::Gguf(file, _) => ModelTokenizer::from_gguf(file)?,
            _ => ModelTokenizer::from_tokenizer_json(path.join("tokenizer.json"))?,
        };
        let values = weights.values("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
        let values = values.into_iter().map(bf16::from_f32).collect();
        Ok(Self { tokenizer, values, width: config.hidden_size })
    }

    /// Values of one vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A token's vector, if there is such a token.
    pub fn get(&self, token: u32) -> Option<impl Iterator<Item = f32>> {
        let start = (token as usize).checked_mul(self.width)?;
        let vector = self.values.get(start..start.checked_add(self.width)?)?;
        Some(vector.iter().map(|x| x.to_f32()))
    }

    /// All vectors, in the order of the tokens.
    pub fn iter(&self) -> impl Iterator<Item = impl Iterator<Item = f32>> {
        self.values.chunks_exact(self.width.max(1)).map(|vector| vector.iter().map(|x| x.to_f32()))
    }
}
