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
/// ```
pub fn numeric_match(answer: &str, targets: &[String]) -> bool {
    let Some(found) = last_number(first_line(answer)) else { return false };
    targets.iter().filter_map(|t| last_number(t)).any(|t| (found - t).abs() <= 1e-4 * t.abs().max(1.0))
}

fn last_number(text: &str) -> Option<f64> {
    let text = text.replace(',', "");
    let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let parts = text.split(|c: char| !is_part(c));
    parts.filter_map(|part| part.trim_end_matches(['.', '-']).parse().ok()).next_back()
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
