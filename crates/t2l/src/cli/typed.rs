//! The command as it could be typed again.

use std::borrow::Cow;

/// This process's command line, for a POSIX shell.
pub fn command_line() -> String {
    let arguments = std::env::args_os().skip(1).map(|a| quoted(&a.to_string_lossy()).into_owned());
    std::iter::once("t2l".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell reads it back: bare where every character stands for itself, else in single quotes.
fn quoted(argument: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:=+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.into();
    }
    format!("'{}'", argument.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn what_a_shell_would_read_is_quoted() {
        for plain in ["--out", "docs/results/a-b_1.json", "base,own", "--limit=3"] {
            assert_eq!(quoted(plain), plain);
        }
        for c in "; | & * ? ( ) [ ] { } # < > ` \n \t $ \" \\ ~ ! ^".split(' ').chain(["", " ", "é"]) {
            assert_eq!(quoted(c), format!("'{c}'"));
        }
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_it_back() {
        let hard = ["", "a b", "it's", "$(x) `y` ; & | *", "line\nline", "#~!"];
        let words: Vec<_> = hard.iter().map(|a| quoted(a)).collect();
        let script = format!("printf '%s\\037' {}", words.join(" "));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let expected: String = hard.iter().map(|a| format!("{a}\u{1f}")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
