//! The published code's numbers.

mod counts;
mod initial;
mod outputs;
mod pipeline;
