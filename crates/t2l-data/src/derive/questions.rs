//! Something about a text that can be answered with yes or no, in words that the description names.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording;
use super::{Made, Source, labelled, labels, words};
use crate::{Kind, Metric};

/// Wordings of a condition for training and for evaluation, `{}` being what it speaks of; and when it holds.
struct Question {
    train: &'static [&'static str],
    eval: &'static [&'static str],
    /// What `{}` may be.
    of: &'static [&'static str],
    holds: fn(&str, &str) -> bool,
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
            "there is a \"{}\" somewhere in it",
        ],
        eval: &["the text has the letter \"{}\" in it"],
        of: LETTERS,
        holds: |text, letter| text.to_lowercase().contains(letter),
    },
    Question {
        train: &[
            "the text begins with the letter \"{}\"",
            "its first letter is \"{}\"",
            "the first word starts with \"{}\"",
        ],
        eval: &["the text starts with \"{}\""],
        of: LETTERS,
        holds: |text, letter| text.to_lowercase().starts_with(letter),
    },
    Question {
        train: &["the last word ends with the letter \"{}\"", "\"{}\" is the last letter of the text"],
        eval: &["the text ends with the letter \"{}\""],
        of: LETTERS,
        holds: |text, letter| text.to_lowercase().trim_end_matches(|c: char| !c.is_alphanumeric()).ends_with(letter),
    },
    Question {
        train: &["the text has more than {} words", "there are over {} words", "it is longer than {} words"],
        eval: &["the number of words is above {}"],
        of: COUNTS,
        holds: |text, count| words(text) > count.parse().unwrap_or(0),
    },
    Question {
        train: &["the word \"{}\" is used", "the text contains the word \"{}\"", "one of the words is \"{}\""],
        eval: &["the word \"{}\" appears in the text"],
        of: WORDS,
        holds: |text, word| plain_words(text).any(|w| w == word),
    },
    Question {
        train: &["the text contains a {}", "there is a {} in it", "a {} can be seen in the text"],
        eval: &["the text has a {} in it"],
        of: &["comma", "digit", "question mark", "full stop", "capital letter", "hyphen", "quotation mark", "colon"],
        holds: |text, sign| match sign {
            "comma" => text.contains(','),
            "digit" => text.contains(|c: char| c.is_ascii_digit()),
            "question mark" => text.contains('?'),
            "full stop" => text.contains('.'),
            "capital letter" => text.contains(char::is_uppercase),
            "hyphen" => text.contains('-'),
            "quotation mark" => text.contains(['"', '\'']),
            _ => text.contains(':'),
        },
    },
    Question {
        train: &["the number of words is {}", "there is an {} count of words"],
        eval: &["the text has an {} number of words"],
        of: &["even", "odd"],
        holds: |text, which| words(text).is_multiple_of(2) == (which == "even"),
    },
    Question {
        train: &["the first word is {} than the last one", "the opening word has {} letters than the closing one"],
        eval: &["the word at the start is {} than the word at the end"],
        of: &["longer", "shorter"],
        holds: |text, which| {
            let length = |word: Option<&str>| word.map_or(0, |w| w.chars().count());
            let (first, last) = (length(text.split_whitespace().next()), length(text.split_whitespace().last()));
            if which == "longer" { first > last } else { first < last }
        },
    },
    Question {
        train: &["some word occurs {}", "a word stands in it {}"],
        eval: &["there is a word that appears {}"],
        of: &["twice or more", "more than once"],
        holds: |text, _| {
            let mut seen = std::collections::BTreeSet::new();
            plain_words(text).any(|word| !seen.insert(word))
        },
    },
];

pub fn make(source: &Source<'_>, rng: &mut ChaCha8Rng) -> Option<Made> {
    let question = QUESTIONS.choose(rng)?;
    let of = question.of.get(rng.random_range(0..question.of.len()))?;
    let labels = labels::pair(rng);
    let examples: Vec<_> = source
        .examples
        .iter()
        .map(|(part, example)| {
            let holds = (question.holds)(&example.input, of);
            (*part, labelled(example.input.clone(), &labels, usize::from(!holds)))
        })
        .collect();
    let yes = examples.iter().filter(|(_, example)| example.answer == Some(0)).count();
    if !(examples.len() / 10..=examples.len() - examples.len() / 10).contains(&yes) {
        return None;
    }
    let [train, eval] =
        [question.train, question.eval].map(|said| said.iter().map(|s| s.replace("{}", of)).collect::<Vec<_>>());
    let [train, eval] = [&train, &eval].map(|said| said.iter().map(String::as_str).collect::<Vec<_>>());
    let descriptions = wording::question(&[&train, &eval], &labels, rng);
    Some(Made { descriptions, kind: Kind::Boolean, metric: Metric::Accuracy, labels, examples })
}

/// Words in lower case, without the signs around them.
fn plain_words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace()
        .map(|w| w.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|w| !w.is_empty())
}
