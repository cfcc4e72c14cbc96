//! The same classes under other names.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording;
use super::{Made, Source, Vocabulary, labelled, words};
use crate::{Kind, Metric};

/// Most classes of a source, and most words of one's name. Each class must have a tenth of what an equal share would be.
pub const CLASSES: usize = 8;
const NAME: usize = 4;

/// One class of several.
const EACH: [&[(&str, &str)]; 2] = [
    &[
        ("Write ", "\"{new}\" instead of \"{old}\""),
        ("Use ", "\"{new}\" for \"{old}\""),
        ("Answer ", "\"{new}\" where it is \"{old}\""),
        ("The answers are ", "\"{new}\" ({old})"),
        ("Say ", "\"{new}\" if it would be \"{old}\""),
    ],
    &[("Give ", "\"{new}\" for \"{old}\""), ("Reply ", "\"{new}\" in place of \"{old}\"")],
];

pub fn make(source: &Source<'_>, vocabulary: &Vocabulary, rng: &mut ChaCha8Rng) -> Option<Made> {
    if source.task.show_options || !source.is_described() {
        return None;
    }
    let old = classes(source)?;
    // A class that keeps its name would ask for nothing.
    let new = vocabulary.names(old.len(), rng)?;
    if old.iter().zip(&new).any(|(old, new)| old.to_lowercase() == new.to_lowercase()) {
        return None;
    }
    let examples = source.examples.iter().filter_map(|(part, example)| {
        let answer = old.iter().position(|name| *name == example.target)?;
        Some((*part, labelled(example.input.clone(), &new, answer)))
    });
    let examples = examples.collect();
    let descriptions = wording::followed(source, rng, |i, rng| {
        let (opening, each) = EACH[i].choose(rng)?;
        let each: Vec<String> =
            old.iter().zip(&new).map(|(old, new)| each.replace("{new}", new).replace("{old}", old)).collect();
        let (last, first) = each.split_last()?;
        Some(format!("{opening}{} and {last}.", first.join(", ")))
    });
    let what = new.join("/");
    Some(Made { what, descriptions, kind: Kind::Choice, metric: Metric::Accuracy, labels: new, examples })
}

/// The answers of a source that has few.
fn classes(source: &Source<'_>) -> Option<Vec<String>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, example) in &source.examples {
        *counts.entry(&example.target).or_default() += 1;
        if counts.len() > CLASSES || words(&example.target) > NAME {
            return None;
        }
    }
    let least = source.examples.len() / (10 * counts.len().max(1));
    let often = counts.values().all(|count| *count >= least.max(2));
    (counts.len() >= 2 && often).then(|| counts.keys().map(|name| (*name).to_owned()).collect())
}
