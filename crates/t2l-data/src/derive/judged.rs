//! An answer stands beside the input: is it right?

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::wording::{self, Wordings};
use super::{Made, Source, Vocabulary, labelled};
use crate::{Example, Kind, Metric, Part};

const OPENING: Wordings<'_> = [
    &[
        "Here an answer is already given. ",
        "An answer is proposed below the input. ",
        "At the end of the input an answer is suggested. ",
    ],
    &["The input ends with somebody's answer. "],
];

const CONDITION: Wordings<'_> = [
    &[
        "the proposed answer is right",
        "the answer at the end is correct",
        "that answer fits",
        "the suggested answer is the right one",
    ],
    &["the answer given is correct", "it is the right answer"],
];

pub fn make(source: &Source<'_>, vocabulary: &Vocabulary, rng: &mut ChaCha8Rng) -> Option<Made> {
    if !source.is_described() {
        return None;
    }
    let labels = vocabulary.pair(rng);
    let mut examples = Vec::new();
    for part in [Part::Train, Part::Valid] {
        let mut of_part: Vec<&Example> = source.of_part(part).collect();
        let accepted = accepted(&of_part);
        of_part.shuffle(rng);
        for (i, example) in of_part.iter().enumerate() {
            let right = i % 2 == 0;
            let answer = if right { Some(&example.target) } else { wrong(example, &of_part, &accepted, rng) };
            let Some(answer) = answer else { continue };
            let input = format!("{}\nAnswer: {answer}", source.turn(example));
            examples.push((part, labelled(input, &labels, usize::from(!right))));
        }
    }
    let descriptions = wording::judged(source, &OPENING, &CONDITION, &labels, rng);
    let what = labels.join("/");
    Some(Made { what, descriptions, kind: Kind::Boolean, metric: Metric::Accuracy, labels, examples })
}

/// What is no answer to an example: another of its options, else another example's answer. None of those that any example
/// of the same input accepts.
fn wrong<'a>(
    example: &'a Example,
    others: &[&'a Example],
    accepted: &Accepted<'_>,
    rng: &mut ChaCha8Rng,
) -> Option<&'a String> {
    let right = accepted.get(example.input.as_str());
    let is_wrong = |answer: &&String| right.is_none_or(|right| !right.contains(&plain(answer)));
    let options: Vec<&String> = example.choices.iter().filter(is_wrong).collect();
    if let Some(option) = options.choose(rng) {
        return Some(option);
    }
    (0..8).find_map(|_| others.choose(rng).map(|other| &other.target).filter(is_wrong))
}

/// For every input, what is accepted as its answer.
type Accepted<'a> = BTreeMap<&'a str, BTreeSet<String>>;

fn accepted<'a>(examples: &[&'a Example]) -> Accepted<'a> {
    let mut accepted = Accepted::new();
    for example in examples {
        accepted.entry(&example.input).or_default().extend(example.targets.iter().map(|answer| plain(answer)));
    }
    accepted
}

fn plain(answer: &str) -> String {
    answer.trim().to_lowercase()
}
