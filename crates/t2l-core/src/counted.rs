//! Counts in sentences.

use std::fmt::Display;

/// A count with what is counted, which takes an s where there is not exactly one.
///
/// ```
/// assert_eq!([0, 1, 2].map(|n: usize| t2l_core::counted(n, "step")), ["0 steps", "1 step", "2 steps"]);
/// ```
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{ending}")
}
