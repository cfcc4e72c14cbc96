//! The form in which a description reaches an encoder.

use std::sync::LazyLock;

use regex::Regex;

/// Ends in a letter: Unicode's general category L, which leaves out digits, combining signs and letter-like symbols.
#[allow(clippy::unwrap_used, reason = "the pattern is a constant")]
static ENDS_IN_LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{L}\z").unwrap());

/// White space at the ends goes, and a text that ends in a letter of any script gets a full stop.
///
/// ```
/// use t2l_encoder::format_description;
///
/// assert_eq!(format_description("  Translate into French "), "Translate into French.");
/// assert_eq!(format_description("请判断句子的情感倾向"), "请判断句子的情感倾向.");
/// assert_eq!(format_description("What is 6 × 7?"), "What is 6 × 7?");
/// ```
pub fn format_description(description: &str) -> String {
    let mut text = trim(description).to_owned();
    if ENDS_IN_LETTER.is_match(&text) {
        text.push('.');
    }
    text
}

/// Trims Unicode white space and the four separators U+001C to U+001F, which Python's `strip` counts as such too.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_get_a_full_stop() {
        for (text, formatted) in [
            ("a", "a."),
            ("42", "42"),
            ("naïveté\n", "naïveté."),
            ("\u{1c}x\u{1f}", "x."),
            ("ぁ", "ぁ."),
            ("ʰ", "ʰ."),
            // A vowel sign (Mc), a Roman numeral (Nl), a circled letter (So): none of them of category L.
            ("भाषा", "भाषा"),
            ("Ⅷ", "Ⅷ"),
            ("Ⓐ", "Ⓐ"),
            ("e\u{301}", "e\u{301}"),
            ("joke 😀", "joke 😀"),
            ("", ""),
        ] {
            assert_eq!(format_description(text), formatted, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn formatting_twice_changes_nothing(text in "\\PC*") {
            let once = format_description(&text);
            proptest::prop_assert_eq!(format_description(&once), once);
        }
    }
}
