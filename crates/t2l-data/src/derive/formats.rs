//! The same answer in another form.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording::{self, pick};
use super::{Made, Source, free};
use crate::{Kind, Metric};

/// Wordings for training and for evaluation, `{}` being one of `of`; and what becomes of an answer, unless it has that form.
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
        train: &["Write the answer twice, with a comma between.", "Repeat the answer once, after a comma."],
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
    let of = *format.of.choose(rng)?;
    if !source.is_described() {
        return None;
    }
    let examples: Vec<_> = source
        .examples
        .iter()
        .filter_map(|(part, example)| {
            let answer = formed(format, of, example.target.trim())?;
            Some((*part, free(source.turn(example), answer)))
        })
        .collect();
    let said = [format.train, format.eval];
    let descriptions = wording::followed(source, rng, |i, rng| Some(pick(said[i], rng)?.replace("{}", of)));
    let what = format!("{} {of}", format.eval.join(" "));
    Some(Made { what, descriptions, kind: Kind::Text, metric: Metric::ExactMatch, labels: vec![], examples })
}

/// An answer in another form; nothing where it has that form already.
fn formed(format: &Format, of: &str, answer: &str) -> Option<String> {
    let already = !of.is_empty() && (answer.starts_with(of) || answer.ends_with(of));
    let formed = (format.form)(answer, of);
    (!already && !answer.is_empty() && formed != answer).then_some(formed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_the_form_that_the_words_ask_for() {
        let cases = [
            ("Answer in capitals only.", "", "Two things", Some("TWO THINGS")),
            ("Use no capital letters in the answer.", "", "Two things", Some("two things")),
            ("Use no capital letters in the answer.", "", "two", None),
            ("Begin the answer with \"{}\".", "Answer:", "two", Some("Answer: two")),
            ("End the answer with \"{}\".", ".", "two", Some("two.")),
            ("End the answer with \"{}\".", ".", "two.", None),
            ("End the answer with \"{}\".", "done", "two", Some("two done")),
            ("Put the answer in {}.", "square brackets", "two", Some("[two]")),
            ("Put the answer in {}.", "double quotes", "two", Some("\"two\"")),
            ("Put the answer in {}.", "single quotes", "two", Some("'two'")),
            ("Put the answer in {}.", "parentheses", "two", Some("(two)")),
            ("Put the answer in {}.", "angle brackets", "two", Some("<two>")),
            ("Put the answer in {}.", "asterisks", "two", Some("*two*")),
            ("Put the answer in {}.", "underscores", "two", Some("_two_")),
            ("Put the answer in {}.", "curly braces", "two", Some("{two}")),
            ("Answer as a JSON object with the key \"{}\".", "label", "a \"b\"", Some(r#"{"label":"a \"b\""}"#)),
            ("Write the answer twice, with a comma between.", "", "two", Some("two, two")),
            ("Reverse the letters of the answer.", "", "two", Some("owt")),
            ("Write underscores instead of spaces in the answer.", "", "two things", Some("two_things")),
            ("Write underscores instead of spaces in the answer.", "", "two", None),
        ];
        let mut tried = std::collections::BTreeSet::new();
        for (words, of, answer, expected) in cases {
            let format = FORMATS.iter().find(|format| format.train.contains(&words)).expect(words);
            assert!(format.of.contains(&of), "{words}: {of:?}");
            assert_eq!(formed(format, of, answer).as_deref(), expected, "{words} {of} {answer}");
            tried.insert(format.eval);
        }
        assert_eq!(tried.len(), FORMATS.len(), "every form is tried");
    }
}
