//! Conversations to the text a model was trained on. Every instruct model brings its own recipe, a Jinja
//! template; it is rendered here as Hugging Face transformers renders it, within bounds, since a template
//! is a program from a file that may come from anywhere.

mod budget;
mod error;
mod functions;
mod limits;
mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use minijinja::machinery::{CompiledTemplate, TemplateConfig, Vm, make_string_output};
use minijinja::{AutoEscape, Environment, Value, context};
use serde::{Deserialize, Serialize};

pub use error::ChatError;

/// Steps that one rendering may take; long conversations need some ten thousand.
const FUEL: u64 = 1_000_000;
/// Bytes that one rendering may write and build.
const LONGEST: usize = 64 << 20;
/// Bytes of the template's own text that one rendering may write, wherever to.
const MOST_RAW: usize = 256 << 20;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that hold for the whole conversation.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A system turn.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }
}

/// A model's recipe for writing conversations.
///
/// ```
/// use t2l_backbone::chat::{ChatTemplate, Message};
///
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}\
///               {% if add_generation_prompt %}<assistant>{% endif %}";
/// let template = ChatTemplate::new(source.into(), None, None)?;
/// assert_eq!(template.render(&[Message::user("Hi")], true)?, "<user>Hi\n<assistant>");
/// # Ok::<(), t2l_backbone::chat::ChatError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Takes a template's text and the tokens that it may write as `bos_token` and `eos_token`.
    /// Fails when the text is no valid template.
    pub fn new(source: String, bos_token: Option<String>, eos_token: Option<String>) -> Result<Self, ChatError> {
        let source = source::without_generation_marks(source);
        let longest = limits::check(&source)?;
        // Every step may write a piece of the template's own text.
        let fuel = FUEL.min((MOST_RAW / longest.max(1)) as u64);
        compile(&source)?;
        Ok(Self { source, bos_token, eos_token, environment: environment(fuel) })
    }

    /// The text of a conversation; with `add_generation_prompt`, up to where the model's answer begins.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.rendered(&compile(&self.source)?, messages, add_generation_prompt)
    }

    fn rendered(
        &self,
        compiled: &CompiledTemplate<'_>,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let token = |token: &Option<String>| token.as_deref().map_or(Value::UNDEFINED, Value::from);
        let context = context! {
            messages,
            add_generation_prompt,
            bos_token => token(&self.bos_token),
            eos_token => token(&self.eos_token),
            tools => (),
            documents => (),
        };
        let mut text = String::new();
        let output = &mut make_string_output(&mut text);
        budget::begin(LONGEST);
        Vm::new(&self.environment).eval(&compiled.instructions, context, &compiled.blocks, output, AutoEscape::None)?;
        if text.len() > LONGEST { Err(ChatError::TooLong) } else { Ok(text) }
    }

    /// Like [`render`](Self::render), without the system turn that some templates write when the
    /// conversation has none. A conversation with its own system turn is rendered as usual.
    ///
    /// No template offers this, so it is read off: the conversation is rendered as the continuation of
    /// an earlier exchange, and the rendering of that exchange is taken off the front.
    pub fn render_bare(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let compiled = compile(&self.source)?;
        let render = |messages: &[Message], prompt: bool| self.rendered(&compiled, messages, prompt);
        let ordinary = render(messages, add_generation_prompt)?;
        if messages.iter().any(|message| message.role == Role::System) {
            return Ok(ordinary);
        }
        let bos = self.bos_token.as_deref().filter(|bos| ordinary.starts_with(bos)).unwrap_or("");
        let earlier = [Message::user("A"), Message::assistant("B")];
        let continued = [&earlier, messages].concat();
        if let (Ok(front), Ok(whole)) = (render(&earlier, false), render(&continued, add_generation_prompt))
            && let Some(rest) = whole.strip_prefix(&front)
        {
            // Where every turn begins with that token, as in ChatML, it is there already.
            let bos = if rest.starts_with(bos) { "" } else { bos };
            return Ok(format!("{bos}{rest}"));
        }
        // Some templates write the last answer differently from earlier ones. Then: where a system turn
        // given by hand only adds text before the ordinary rendering, that has no system turn of its own.
        let with_system = [&[Message::system("S")], messages].concat();
        if let (Ok(with_system), Some(body)) = (render(&with_system, add_generation_prompt), ordinary.strip_prefix(bos))
            && with_system.ends_with(body)
        {
            return Ok(ordinary);
        }
        Err(ChatError::NotSeparable)
    }

    /// The token that the template writes as `bos_token`.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_deref()
    }

    /// The token that the template writes as `eos_token`.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }
}

/// What a template may use; how much of it is counted for each rendering.
fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(fuel));
    // Errors would show all variables, of whatever size.
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    budget::add_to(&mut environment);
    functions::add_to(&mut environment);
    environment
}

/// A template's instructions, those that build values replaced by ones that count.
fn compile(source: &str) -> Result<CompiledTemplate<'_>, minijinja::Error> {
    let config = TemplateConfig {
        syntax_config: Default::default(),
        ws_config: limits::WHITESPACE,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new("chat template", source, &config)?;
    budget::guard(&mut compiled.instructions)?;
    compiled.blocks.values_mut().try_for_each(budget::guard)?;
    Ok(compiled)
}
