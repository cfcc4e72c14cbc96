//! The `t2l` program.
fn main() {}
