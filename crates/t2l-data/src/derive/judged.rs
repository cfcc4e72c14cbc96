//! An answer stands beside the input: is it right?

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::wording::{self, Wordings};
use super::{Made, Source, labelled, labels};
use crate::{Example, Kind, Metric, Part};

const OPENING: Wordings<'_> = [
    &[
        "Here an answer is already given. ",
        "An answer is proposed below the input. ",
        "The last line suggests an answer. ",
    ],
    &["The input ends with somebody's answer. "],
];

const CONDITION: Wordings<'_> = [
    &[
        "the proposed answer is right",
        "the answer in the last line is correct",
        "that answer fits",
        "the suggested answer is the right one",
    ],
    &["the answer given is correct", "it is the right answer"],
];

pub fn make(source: &Source<'_>, rng: &mut ChaCha8Rng) -> Option<Made> {
    let labels = labels::pair(rng);
    let mut examples = Vec::new();
    for part in [Part::Train, Part::Valid] {
        let mut of_part: Vec<&Example> = source.examples.iter().filter(|(p, _)| *p == part).map(|(_, e)| e).collect();
        of_part.shuffle(rng);
        for (i, example) in of_part.iter().enumerate() {
            let right = i % 2 == 0;
            let answer = if right { Some(&example.target) } else { wrong(example, &of_part, rng) };
            let Some(answer) = answer else { continue };
            let input = format!("{}\nAnswer: {answer}", source.turn(example));
            examples.push((part, labelled(input, &labels, usize::from(!right))));
        }
    }
    let descriptions = wording::judged(source, &OPENING, &CONDITION, &labels, rng);
    Some(Made { descriptions, kind: Kind::Boolean, metric: Metric::Accuracy, labels, examples })
}

/// What is no answer to an example: another of its options, else another example's answer.
fn wrong<'a>(example: &'a Example, others: &[&'a Example], rng: &mut ChaCha8Rng) -> Option<&'a String> {
    let is_wrong = |answer: &&String| !example.targets.contains(answer);
    let options: Vec<&String> = example.choices.iter().filter(is_wrong).collect();
    if let Some(option) = options.choose(rng) {
        return Some(option);
    }
    (0..8).find_map(|_| others.choose(rng).map(|other| &other.target).filter(is_wrong))
}
