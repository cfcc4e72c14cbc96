//! Where a template comes from: a model folder or a GGUF file.

use std::{io::ErrorKind, path::Path};

use serde_json::Value;
use t2l_core::files::read_at_most;

use super::{ChatError, ChatTemplate, limits::LONGEST_SOURCE};
use crate::{
    gguf::GgufFile,
    tokenizer::{read_object, token_text},
};

/// Gemma's turns. Its models know no system turn: what one says goes before the first question.
const GEMMA: &str = r#"{{ bos_token }}
{%- set said = namespace(system='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set said.system = message.content | trim + '\n\n' %}
{%- else %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{{- said.system + message.content | trim + '<end_of_turn>\n' }}
{%- set said.system = '' %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"#;

impl ChatTemplate {
    /// The template that goes with a vocabulary, for models that bring none: Gemma's turns where `has` knows their
    /// tokens. `None` where no set of tokens is known.
    pub fn by_tokens(
        has: impl Fn(&str) -> bool,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Option<Result<Self, ChatError>> {
        let gemma = ["<start_of_turn>", "<end_of_turn>"].into_iter().all(has);
        gemma.then(|| Self::new(GEMMA.to_owned(), bos_token, eos_token))
    }

    /// The template of a model folder: `chat_template.jinja`, else the one in `tokenizer_config.json`,
    /// else the one in `chat_template.json`.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, ChatError> {
        let folder = folder.as_ref();
        let config = read_object(folder, "tokenizer_config.json")?.unwrap_or_default();
        let token = |key: &str| config.get(key).and_then(token_text).map(str::to_owned);
        let path = folder.join("chat_template.jinja");
        let wrong = |reason: String| ChatError::File { path: path.clone(), reason };
        let source = match read_at_most(&path, LONGEST_SOURCE as u64) {
            Ok(bytes) => Some(String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let source = match source {
            Some(source) => Some(source),
            None => match config.get("chat_template").and_then(template_text) {
                Some(source) => Some(source),
                None => {
                    let separate = read_object(folder, "chat_template.json")?.unwrap_or_default();
                    separate.get("chat_template").and_then(template_text)
                }
            },
        };
        let source = source.ok_or_else(|| ChatError::NoTemplate(folder.into()))?;
        Self::new(source, token("bos_token"), token("eos_token"))
    }

    /// The template in a GGUF file's metadata.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ChatError> {
        let Some(source) = file.get::<&str>("tokenizer.chat_template")? else {
            return Err(ChatError::NoTemplate(file.path().into()));
        };
        let token = |key: &str| -> Result<Option<String>, ChatError> {
            let Some(id) = file.get::<usize>(key)? else { return Ok(None) };
            let tokens = file.get::<&[String]>("tokenizer.ggml.tokens")?.unwrap_or_default();
            Ok(tokens.get(id).cloned())
        };
        let (bos, eos) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
        Self::new(source.to_owned(), bos, eos)
    }
}

/// A template is written as text, or as a list of named ones of which `default` is meant.
fn template_text(value: &Value) -> Option<String> {
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    match value {
        Value::String(source) => Some(source.clone()),
        Value::Array(list) => Some(list.iter().find(named)?.get("template")?.as_str()?.to_owned()),
        _ => None,
    }
}

/// Some templates mark what the model writes with `{% generation %}`; the marks are only for training
/// masks, so they become a condition that always holds and keep their effect on white space.
pub(super) fn without_generation_marks(source: String) -> String {
    if !source.contains("generation") {
        return source;
    }
    let mut rest = source.as_str();
    let mut result = String::with_capacity(source.len());
    while let Some((before, tag)) = rest.split_once("{%") {
        result.push_str(before);
        result.push_str("{%");
        let body = tag.trim_start_matches(['-', '+']);
        let word = body.trim_start();
        let name: &str = word.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let after = word.get(name.len()..).unwrap_or_default();
        let ends = after.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        let replacement = match name {
            "generation" if ends => "if true",
            "endgeneration" if ends => "endif",
            _ => {
                rest = tag;
                continue;
            }
        };
        result.push_str(tag.get(..tag.len() - word.len()).unwrap_or_default());
        result.push_str(replacement);
        rest = after;
    }
    result.push_str(rest);
    result
}
