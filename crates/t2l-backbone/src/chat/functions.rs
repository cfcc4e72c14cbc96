//! What transformers adds to Jinja for chat templates: `raise_exception`, `strftime_now`, and `tojson`
//! in Python's spelling.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{
    Environment, Error, ErrorKind, Value,
    value::{Kwargs, ValueKind},
};

use super::budget::{charge, left, weigh};

/// The reason that a template gives for rejecting a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub String);

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "rejected by the template").with_source(Refusal(reason)))
    });
    environment.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        strftime(format, seconds)
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, Error> {
        let indent = options.get::<Option<usize>>("indent")?.map(|width| width.min(16));
        let mut json = String::new();
        weigh(&value)?;
        write_json(&mut json, &value, indent, 0, left())?;
        charge(json.len())?;
        Ok(json)
    });
}

/// As Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn write_json(out: &mut String, value: &Value, indent: Option<usize>, depth: usize, most: usize) -> Result<(), Error> {
    if depth > 100 {
        return Err(Error::new(ErrorKind::InvalidOperation, "value is nested too deeply for JSON"));
    }
    if out.len() > most {
        return Err(Error::new(ErrorKind::WriteFailure, "the JSON is too long"));
    }
    let new_line = |out: &mut String, depth: usize, after_comma: bool| match indent {
        Some(width) => {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
        None if after_comma => out.push(' '),
        None => {}
    };
    let (open, close) = match value.kind() {
        ValueKind::Map => ('{', '}'),
        ValueKind::Seq | ValueKind::Iterable => ('[', ']'),
        ValueKind::Undefined => return Err(Error::new(ErrorKind::UndefinedError, "an undefined value has no JSON")),
        _ => {
            out.push_str(&scalar_json(value)?);
            return Ok(());
        }
    };
    out.push(open);
    let mut empty = true;
    for item in value.try_iter()? {
        if !empty {
            out.push(',');
        }
        new_line(out, depth + 1, !empty);
        empty = false;
        if open == '{' {
            out.push_str(&scalar_json(&Value::from(item.to_string()))?);
            out.push_str(": ");
            write_json(out, &value.get_item(&item)?, indent, depth + 1, most)?;
        } else {
            write_json(out, &item, indent, depth + 1, most)?;
        }
    }
    if !empty && indent.is_some() {
        new_line(out, depth, false);
    }
    out.push(close);
    Ok(())
}

fn scalar_json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "value has no JSON").with_source(error))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The directives of `strftime` that templates use, for a time in seconds since 1970, in UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let weekday = WEEKDAYS.get(((days + 4) % 7) as usize).copied().unwrap_or_default();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{month:02}"),
            Some('B') => text += month_name,
            Some('b' | 'h') => text.extend(month_name.chars().take(3)),
            Some('d') => text += &format!("{day:02}"),
            Some('e') => text += &format!("{day:2}"),
            Some('A') => text += weekday,
            Some('a') => text.extend(weekday.chars().take(3)),
            Some('H') => text += &format!("{hour:02}"),
            Some('I') => text += &format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('F') => text += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => text += &format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => text.push('%'),
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                let reason = format!("strftime_now does not know %{directive}");
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        }
    }
    Ok(text)
}

/// Year, month (from 1) and day (from 1) of a day counted from 1970-01-01, after Howard Hinnant's
/// `civil_from_days`: years are counted from March, in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%d %b %Y, %A %H:%M:%S %j";
        assert!(strftime(format, 0).is_err());
        let format = "%d %b %Y, %A %B %H:%M:%S %I%p %y-%m %F %T %%";
        let expected = "01 Jan 1970, Thursday January 00:00:00 12AM 70-01 1970-01-01 00:00:00 %";
        assert_eq!(strftime(format, 0).unwrap(), expected);
        // date -u -d @951827696
        let expected = "29 Feb 2000, Tuesday February 12:34:56 12PM 00-02 2000-02-29 12:34:56 %";
        assert_eq!(strftime(format, 951_827_696).unwrap(), expected);
        let expected = "31 Dec 2099, Thursday December 23:59:59 11PM 99-12 2099-12-31 23:59:59 %";
        assert_eq!(strftime(format, 4_102_444_799).unwrap(), expected);
    }
}
