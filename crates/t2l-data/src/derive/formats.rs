//! The same answer in another form.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording::{self, pick};
use super::{Made, Source, free};
use crate::{Kind, Metric};

/// Wordings for training and for evaluation, `{}` being one of `of`; and what becomes of an answer.
struct Format {
    train: &'static [&'static str],
    eval: &'static [&'static str],
    of: &'static [&'static str],
    form: fn(&str, &str) -> String,
}

const FORMATS: &[Format] = &[
    Format {
        train: &[
            "Write the answer in capital letters.",
            "The answer must be in upper case.",
            "Answer in capitals only.",
        ],
        eval: &["Give the result in upper-case letters."],
        of: &[""],
        form: |answer, _| answer.to_uppercase(),
    },
    Format {
        train: &["Write the answer in lower case.", "Use no capital letters in the answer."],
        eval: &["Give the result in small letters."],
        of: &[""],
        form: |answer, _| answer.to_lowercase(),
    },
    Format {
        train: &["Begin the answer with \"{}\".", "Write \"{}\" before the answer.", "The answer comes after \"{}\"."],
        eval: &["Put \"{}\" in front of the result."],
        of: &[
            "Answer:",
            "Result:",
            "Output:",
            "->",
            "=>",
            "The answer is",
            "So:",
            "A:",
            "Final answer:",
            "I think",
            "#",
            "1.",
        ],
        form: |answer, before| format!("{before} {answer}"),
    },
    Format {
        train: &["End the answer with \"{}\".", "Write \"{}\" after the answer.", "The answer is followed by \"{}\"."],
        eval: &["Put \"{}\" behind the result."],
        of: &[".", "!", ";", "(end)", "done", "thanks", "ok", "?"],
        form: |answer, after| {
            let gap = if after.starts_with(|c: char| c.is_ascii_punctuation() && c != '(') { "" } else { " " };
            format!("{answer}{gap}{after}")
        },
    },
    Format {
        train: &["Put the answer in {}.", "The answer stands in {}.", "Write {} around the answer."],
        eval: &["Enclose the result in {}."],
        of: &[
            "double quotes",
            "single quotes",
            "square brackets",
            "parentheses",
            "angle brackets",
            "asterisks",
            "underscores",
            "curly braces",
        ],
        form: |answer, signs| {
            let (open, close) = match signs {
                "double quotes" => ("\"", "\""),
                "single quotes" => ("'", "'"),
                "square brackets" => ("[", "]"),
                "parentheses" => ("(", ")"),
                "angle brackets" => ("<", ">"),
                "asterisks" => ("*", "*"),
                "underscores" => ("_", "_"),
                _ => ("{", "}"),
            };
            format!("{open}{answer}{close}")
        },
    },
    Format {
        train: &["Answer as a JSON object with the key \"{}\".", "Write JSON: the answer under \"{}\"."],
        eval: &["Give the result as JSON, in a field \"{}\"."],
        of: &["answer", "result", "output", "value", "label", "text"],
        form: |answer, key| serde_json::json!({ key: answer }).to_string(),
    },
    Format {
        train: &["Write the answer twice.", "Repeat the answer once, with a comma between."],
        eval: &["Give the result two times, separated by a comma."],
        of: &[""],
        form: |answer, _| format!("{answer}, {answer}"),
    },
    Format {
        train: &["Write the answer backwards, letter by letter.", "Reverse the letters of the answer."],
        eval: &["Give the result spelled from its end."],
        of: &[""],
        form: |answer, _| answer.chars().rev().collect(),
    },
    Format {
        train: &[
            "Write underscores instead of spaces in the answer.",
            "Join the words of the answer with underscores.",
        ],
        eval: &["Give the result with an underscore for every space."],
        of: &[""],
        form: |answer, _| answer.split_whitespace().collect::<Vec<_>>().join("_"),
    },
];

pub fn make(source: &Source<'_>, rng: &mut ChaCha8Rng) -> Option<Made> {
    let format = FORMATS.choose(rng)?;
    let of = format.of.get(rng.random_range(0..format.of.len()))?;
    let formed = |answer: &str| (format.form)(answer, of);
    let examples: Vec<_> = source
        .examples
        .iter()
        .map(|(part, example)| (*part, free(source.turn(example), formed(&example.target))))
        .collect();
    // A form that answers have already asks for nothing.
    let changed = source.examples.iter().filter(|(_, example)| formed(&example.target) != example.target).count();
    if changed * 2 < examples.len() {
        return None;
    }
    let said = [format.train, format.eval];
    let descriptions = wording::followed(source, rng, |i, rng| Some(pick(said[i], rng)?.replace("{}", of)));
    Some(Made { descriptions, kind: Kind::Text, metric: Metric::ExactMatch, labels: vec![], examples })
}
