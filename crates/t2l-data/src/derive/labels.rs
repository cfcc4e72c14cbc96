//! Words that answers are given in.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What says yes, and what says no.
const PAIRS: &[(&str, &str)] = &[
    ("yes", "no"),
    ("true", "false"),
    ("right", "wrong"),
    ("correct", "incorrect"),
    ("valid", "invalid"),
    ("accept", "reject"),
    ("pass", "fail"),
    ("good", "bad"),
    ("agree", "disagree"),
    ("positive", "negative"),
    ("match", "mismatch"),
    ("likely", "unlikely"),
    ("possible", "impossible"),
    ("plausible", "implausible"),
    ("consistent", "inconsistent"),
    ("supported", "unsupported"),
    ("confirmed", "refuted"),
    ("proven", "disproven"),
    ("sound", "unsound"),
    ("certain", "doubtful"),
    ("fact", "fiction"),
    ("real", "fake"),
    ("genuine", "bogus"),
    ("keep", "drop"),
    ("allow", "deny"),
    ("approve", "refuse"),
    ("present", "absent"),
    ("found", "missing"),
    ("high", "low"),
    ("up", "down"),
    ("on", "off"),
    ("in", "out"),
    ("hit", "miss"),
    ("win", "loss"),
    ("safe", "unsafe"),
    ("legal", "illegal"),
    ("strong", "weak"),
    ("full", "empty"),
    ("open", "closed"),
    ("green", "red"),
    ("white", "black"),
    ("sure", "not sure"),
    ("it is", "it is not"),
    ("holds", "fails"),
    ("yep", "nope"),
    ("y", "n"),
    ("t", "f"),
    ("1", "0"),
    ("1", "2"),
    ("a", "b"),
    ("x", "o"),
    ("+", "-"),
    ("ok", "error"),
];

/// Names that stand for anything.
const SERIES: &[&[&str]] = &[
    &["a", "b", "c", "d", "e", "f", "g", "h"],
    &["1", "2", "3", "4", "5", "6", "7", "8"],
    &["i", "ii", "iii", "iv", "v", "vi", "vii", "viii"],
    &["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"],
    &["red", "blue", "green", "yellow", "white", "black", "orange", "purple"],
    &["cat", "dog", "horse", "cow", "sheep", "bird", "fish", "lion"],
    &["apple", "banana", "cherry", "grape", "lemon", "peach", "plum", "pear"],
    &["north", "south", "east", "west", "up", "down", "left", "right"],
    &["one", "two", "three", "four", "five", "six", "seven", "eight"],
    &["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"],
    &["spring", "summer", "autumn", "winter", "morning", "noon", "evening", "night"],
    &["bread", "milk", "cheese", "rice", "soup", "salt", "honey", "tea"],
    &["option 1", "option 2", "option 3", "option 4", "option 5", "option 6", "option 7", "option 8"],
    &["class a", "class b", "class c", "class d", "class e", "class f", "class g", "class h"],
];

/// A word for yes and a word for no.
pub fn pair(rng: &mut ChaCha8Rng) -> Vec<String> {
    let (yes, no) = PAIRS.choose(rng).copied().unwrap_or(("yes", "no"));
    cased(&[yes, no], rng)
}

/// Names for so many classes, in any order: for two of them also words for yes and no.
pub fn names(count: usize, rng: &mut ChaCha8Rng) -> Option<Vec<String>> {
    if count == 2 && rng.random_bool(0.5) {
        let mut names = pair(rng);
        names.shuffle(rng);
        return Some(names);
    }
    let mut series = SERIES.choose(rng)?.get(..count)?.to_vec();
    series.shuffle(rng);
    Some(cased(&series, rng))
}

/// All of them in lower case, with a capital, or, now and then, in capitals.
fn cased(words: &[&str], rng: &mut ChaCha8Rng) -> Vec<String> {
    let style = rng.random_range(0..10);
    let cased = |word: &&str| match style {
        0..5 => (*word).to_owned(),
        5..9 => {
            let mut chars = word.chars();
            chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
        }
        _ => word.to_uppercase(),
    };
    words.iter().map(cased).collect()
}
