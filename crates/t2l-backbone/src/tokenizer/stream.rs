//! Decoding while tokens arrive: a character may need several tokens, so text is held back until it is whole.

use super::{ModelTokenizer, TokenizerError};

/// The replacement character, which a decoder writes for bytes that are no whole character.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;

/// Turns a growing list of token ids into text that only ever grows by whole characters.
#[derive(Debug, Clone)]
pub struct TextStream<'t> {
    tokenizer: &'t ModelTokenizer,
    skip_special: bool,
    /// The tokens of the last piece given out, for context (some decoders treat the first token of a
    /// text differently), then those that came since.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    context: usize,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t ModelTokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), context: 0 }
    }

    /// Takes one more token; gives the text that is now certain, empty while a character is unfinished.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() || text.ends_with(INCOMPLETE) {
            return Ok(String::new());
        }
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        Ok(text)
    }

    /// What was held back, unfinished characters as U+FFFD. The stream then starts anew.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let text = self.pending()?;
        self.ids.clear();
        self.context = 0;
        Ok(text)
    }

    /// The text of the tokens beyond the context.
    fn pending(&self) -> Result<String, TokenizerError> {
        let context = self.ids.get(..self.context).unwrap_or_default();
        let before = self.tokenizer.decode(context, self.skip_special)?;
        let mut all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        // The context was whole when it was given out, so the longer text begins with it.
        if all.starts_with(&before) {
            all.drain(..before.len());
        }
        Ok(all)
    }
}
