//! Words that answers are given in.

use std::collections::BTreeSet;

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

/// Share of the labels that are any words at all, so that a label must be read and cannot be known.
const ANY: f64 = 0.5;
/// Letters of a word that may be a label, from and to.
const LETTERS: std::ops::RangeInclusive<usize> = 2..=12;

/// Words that labels may be besides those above: all that stand in the sources' inputs.
pub struct Vocabulary(Vec<String>);

impl Vocabulary {
    /// Of the words of some texts.
    pub fn of<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let plain = |word: &&str| word.chars().all(char::is_alphabetic) && LETTERS.contains(&word.chars().count());
        // No two may be one in capitals: "straße" and "strasse".
        let same = |word: &String| word.to_uppercase().to_lowercase() == *word;
        let words: BTreeSet<String> = words.filter(plain).map(str::to_lowercase).filter(same).collect();
        Self(words.into_iter().collect())
    }

    /// So many of them, if there are and it is their turn.
    fn any(&self, count: usize, rng: &mut ChaCha8Rng) -> Option<Vec<&str>> {
        if !rng.random_bool(ANY) {
            return None;
        }
        let chosen: Vec<&str> = self.0.choose_multiple(rng, count).map(String::as_str).collect();
        (chosen.len() == count).then_some(chosen)
    }

    /// A word for yes and a word for no.
    pub fn pair(&self, rng: &mut ChaCha8Rng) -> Vec<String> {
        let any = self.any(2, rng);
        let said = || PAIRS.choose(rng).map_or_else(|| vec!["yes", "no"], |(yes, no)| vec![*yes, *no]);
        let words = any.unwrap_or_else(said);
        cased(&words, rng)
    }

    /// Names for so many classes, in any order: for two of them also words for yes and no.
    pub fn names(&self, count: usize, rng: &mut ChaCha8Rng) -> Option<Vec<String>> {
        if count == 2 && rng.random_bool(0.5) {
            let mut names = self.pair(rng);
            names.shuffle(rng);
            return Some(names);
        }
        let mut names = match self.any(count, rng) {
            Some(any) => any,
            None => SERIES.choose(rng)?.get(..count)?.to_vec(),
        };
        names.shuffle(rng);
        Some(cased(&names, rng))
    }
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn labels_are_words_of_the_texts_or_of_the_lists() {
        let texts = ["The river, 3 boats and a harbour.", "L'été Straße"];
        let vocabulary = Vocabulary::of(texts.into_iter().flat_map(crate::derive::bare_words));
        assert_eq!(vocabulary.0, ["and", "boats", "harbour", "river", "the"]);
        let listed = |word: &str| PAIRS.iter().any(|(yes, no)| [*yes, *no].contains(&word));
        let mut any = 0;
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let pair: Vec<String> = vocabulary.pair(&mut rng).iter().map(|word| word.to_lowercase()).collect();
            assert!(pair.len() == 2 && pair[0] != pair[1], "{pair:?}");
            let of_texts = pair.iter().all(|word| vocabulary.0.contains(word));
            assert!(of_texts || pair.iter().all(|word| listed(word)), "{pair:?}");
            any += usize::from(of_texts);
            let names = vocabulary.names(4, &mut rng).expect("there are four");
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 4, "{names:?}");
        }
        assert!((70..130).contains(&any), "{any}");
        // Lists alone where there are too few words.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert!((0..20).all(|_| Vocabulary::of(["one"].into_iter()).pair(&mut rng).len() == 2));
    }
}
