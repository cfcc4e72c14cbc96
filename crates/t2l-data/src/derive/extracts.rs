//! Something else asked of the same text.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording::{self, Wordings};
use super::{Made, Source, bare, free};
use crate::{Kind, Metric};

/// Words of the longest text that is asked back whole.
const WHOLE: usize = 15;

/// What is asked for, in words for training and for evaluation; and what it is in a text of these words, unless that may
/// be argued about.
struct Extract {
    what: Wordings<'static>,
    number: bool,
    of: fn(&[&str]) -> Option<String>,
}

const fn text(what: Wordings<'static>, of: fn(&[&str]) -> Option<String>) -> Extract {
    Extract { what, number: false, of }
}

const fn number(what: Wordings<'static>, of: fn(&[&str]) -> Option<String>) -> Extract {
    Extract { what, number: true, of }
}

const EXTRACTS: &[Extract] = &[
    text([&["the first word of the text", "the word that the text begins with"], &["the opening word"]], |w| {
        word(w.first())
    }),
    text([&["the last word of the text", "the word that the text ends with"], &["the closing word"]], |w| {
        word(w.last())
    }),
    text([&["the second word of the text", "the word after the first one"], &["the word in second place"]], |w| {
        word(w.get(1))
    }),
    text([&["the third word of the text", "word number three of the text"], &["the word in third place"]], |w| {
        word(w.get(2))
    }),
    text([&["the first two words of the text", "the two words at the beginning"], &["the opening two words"]], |w| {
        joined(w.get(..2)?, " ")
    }),
    text([&["the last two words of the text", "the two words at the end"], &["the closing two words"]], |w| {
        joined(w.get(w.len().checked_sub(2)?..)?, " ")
    }),
    text(
        [&["the longest word of the text", "the word with the most letters"], &["the word that is the longest"]],
        |w| utmost(w, |length, most| length > most),
    ),
    text(
        [&["the shortest word of the text", "the word with the fewest letters"], &["the word that is the shortest"]],
        |w| utmost(w, |length, least| length < least),
    ),
    text(
        [
            &["the word that comes first in alphabetical order", "the alphabetically first word of the text"],
            &["the word that a dictionary would list first"],
        ],
        |w| {
            let words = w.iter().map(|word| letters(word)).collect::<Option<Vec<_>>>()?;
            words.into_iter().min_by_key(|word| word.to_lowercase()).map(str::to_owned)
        },
    ),
    text([&["the first letter of the text", "the letter that the text begins with"], &["the opening letter"]], |w| {
        initial(w.first()?)
    }),
    text(
        [&["the first letter of every word", "the initials of all words"], &["the letters that the words begin with"]],
        |w| {
            let initials = w.iter().map(initial).collect::<Option<Vec<_>>>()?;
            short(w)?;
            Some(initials.join(" "))
        },
    ),
    text([&["the text in capital letters", "the same text in upper case"], &["the whole text in capitals"]], |w| {
        joined(short(w)?, " ").map(|text| text.to_uppercase())
    }),
    text(
        [&["the text in lower case", "the same text without capital letters"], &["the whole text in small letters"]],
        |w| joined(short(w)?, " ").map(|text| text.to_lowercase()),
    ),
    text(
        [
            &["the words of the text in reverse order", "the same words from the last to the first"],
            &["the text with its words the other way round"],
        ],
        |w| joined(&short(w)?.iter().rev().copied().collect::<Vec<_>>(), " "),
    ),
    text([&["the text without its first word", "all words but the first"], &["what follows the first word"]], |w| {
        joined(short(w)?.get(1..)?, " ")
    }),
    text([&["the text without its last word", "all words but the last"], &["what stands before the last word"]], |w| {
        joined(short(w)?.split_last()?.1, " ")
    }),
    text([&["the same text again", "a copy of the text"], &["the text as it is"]], |w| joined(short(w)?, " ")),
    text(
        [
            &["the words of the text with commas instead of spaces", "the same text with every space made a comma"],
            &["the words with commas between them and no spaces"],
        ],
        |w| joined(short(w)?, ","),
    ),
    text(
        [
            &["the words joined by hyphens", "the text with hyphens instead of spaces"],
            &["the words with hyphens between them"],
        ],
        |w| joined(short(w)?, "-"),
    ),
    text(
        [
            &["the first word backwards", "the first word with its letters in reverse"],
            &["the opening word spelled from its end"],
        ],
        |w| Some(letters(w.first()?)?.chars().rev().collect()),
    ),
    number([&["the number of words in the text", "the count of words in the text"], &["the word count"]], |w| {
        Some(w.len().to_string())
    }),
    number(
        [
            &["the number of letters of the first word", "the length of the first word in letters"],
            &["the count of letters in the opening word"],
        ],
        |w| Some(letters(w.first()?)?.chars().count().to_string()),
    ),
    number(
        [
            &["the number of letters of the last word", "the length of the last word in letters"],
            &["the count of letters in the closing word"],
        ],
        |w| Some(letters(w.last()?)?.chars().count().to_string()),
    ),
    number(
        [
            &["the number of times that the letter e occurs in the text", "the number of e's in the text"],
            &["the count of the letter e"],
        ],
        |w| Some(w.join(" ").to_lowercase().matches('e').count().to_string()),
    ),
];

pub fn make(source: &Source<'_>, rng: &mut ChaCha8Rng) -> Option<Made> {
    let extract = EXTRACTS.choose(rng)?;
    let examples = source
        .examples
        .iter()
        .filter_map(|(part, example)| Some((*part, free(example.input.clone(), extracted(extract, &example.input)?))));
    let examples = examples.collect();
    let (kind, metric) =
        if extract.number { (Kind::Number, Metric::Numeric) } else { (Kind::Text, Metric::ExactMatch) };
    let descriptions = wording::request(&extract.what, rng);
    let what = extract.what[1].join(" ");
    Some(Made { what, descriptions, kind, metric, labels: vec![], examples })
}

/// Of a text whose words stand one space apart.
fn extracted(extract: &Extract, input: &str) -> Option<String> {
    let words: Vec<&str> = input.split_whitespace().collect();
    // A sign that stands alone may count as a word or not.
    if words.len() < 2 || words.join(" ") != input || words.iter().any(|word| bare(word).is_empty()) {
        return None;
    }
    (extract.of)(&words).filter(|answer| !answer.is_empty())
}

/// A word without the signs around it.
fn word(word: Option<&&str>) -> Option<String> {
    word.map(|word| bare(word).to_owned())
}

/// A word without the signs around it, if it is letters and nothing else.
fn letters<'a>(word: &&'a str) -> Option<&'a str> {
    let word = bare(word);
    (!word.is_empty() && word.chars().all(char::is_alphabetic)).then_some(word)
}

fn initial(word: &&str) -> Option<String> {
    word.chars().next().filter(|c| c.is_alphabetic()).map(String::from)
}

/// The one word whose length beats all others'.
fn utmost(words: &[&str], beats: fn(usize, usize) -> bool) -> Option<String> {
    let words = words.iter().map(letters).collect::<Option<Vec<_>>>()?;
    let length = |word: &str| word.chars().count();
    let first = |(i, word): &(usize, &&str)| {
        words.iter().enumerate().all(|(j, other)| *i == j || beats(length(word), length(other)))
    };
    words.iter().enumerate().find(first).map(|(_, word)| (*word).to_owned())
}

fn short<'a, 'b>(words: &'b [&'a str]) -> Option<&'b [&'a str]> {
    (words.len() <= WHOLE).then_some(words)
}

fn joined(words: &[&str], by: &str) -> Option<String> {
    Some(words.join(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_what_their_words_ask_for() {
        let text = "Two wise old owls, sleeping";
        let cases = [
            ("the first word of the text", text, Some("Two")),
            ("the last word of the text", "He sleeps.", Some("sleeps")),
            ("the second word of the text", text, Some("wise")),
            ("the third word of the text", "one two", None),
            ("the third word of the text", text, Some("old")),
            ("the first two words of the text", text, Some("Two wise")),
            ("the last two words of the text", text, Some("owls, sleeping")),
            ("the longest word of the text", text, Some("sleeping")),
            ("the longest word of the text", "two old men", None),
            ("the shortest word of the text", text, None),
            ("the shortest word of the text", "An old man", Some("An")),
            ("the alphabetically first word of the text", text, Some("old")),
            ("the first letter of the text", text, Some("T")),
            ("the first letter of the text", "7 owls", None),
            ("the first letter of every word", text, Some("T w o o s")),
            ("the text in capital letters", "Old owls", Some("OLD OWLS")),
            ("the text in lower case", "Old owls", Some("old owls")),
            ("the words of the text in reverse order", "Old wise owls", Some("owls wise Old")),
            ("the text without its first word", "Old wise owls", Some("wise owls")),
            ("the text without its last word", "Old wise owls", Some("Old wise")),
            ("a copy of the text", "Old owls", Some("Old owls")),
            ("a copy of the text", "Old  owls", None),
            ("the words of the text with commas instead of spaces", "Old owls", Some("Old,owls")),
            ("the words joined by hyphens", "Old owls", Some("Old-owls")),
            ("the first word backwards", "Old owls", Some("dlO")),
            ("the number of words in the text", text, Some("5")),
            ("the number of letters of the first word", "Old owls", Some("3")),
            ("the number of letters of the first word", "3rd owls", None),
            ("the number of letters of the last word", "Old owls!", Some("4")),
            ("the number of e's in the text", text, Some("3")),
            ("the third word of the text", "Yes , I do .", None),
            ("the number of words in the text", "Yes , I do .", None),
        ];
        let mut tried = std::collections::BTreeSet::new();
        for (words, text, expected) in cases {
            let extract = EXTRACTS.iter().find(|e| e.what[0].contains(&words)).expect(words);
            assert_eq!(extracted(extract, text).as_deref(), expected, "{words}: {text}");
            tried.insert(extract.what[1]);
        }
        assert_eq!(tried.len(), EXTRACTS.len(), "everything is tried");
    }
}
