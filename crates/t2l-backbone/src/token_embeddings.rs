//! A language model's token embeddings, without the rest of the model.

use std::path::Path;

use t2l_gguf::GgufFile;

use crate::tokenizer::ModelTokenizer;
use crate::weights::Weights;
use crate::{BackboneError, DecoderConfig};

/// The vector of every token of a language model, and its tokenizer.
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// The model's tokenizer.
    pub tokenizer: ModelTokenizer,
    values: Vec<f32>,
    width: usize,
}

impl TokenEmbeddings {
    /// Reads them from a folder in Hugging Face's layout or a GGUF file, and nothing else of the model.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of an unsupported family.
    pub fn load(path: &Path) -> Result<Self, BackboneError> {
        let (tokenizer, config, weights) = if path.is_dir() {
            let tokenizer = ModelTokenizer::from_tokenizer_json(path.join("tokenizer.json"))?;
            (tokenizer, DecoderConfig::from_json(&path.join("config.json"))?, Weights::open_folder(path)?)
        } else {
            let file = GgufFile::open(path)?;
            let (tokenizer, config) = (ModelTokenizer::from_gguf(&file)?, DecoderConfig::from_gguf(&file)?);
            (tokenizer, config.clone(), Weights::Gguf(Box::new(file), Box::new(config)))
        };
        let values = weights.values("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
        Ok(Self { tokenizer, values, width: config.hidden_size })
    }

    /// Values of one vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A token's vector, if there is such a token.
    pub fn get(&self, token: u32) -> Option<&[f32]> {
        let start = (token as usize).checked_mul(self.width)?;
        self.values.get(start..start.checked_add(self.width)?)
    }

    /// All vectors, in the order of the tokens.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}
