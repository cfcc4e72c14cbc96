//! An example becomes a prompt here and nowhere else: for training, evaluation, `ask` and `chat` alike.

use serde::{Deserialize, Serialize};
use t2l_backbone::Backbone;
use t2l_backbone::chat::{ChatTemplate, Message};
use t2l_backbone::tokenizer::ModelTokenizer;

use crate::{DataError, Example, Task};

/// Whether the base model is told the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptMode {
    /// The input alone: the adapter must carry the task.
    Input,
    /// The task's instruction before the input: the adapter helps.
    Definition,
}

impl PromptMode {
    /// Its name, as files and commands spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Definition => "definition",
        }
    }
}

/// The user's turn: an instruction if there is one, the input, the options if they are shown.
///
/// ```
/// use t2l_data::user_turn;
///
/// assert_eq!(user_turn(Some("Pick one."), "2 + 2?", &["3".into(), "4".into()]), "Pick one.\n\n2 + 2?\nOptions:\n- 3\n- 4");
/// assert_eq!(user_turn(None, "2 + 2?", &[]), "2 + 2?");
/// ```
pub fn user_turn(instruction: Option<&str>, input: &str, options: &[String]) -> String {
    let mut turn = String::new();
    if let Some(instruction) = instruction {
        turn.push_str(instruction);
        turn.push_str("\n\n");
    }
    turn.push_str(input);
    if !options.is_empty() {
        turn.push_str("\nOptions:");
        for option in options {
            turn.push_str("\n- ");
            turn.push_str(option);
        }
    }
    turn
}

/// The user's turn of a task's example.
pub fn example_turn(task: &Task, example: &Example, mode: PromptMode) -> String {
    let instruction = match mode {
        PromptMode::Input => None,
        PromptMode::Definition => Some(task.instruction()),
    };
    user_turn(instruction, &example.input, if task.show_options { &example.choices } else { &[] })
}

/// A prompt and its response in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedExample {
    /// Tokens that carry no loss.
    pub prompt: Vec<u32>,
    /// Tokens that do, the end of the turn included.
    pub response: Vec<u32>,
}

/// Turns turns into tokens, the way one base model wants them.
#[derive(Debug, Clone)]
pub struct PromptRenderer<'a> {
    tokenizer: &'a ModelTokenizer,
    chat: &'a ChatTemplate,
    /// What closes the model's turn, `<|im_end|>` in ChatML.
    end_of_turn: Vec<u32>,
    /// Tokens that the model has.
    vocabulary: usize,
}

impl<'a> PromptRenderer<'a> {
    /// A renderer for a base model; tokens that its tokenizer has and it has not are refused.
    ///
    /// # Errors
    /// As [`PromptRenderer::new`].
    pub fn of(model: &'a Backbone) -> Result<Self, DataError> {
        let renderer = Self::new(&model.tokenizer, &model.chat)?;
        let renderer = Self { vocabulary: model.decoder.config().vocab_size, ..renderer };
        renderer.check(&renderer.end_of_turn)?;
        Ok(renderer)
    }

    /// A renderer for a tokenizer and a chat template, without the model.
    ///
    /// What ends an answer is read off the template: whatever it writes after one, in tokens, or the tokenizer's
    /// end-of-sequence token where it writes nothing.
    ///
    /// # Errors
    /// A chat template that cannot render a plain exchange, or with which an answer has no end.
    pub fn new(tokenizer: &'a ModelTokenizer, chat: &'a ChatTemplate) -> Result<Self, DataError> {
        // A word that no template writes on its own, so that its place is the answer's.
        const ANSWER: &str = "An-answer.";
        let answered = [Message::user("A"), Message::assistant(ANSWER)];
        let whole = chat.render_bare(&answered, false).map_err(|e| refused(e.to_string()))?;
        let (_, end) = whole
            .rsplit_once(ANSWER)
            .ok_or_else(|| refused("the chat template leaves the model's answer out of a conversation".into()))?;
        let mut end_of_turn = tokenizer.encode(end.trim_end()).map_err(|e| refused(e.to_string()))?;
        if end_of_turn.is_empty() {
            end_of_turn.extend(tokenizer.eos());
        }
        if end_of_turn.is_empty() {
            return Err(refused("neither the chat template nor the tokenizer says what ends an answer".into()));
        }
        Ok(Self { tokenizer, chat, end_of_turn, vocabulary: usize::MAX })
    }

    /// The tokens that end an answer; there is at least one.
    pub fn end_of_turn(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// Tokens of the prompt for one user turn, up to where the model answers. No system turn.
    ///
    /// # Errors
    /// The template or the tokenizer refuses the text.
    pub fn prompt(&self, turn: &str) -> Result<Vec<u32>, DataError> {
        self.conversation(&[Message::user(turn)])
    }

    /// Tokens of the prompt for a conversation, up to where the model answers. No system turn.
    ///
    /// # Errors
    /// The template or the tokenizer refuses the text.
    pub fn conversation(&self, messages: &[Message]) -> Result<Vec<u32>, DataError> {
        self.encode(&self.chat.render_bare(messages, true).map_err(|e| refused(e.to_string()))?)
    }

    /// Tokens of an answer with the end of the turn.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn response(&self, answer: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = self.encode(answer)?;
        ids.extend_from_slice(&self.end_of_turn);
        Ok(ids)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let ids = self.tokenizer.encode(text).map_err(|e| refused(e.to_string()))?;
        self.check(&ids)?;
        Ok(ids)
    }

    fn check(&self, ids: &[u32]) -> Result<(), DataError> {
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => Err(refused(format!("token {id} is outside the model's vocabulary of {}", self.vocabulary))),
            None => Ok(()),
        }
    }

    /// A task's example in tokens, cut to `max_tokens`.
    ///
    /// # Errors
    /// The template or the tokenizer refuses the text.
    pub fn example(
        &self,
        task: &Task,
        example: &Example,
        mode: PromptMode,
        max_tokens: usize,
    ) -> Result<TokenizedExample, DataError> {
        let named = |e| match e {
            DataError::Render { reason, .. } => DataError::Render { task: task.name.clone(), reason },
            other => other,
        };
        let prompt = self.prompt(&example_turn(task, example, mode)).map_err(named)?;
        let response = self.response(&example.target).map_err(named)?;
        Ok(cut(prompt, response, max_tokens))
    }
}

fn refused(reason: String) -> DataError {
    DataError::Render { task: String::new(), reason }
}

/// Bounds prompt and response together: the longer side loses tokens first, from the left.
pub fn cut(mut prompt: Vec<u32>, mut response: Vec<u32>, max_tokens: usize) -> TokenizedExample {
    let excess = (prompt.len() + response.len()).saturating_sub(max_tokens);
    // One token at a time off the longer side, in closed form; ties take from the prompt.
    let lead = prompt.len().abs_diff(response.len()).min(excess);
    let (mut off_prompt, mut off_response) = if prompt.len() >= response.len() { (lead, 0) } else { (0, lead) };
    let rest = excess - lead;
    off_prompt += rest.div_ceil(2);
    off_response += rest / 2;
    prompt.drain(..off_prompt.min(prompt.len()));
    response.drain(..off_response.min(response.len()));
    TokenizedExample { prompt, response }
}
