//! What a template's text may be, looked at before it is compiled: nothing in it may make the compiler recurse without
//! end or compute constants without bound.

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::{Error, ErrorKind};

/// As transformers sets it.
pub(super) const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

/// Longest template; those of real models have at most some 30 KB.
pub(super) const LONGEST_SOURCE: usize = 1 << 20;
/// Most words and signs of one `{{ … }}` or `{% … %}`: chains of operators nest in the compiler.
const MOST_TOKENS: usize = 1_000;
/// Most `elif` in all: they nest too.
const MOST_ELIF: usize = 200;
/// Largest constants that the compiler may compute, all together, in bytes.
const LARGEST_CONSTANTS: u64 = 16 << 20;

/// The length of the longest piece of plain text, if the template is one that may be compiled.
pub(super) fn check(source: &str) -> Result<usize, Error> {
    let refuse = |reason: String| Err(Error::new(ErrorKind::SyntaxError, reason));
    if source.len() > LONGEST_SOURCE {
        return refuse(format!("it has {} bytes; {LONGEST_SOURCE} are read at most", source.len()));
    }
    let (mut longest, mut elifs, mut constants, mut tag) = (0, 0, 0_u64, Tag::default());
    for token in tokenize(source, false, Default::default(), WHITESPACE) {
        match token?.0 {
            Token::TemplateData(text) => longest = longest.max(text.len()),
            Token::VariableStart | Token::BlockStart => tag = Tag::default(),
            Token::VariableEnd | Token::BlockEnd => {
                constants = constants.saturating_add(tag.largest_constant());
                if constants > LARGEST_CONSTANTS {
                    return refuse(format!("its constants have more than {LARGEST_CONSTANTS} bytes"));
                }
            }
            token => {
                elifs += usize::from(matches!(token, Token::Ident("elif")));
                tag.take(&token);
                if tag.tokens > MOST_TOKENS || elifs > MOST_ELIF {
                    return refuse(format!("it has more than {MOST_TOKENS} words in one tag, or {MOST_ELIF} elif"));
                }
            }
        }
    }
    Ok(longest)
}

/// What one `{{ … }}` or `{% … %}` holds.
#[derive(Default)]
struct Tag {
    tokens: usize,
    /// Bytes of text and items.
    literals: u64,
    /// All integers multiplied, if anything is multiplied here.
    product: Option<u64>,
    multiplies: bool,
}

impl Tag {
    fn take(&mut self, token: &Token<'_>) {
        self.tokens += 1;
        match token {
            Token::Str(text) => self.literals += 32 + text.len() as u64,
            Token::String(text) => self.literals += 32 + text.len() as u64,
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen | Token::Comma => self.literals += 32,
            Token::Int(n) => self.product = Some(self.product.unwrap_or(1).saturating_mul((*n).max(1))),
            Token::Int128(_) | Token::Pow => self.product = Some(u64::MAX),
            Token::Mul => self.multiplies = true,
            _ => {}
        }
    }

    /// No constant in it is larger, whatever its operators. Without multiplication, constants are no larger than the text
    /// they are written in.
    fn largest_constant(&self) -> u64 {
        if self.multiplies { self.literals.saturating_mul(self.product.unwrap_or(1)) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn constants_chains_and_lengths_are_bounded() {
        assert_eq!(check("ab{{ 'x' * 1000 }}abc{% if a * 1000000 > b %}{% endif %}").unwrap(), 3);
        let refused = |source: &str| check(source).unwrap_err().to_string();
        for source in ["{{ 'x' * 10000000 }}", "{{ ['x'] * 1000 * 1000 }}", "{% set s = 2 * 'x' * 2 ** 20 %}"] {
            assert!(refused(source).contains("constants"), "{source}");
        }
        assert!(refused(&"{{ 'x' * 10000 }}".repeat(100)).contains("constants"));
        assert!(refused(&format!("{{{{ {} }}}}", "a ~ ".repeat(600))).contains("words in one tag"));
        assert!(check(&"{{ a ~ b }}".repeat(600)).is_ok());
        assert!(refused(&"{% elif a %}".repeat(201)).contains("elif"));
        assert!(refused(&"a".repeat((1 << 20) + 1)).contains("bytes"));
        assert!(refused("{{ 'open").contains("syntax error"));
    }
}
