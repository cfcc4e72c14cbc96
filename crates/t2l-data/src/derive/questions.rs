//! Something about a text that can be answered with yes or no, in words that the description names.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording;
use super::{Made, Source, Vocabulary, bare_words, labelled, words};
use crate::{Kind, Metric};

/// Wordings of a condition for training and for evaluation, `{}` being what it speaks of; and whether it holds, unless
/// that may be argued about.
struct Question {
    train: &'static [&'static str],
    eval: &'static [&'static str],
    /// What `{}` may be.
    of: &'static [&'static str],
    holds: fn(&str, &str) -> Option<bool>,
}

const LETTERS: &[&str] =
    &["a", "b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "o", "p", "r", "s", "t", "u", "w", "y"];
const COUNTS: &[&str] = &["3", "4", "5", "6", "8", "10", "12", "15", "20"];
const WORDS: &[&str] = &["the", "a", "is", "in", "of", "and", "to", "you", "that", "with", "was", "for", "what", "how"];

const QUESTIONS: &[Question] = &[
    Question {
        train: &[
            "the letter \"{}\" occurs in the text",
            "the text contains the letter \"{}\"",
            "there is a letter \"{}\" somewhere in the text",
        ],
        eval: &["the text has the letter \"{}\" in it"],
        of: LETTERS,
        holds: |text, letter| Some(text.to_lowercase().contains(letter)),
    },
    Question {
        train: &["the text begins with the letter \"{}\"", "the first letter of the text is \"{}\""],
        eval: &["the text starts with \"{}\""],
        of: LETTERS,
        holds: |text, letter| is_letter(text.chars().next()?, letter),
    },
    Question {
        train: &["the text ends with the letter \"{}\"", "\"{}\" is the last letter of the text"],
        eval: &["the text closes with the letter \"{}\""],
        of: LETTERS,
        holds: |text, letter| is_letter(text.chars().next_back()?, letter),
    },
    Question {
        train: &["the text has more than {} words", "there are over {} words", "the text is longer than {} words"],
        eval: &["the number of words is above {}"],
        of: COUNTS,
        holds: |text, count| Some(count_words(text)? > count.parse().ok()?),
    },
    Question {
        train: &[
            "the word \"{}\" is used in the text",
            "the text contains the word \"{}\"",
            "one of the words is \"{}\"",
        ],
        eval: &["the word \"{}\" appears in the text"],
        of: WORDS,
        holds: |text, word| Some(bare_words(text).any(|w| w.to_lowercase() == word)),
    },
    Question {
        train: &["the text contains a {}", "there is a {} in the text", "a {} can be seen in the text"],
        eval: &["the text has a {} in it"],
        of: &["comma", "digit", "question mark", "full stop", "capital letter", "hyphen", "quotation mark", "colon"],
        holds: |text, sign| {
            Some(match sign {
                "comma" => text.contains(','),
                "digit" => text.contains(|c: char| c.is_ascii_digit()),
                "question mark" => text.contains('?'),
                "full stop" => text.contains('.'),
                "capital letter" => text.contains(char::is_uppercase),
                "hyphen" => text.contains('-'),
                "colon" => text.contains(':'),
                // An apostrophe may be one or not.
                _ if text.contains(['\'', '\u{2018}', '\u{2019}']) => return None,
                _ => text.contains(['"', '\u{201c}', '\u{201d}']),
            })
        },
    },
    Question {
        train: &["the number of words is {}", "the count of words is {}"],
        eval: &["the text has an {} number of words"],
        of: &["even", "odd"],
        holds: |text, which| Some(count_words(text)?.is_multiple_of(2) == (which == "even")),
    },
    Question {
        train: &["the first word is {} than the last word", "the word at the beginning is {} than the one at the end"],
        eval: &["the opening word is {} than the closing one"],
        of: &["longer", "shorter"],
        holds: |text, which| {
            let letters = |word: &str| word.chars().all(char::is_alphabetic).then(|| word.chars().count());
            let first = letters(bare_words(text).next()?)?;
            let last = letters(bare_words(text).last()?)?;
            Some(if which == "longer" { first > last } else { first < last })
        },
    },
    Question {
        train: &["some word occurs more than once", "a word stands in the text twice or more"],
        eval: &["there is a word that appears more than once"],
        of: &[""],
        holds: |text, _| {
            let mut seen = std::collections::BTreeSet::new();
            Some(bare_words(text).any(|word| !seen.insert(word.to_lowercase())))
        },
    },
];

/// Whether a character is this letter, large or small; nothing where it is none at all.
fn is_letter(c: char, letter: &str) -> Option<bool> {
    c.is_alphabetic().then(|| c.to_lowercase().eq(letter.chars()))
}

/// The number of words, unless a sign that stands alone may count as one or not.
fn count_words(text: &str) -> Option<usize> {
    (bare_words(text).count() == words(text)).then(|| words(text))
}

pub fn make(source: &Source<'_>, vocabulary: &Vocabulary, rng: &mut ChaCha8Rng) -> Option<Made> {
    let question = QUESTIONS.choose(rng)?;
    let of = *question.of.choose(rng)?;
    let labels = vocabulary.pair(rng);
    let examples: Vec<_> = source
        .examples
        .iter()
        .filter_map(|(part, example)| {
            let holds = (question.holds)(&example.input, of)?;
            Some((*part, labelled(example.input.clone(), &labels, usize::from(!holds))))
        })
        .collect();
    let yes = examples.iter().filter(|(_, example)| example.answer == Some(0)).count();
    if !(examples.len() / 10..=examples.len() - examples.len() / 10).contains(&yes) {
        return None;
    }
    let said = |wordings: &[&str]| wordings.iter().map(|s| s.replace("{}", of)).collect::<Vec<_>>();
    let (train, eval) = (said(question.train), said(question.eval));
    let [train, eval] = [&train, &eval].map(|said| said.iter().map(String::as_str).collect::<Vec<_>>());
    let descriptions = wording::question(&[&train, &eval], &labels, rng);
    let what = format!("{} {}", eval.join(" "), labels.join("/"));
    Some(Made { what, descriptions, kind: Kind::Boolean, metric: Metric::Accuracy, labels, examples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_where_their_words_say() {
        let (yes, no) = (Some(true), Some(false));
        let cases = [
            ("the text contains the letter \"{}\"", "b", "A Bee", yes),
            ("the text contains the letter \"{}\"", "b", "A wasp", no),
            ("the text begins with the letter \"{}\"", "t", "Two", yes),
            ("the text begins with the letter \"{}\"", "t", "a tea", no),
            ("the text begins with the letter \"{}\"", "t", "\"Two", None),
            ("the text ends with the letter \"{}\"", "k", "The book", yes),
            ("the text ends with the letter \"{}\"", "k", "mark 5", None),
            ("the text has more than {} words", "3", "one two three four", yes),
            ("the text has more than {} words", "3", "one two three", no),
            ("the text contains the word \"{}\"", "is", "So it is.", yes),
            ("the text contains the word \"{}\"", "is", "This thing", no),
            ("the text contains a {}", "comma", "a, b", yes),
            ("the text contains a {}", "digit", "a, b", no),
            ("the text contains a {}", "question mark", "why?", yes),
            ("the text contains a {}", "full stop", "Why.", yes),
            ("the text contains a {}", "capital letter", "why", no),
            ("the text contains a {}", "hyphen", "so-so", yes),
            ("the text contains a {}", "colon", "a: b", yes),
            ("the text contains a {}", "quotation mark", "a \"b\"", yes),
            ("the text contains a {}", "quotation mark", "don't", None),
            ("the number of words is {}", "even", "two words", yes),
            ("the number of words is {}", "odd", "two words", no),
            ("the number of words is {}", "odd", "Yes , I do .", None),
            ("the text has more than {} words", "4", "Yes , I do .", None),
            ("the first word is {} than the last word", "longer", "These two.", yes),
            ("the first word is {} than the last word", "shorter", "two twos", yes),
            ("the first word is {} than the last word", "longer", "item 12345", None),
            ("some word occurs more than once", "", "The cat, the dog", yes),
            ("some word occurs more than once", "", "The cat, a dog", no),
        ];
        let mut tried = std::collections::BTreeSet::new();
        for (words, of, text, expected) in cases {
            let question = QUESTIONS.iter().find(|q| q.train.contains(&words)).expect(words);
            assert!(question.of.contains(&of), "{words}: {of:?}");
            assert_eq!((question.holds)(text, of), expected, "{words} {of}: {text}");
            tried.insert(question.eval);
        }
        assert_eq!(tried.len(), QUESTIONS.len(), "every condition is tried");
    }
}
