//! A language model with everything around it: decoder, tokenizer, chat template.

use std::path::Path;

use burn::tensor::Device;
use t2l_gguf::GgufFile;

use crate::chat::{ChatError, ChatTemplate};
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
            let tokenizer = ModelTokenizer::from_tokenizer_json(path.join("tokenizer.json"))?;
            let chat = or_by_tokens(ChatTemplate::from_folder(path), &tokenizer)?;
            return Ok(Self { decoder: Decoder::load_as(path, held, device)?, tokenizer, chat, id });
        }
        let file = GgufFile::open(path)?;
        let tokenizer = ModelTokenizer::from_gguf(&file)?;
        let chat = or_by_tokens(ChatTemplate::from_gguf(&file), &tokenizer)?;
        Ok(Self { decoder: Decoder::from_gguf(file, held, device)?, tokenizer, chat, id })
    }
}

/// Models that were not tuned on conversations often bring no template, yet have the tokens of their tuned siblings.
fn or_by_tokens(own: Result<ChatTemplate, ChatError>, tokenizer: &ModelTokenizer) -> Result<ChatTemplate, ChatError> {
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    let by_tokens = || {
        let has = |token: &str| tokenizer.token_id(token).is_some();
        ChatTemplate::by_tokens(has, token(tokenizer.bos()), token(tokenizer.eos()))
    };
    match own {
        Err(ChatError::NoTemplate(path)) => by_tokens().unwrap_or(Err(ChatError::NoTemplate(path))),
        other => other,
    }
}
