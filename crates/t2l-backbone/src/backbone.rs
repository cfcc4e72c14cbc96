//! A language model with everything around it: decoder, tokenizer, chat template.

use std::path::Path;

use burn::tensor::Device;
use t2l_gguf::GgufFile;

use crate::chat::ChatTemplate;
use crate::tokenizer::ModelTokenizer;
use crate::{BackboneError, Decoder, WeightType};

/// A frozen language model, ready to render, tokenise and answer.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// The model.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: ModelTokenizer,
    /// Its chat template.
    pub chat: ChatTemplate,
    /// Its Hub id where known, else the name of its folder or file.
    pub id: String,
}

impl Backbone {
    /// Loads a folder in Hugging Face's layout, or a GGUF file, its weights held in f32.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of an unsupported family.
    pub fn load(path: &Path, device: &Device) -> Result<Self, BackboneError> {
        Self::load_as(path, WeightType::F32, device)
    }

    /// As [`Backbone::load`], with the weights held in another type.
    ///
    /// # Errors
    /// As [`Backbone::load`], and weights that the type cannot hold.
    pub fn load_as(path: &Path, held: WeightType, device: &Device) -> Result<Self, BackboneError> {
        let id = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            return Ok(Self {
                decoder: Decoder::load_as(path, held, device)?,
                tokenizer: ModelTokenizer::from_tokenizer_json(path.join("tokenizer.json"))?,
                chat: ChatTemplate::from_folder(path)?,
                id,
            });
        }
        let file = GgufFile::open(path)?;
        Ok(Self {
            tokenizer: ModelTokenizer::from_gguf(&file)?,
            chat: ChatTemplate::from_gguf(&file)?,
            decoder: Decoder::from_gguf(file, held, device)?,
            id,
        })
    }
}
