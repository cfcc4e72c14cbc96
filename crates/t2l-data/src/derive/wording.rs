//! How derived tasks are told: some wordings for training, others for evaluation.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::Source;
use crate::Descriptions;

/// Descriptions of a derived task for training, and for evaluation.
const COUNTS: [usize; 2] = [4, 2];

/// Says on which condition `{yes}` is the answer and on which `{no}`.
const CONDITION: [&[&str]; 2] = [
    &[
        "Answer \"{yes}\" if {condition} and \"{no}\" if not.",
        "Say \"{yes}\" when {condition}, otherwise \"{no}\".",
        "Reply with \"{yes}\" or \"{no}\": \"{yes}\" means that {condition}.",
        "If {condition}, write \"{yes}\"; if not, write \"{no}\".",
        "Decide whether {condition}. The answer is \"{yes}\" if so, else \"{no}\".",
        "You must judge if {condition}; respond \"{yes}\" in that case and \"{no}\" in the other.",
        "Output \"{yes}\" where {condition} and \"{no}\" where that is not so.",
        "Is it so that {condition}? Give \"{yes}\" for yes and \"{no}\" for no.",
    ],
    &[
        "Tell whether {condition}, giving \"{yes}\" if it is so and \"{no}\" otherwise.",
        "Check if {condition}: \"{yes}\" if so, \"{no}\" if not.",
    ],
];

/// Asks for something.
const REQUEST: [&[&str]; 2] = [
    &[
        "Write {what}.",
        "Return {what} and nothing else.",
        "Your task is to give {what}.",
        "Output {what}.",
        "You see a text; reply with {what}.",
        "Read the input and find {what}.",
        "The answer is {what}.",
        "From the given text, take {what}.",
    ],
    &["Given a text, produce {what}.", "Respond with {what}."],
];

/// What may stand before a condition on a text.
const OPENING: [&[&str]; 2] = [
    &[
        "",
        "You are given a text. ",
        "Read the input. ",
        "Look at the text. ",
        "The input is some text. ",
        "For each text: ",
    ],
    &["Consider the given text. ", ""],
];

/// Several wordings of one thing: for training, and for evaluation.
pub type Wordings<'a> = [&'a [&'a str]; 2];

/// Descriptions of a question about a text that is answered with two words.
pub fn question(condition: &Wordings<'_>, labels: &[String], rng: &mut ChaCha8Rng) -> Descriptions {
    describe(rng, |i, rng| Some(pick(OPENING[i], rng)? + &on_condition(i, condition, labels, rng)?))
}

/// Descriptions of a request for something.
pub fn request(what: &Wordings<'_>, rng: &mut ChaCha8Rng) -> Descriptions {
    describe(rng, |i, rng| Some(pick(REQUEST[i], rng)?.replace("{what}", &pick(what[i], rng)?)))
}

/// A source's descriptions followed by a condition on which to answer with one of two words.
pub fn judged(
    source: &Source<'_>,
    opening: &Wordings<'_>,
    condition: &Wordings<'_>,
    labels: &[String],
    rng: &mut ChaCha8Rng,
) -> Descriptions {
    followed(source, rng, |i, rng| Some(pick(opening[i], rng)? + &on_condition(i, condition, labels, rng)?))
}

/// A source's descriptions followed by something.
pub fn followed(
    source: &Source<'_>,
    rng: &mut ChaCha8Rng,
    more: impl Fn(usize, &mut ChaCha8Rng) -> Option<String>,
) -> Descriptions {
    describe(rng, |i, rng| Some(format!("{} {}", source.descriptions()[i].choose(rng)?, more(i, rng)?)))
}

/// One of several wordings.
pub fn pick(wordings: &[&str], rng: &mut ChaCha8Rng) -> Option<String> {
    wordings.choose(rng).map(|wording| (*wording).to_owned())
}

fn on_condition(i: usize, condition: &Wordings<'_>, labels: &[String], rng: &mut ChaCha8Rng) -> Option<String> {
    let [yes, no] = labels else { return None };
    let sentence = pick(CONDITION[i], rng)?.replace("{condition}", &pick(condition[i], rng)?);
    Some(sentence.replace("{yes}", yes).replace("{no}", no))
}

/// Draws descriptions for training and for evaluation without saying anything twice.
fn describe(rng: &mut ChaCha8Rng, say: impl Fn(usize, &mut ChaCha8Rng) -> Option<String>) -> Descriptions {
    let [train, eval] = [0, 1].map(|i| {
        let mut said: Vec<String> = Vec::new();
        // Some wordings meet: a few draws more than are wanted.
        for _ in 0..4 * COUNTS[i] {
            said.extend(say(i, rng).filter(|text| said.len() < COUNTS[i] && !said.contains(text)));
        }
        said
    });
    let eval = eval.into_iter().filter(|text| !train.contains(text)).collect();
    Descriptions { train, eval }
}
