//! Something else asked of the same text.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording::{self, Wordings};
use super::{Made, Source, free};
use crate::{Kind, Metric};

/// Words of the longest text that is asked back whole.
const WHOLE: usize = 15;

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
        owned(w.first())
    }),
    text([&["the last word of the text", "the word that the text ends with"], &["the closing word"]], |w| {
        owned(w.last())
    }),
    text([&["the second word of the text", "the word after the first one"], &["the word in second place"]], |w| {
        owned(w.get(1))
    }),
    text([&["the third word of the text", "the word number three"], &["the word in third place"]], |w| owned(w.get(2))),
    text([&["the first two words of the text", "the two words at the beginning"], &["the opening two words"]], |w| {
        joined(w.get(..2)?)
    }),
    text([&["the last two words of the text", "the two words at the end"], &["the closing two words"]], |w| {
        joined(w.get(w.len().checked_sub(2)?..)?)
    }),
    text(
        [&["the longest word of the text", "the word with the most letters"], &["the word that is the longest"]],
        |w| owned(w.iter().rev().max_by_key(|word| word.chars().count())),
    ),
    text(
        [&["the shortest word of the text", "the word with the fewest letters"], &["the word that is the shortest"]],
        |w| owned(w.iter().min_by_key(|word| word.chars().count())),
    ),
    text(
        [
            &["the word that comes first in alphabetical order", "the alphabetically first word of the text"],
            &["the word that a dictionary would list first"],
        ],
        |w| owned(w.iter().min_by_key(|word| word.to_lowercase())),
    ),
    text([&["the first letter of the text", "the letter that the text begins with"], &["the opening letter"]], |w| {
        Some(w.first()?.chars().next()?.to_string())
    }),
    text(
        [&["the first letter of every word", "the initials of all words"], &["the letters that the words begin with"]],
        |w| {
            let initials: Vec<String> = w.iter().filter_map(|word| Some(word.chars().next()?.to_string())).collect();
            short(w).then(|| initials.join(" "))
        },
    ),
    text([&["the text in capital letters", "the same text in upper case"], &["the whole text in capitals"]], |w| {
        short(w).then(|| w.join(" ").to_uppercase())
    }),
    text(
        [&["the text in lower case", "the same text without capital letters"], &["the whole text in small letters"]],
        |w| short(w).then(|| w.join(" ").to_lowercase()),
    ),
    text(
        [
            &["the words of the text in reverse order", "the same words from the last to the first"],
            &["the text with its words the other way round"],
        ],
        |w| short(w).then(|| w.iter().rev().copied().collect::<Vec<_>>().join(" ")),
    ),
    text([&["the text without its first word", "all words but the first"], &["what follows the first word"]], |w| {
        if short(w) { joined(w.get(1..)?) } else { None }
    }),
    text([&["the text without its last word", "all words but the last"], &["what stands before the last word"]], |w| {
        if short(w) { joined(w.split_last()?.1) } else { None }
    }),
    text([&["the same text again", "a copy of the text"], &["the text as it is"]], |w| {
        if short(w) { joined(w) } else { None }
    }),
    text(
        [
            &["the words of the text separated by commas", "a comma-separated list of the words"],
            &["the words with commas between them"],
        ],
        |w| short(w).then(|| w.join(", ")),
    ),
    text(
        [
            &["the words joined by hyphens", "the text with hyphens instead of spaces"],
            &["the words with hyphens between them"],
        ],
        |w| short(w).then(|| w.join("-")),
    ),
    text(
        [
            &["the first word backwards", "the first word with its letters in reverse"],
            &["the opening word spelled from its end"],
        ],
        |w| Some(w.first()?.chars().rev().collect()),
    ),
    number([&["the number of words in the text", "how many words the text has"], &["the count of words"]], |w| {
        Some(w.len().to_string())
    }),
    number(
        [
            &["the number of letters of the first word", "how long the first word is, in letters"],
            &["the length of the opening word in letters"],
        ],
        |w| Some(w.first()?.chars().count().to_string()),
    ),
    number(
        [
            &["the number of letters of the last word", "how long the last word is, in letters"],
            &["the length of the closing word in letters"],
        ],
        |w| Some(w.last()?.chars().count().to_string()),
    ),
    number(
        [
            &["how often the letter e occurs in the text", "the number of e's in the text"],
            &["the count of the letter e"],
        ],
        |w| Some(w.join(" ").to_lowercase().matches('e').count().to_string()),
    ),
];

pub fn make(source: &Source<'_>, rng: &mut ChaCha8Rng) -> Option<Made> {
    let extract = EXTRACTS.choose(rng)?;
    let examples = source.examples.iter().filter_map(|(part, example)| {
        let words: Vec<&str> = example.input.split_whitespace().collect();
        let target = (extract.of)(&words).filter(|_| words.len() > 1)?;
        Some((*part, free(example.input.clone(), target)))
    });
    let examples = examples.collect();
    let (kind, metric) =
        if extract.number { (Kind::Number, Metric::Numeric) } else { (Kind::Text, Metric::ExactMatch) };
    let descriptions = wording::request(&extract.what, rng);
    Some(Made { descriptions, kind, metric, labels: vec![], examples })
}

fn short(words: &[&str]) -> bool {
    words.len() <= WHOLE
}

fn owned(word: Option<&&str>) -> Option<String> {
    word.map(|word| (*word).to_owned())
}

fn joined(words: &[&str]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}
