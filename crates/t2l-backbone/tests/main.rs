//! Reference tests: the same text, tokens and numbers as the published Python software.

mod decoder;
mod text;
