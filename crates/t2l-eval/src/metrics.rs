//! Judging generated text.

/// First line, trimmed: what counts of an answer whose target is one line.
pub fn first_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or("").trim()
}

/// Whether an answer is one of the accepted ones, after trimming; case counts only where it should.
///
/// ```
/// use t2l_eval::exact_match;
///
/// assert!(exact_match("Paris\nIt is the capital.", &["paris".into()], false));
/// assert!(!exact_match("Paris", &["paris".into()], true));
/// ```
pub fn exact_match(answer: &str, targets: &[String], case_sensitive: bool) -> bool {
    targets.iter().any(|target| {
        let (target, answer) =
            (target.trim(), if target.trim().contains('\n') { answer.trim() } else { first_line(answer) });
        if case_sensitive { answer == target } else { answer.to_lowercase() == target.to_lowercase() }
    })
}

/// Whether an answer is the same number as one of the accepted ones, within 1e-4.
///
/// The last number of the first line counts; thousands may be set off by commas.
///
/// ```
/// use t2l_eval::numeric_match;
///
/// assert!(numeric_match("The answer is 1,200.", &["1200".into()]));
/// assert!(!numeric_match("3 or 4", &["3".into()]));
/// assert!(!numeric_match("20001", &["20000".into()]));
/// ```
pub fn numeric_match(answer: &str, targets: &[String]) -> bool {
    let Some(found) = last_number(first_line(answer)) else { return false };
    targets.iter().filter_map(|t| last_number(t)).any(|t| (found - t).abs() <= 1e-4)
}

/// The last number of a text: digits with commas between groups of three, a fraction, an exponent. A minus belongs to
/// it unless something that could be subtracted from stands before.
fn last_number(text: &str) -> Option<f64> {
    let chars: Vec<char> = text.chars().map(|c| if c == '\u{2212}' { '-' } else { c }).collect();
    let digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let group = |i: usize| digit(i) && digit(i + 1) && digit(i + 2) && !digit(i + 3);
    let (mut last, mut at) = (None, 0);
    while at < chars.len() {
        if !(digit(at) || chars[at] == '.' && digit(at + 1)) {
            at += 1;
            continue;
        }
        let before = |n: usize| at.checked_sub(n).map(|i| chars[i]);
        let minus = before(1) == Some('-') && !before(2).is_some_and(|c| c.is_alphanumeric() || c == ')');
        let mut number = if minus { "-".to_owned() } else { String::new() };
        while digit(at) || (chars.get(at) == Some(&',') && !number.is_empty() && group(at + 1)) {
            if chars[at] != ',' {
                number.push(chars[at]);
            }
            at += 1;
        }
        if chars.get(at) == Some(&'.') && digit(at + 1) {
            number.push('.');
            at += 1;
            while digit(at) {
                number.push(chars[at]);
                at += 1;
            }
        }
        if matches!(chars.get(at), Some('e' | 'E')) {
            let sign = usize::from(matches!(chars.get(at + 1), Some('+' | '-')));
            if digit(at + 1 + sign) {
                number.extend(&chars[at..=at + sign]);
                at += 1 + sign;
                while digit(at) {
                    number.push(chars[at]);
                    at += 1;
                }
            }
        }
        last = number.parse().ok().filter(|n: &f64| n.is_finite()).or(last);
    }
    last
}

/// ROUGE-L F1 against the best of the references: lower-cased runs of `[a-z0-9]`, no stemming.
///
/// ```
/// use t2l_eval::rouge_l;
///
/// assert_eq!(rouge_l("the cat sat", &["The cat sat.".into()]), 1.0);
/// assert!((rouge_l("the cat", &["the dog sat with the cat".into()]) - 0.5).abs() < 1e-9);
/// ```
pub fn rouge_l(answer: &str, targets: &[String]) -> f64 {
    let answer = words(answer);
    targets.iter().map(|t| rouge_l_one(&answer, &words(t))).fold(0.0, f64::max)
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn rouge_l_one(answer: &[String], target: &[String]) -> f64 {
    if answer.is_empty() || target.is_empty() {
        return 0.0;
    }
    let mut row = vec![0usize; target.len() + 1];
    for a in answer {
        let mut diagonal = 0;
        for (j, t) in target.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if a == t { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    let common = row[target.len()] as f64;
    let (precision, recall) = (common / answer.len() as f64, common / target.len() as f64);
    if common == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

/// Index of the option that an answer names: first line, trimmed, case and a final stop ignored.
pub fn option_named(answer: &str, options: &[String]) -> Option<usize> {
    let plain = |s: &str| s.trim().trim_end_matches('.').trim().to_lowercase();
    let answer = plain(first_line(answer));
    options.iter().position(|o| plain(o) == answer)
}
