//! Bounds on what a template may build while it runs. Minijinja's fuel bounds the steps; one step may double a text or
//! a list, though, nest it, or write it out, so all that builds something is counted here in bytes.
//!
//! Operators are no functions that could be replaced; [`guard`] turns their instructions into calls of filters that
//! count. Filters and methods are wrapped.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;
use std::sync::LazyLock;

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Expression, State, Value, context, filters};

/// Levels to which lists and maps may nest.
const DEEPEST: usize = 64;
/// Items that a list or map may have, those of its items included.
const MOST_ITEMS: usize = 1 << 18;
/// What an item counts, in bytes.
const ITEM: usize = 16;
/// Widest padding and indentation.
const WIDEST: usize = 1_000;

thread_local! {
    /// Bytes that the rendering on this thread may still build: what wraps filters and operators is made once for a
    /// template, and a rendering stays on its thread.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins a rendering on this thread, which may build so many bytes.
pub(super) fn begin(bytes: usize) {
    LEFT.set(bytes);
}

pub(super) fn left() -> usize {
    LEFT.get()
}

pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    let rest = left().checked_sub(bytes).ok_or_else(|| Error::new(ErrorKind::WriteFailure, "it builds too much"))?;
    LEFT.set(rest);
    Ok(())
}

/// Counts a value that was built, by its uppermost level.
fn built(value: Value) -> Result<Value, Error> {
    weigh(&value)?;
    let items = match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => ITEM * value.len().unwrap_or(0),
        _ => 0,
    };
    charge(items)?;
    Ok(value)
}

/// Length of a value written out, if it may be.
fn written(value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.len());
    }
    weigh(value)?;
    let mut count = Count { length: 0, most: left() };
    match write!(count, "{value}") {
        Ok(()) => Ok(count.length),
        Err(_) => Err(Error::new(ErrorKind::WriteFailure, "it writes too much")),
    }
}

/// Counts what is written to it, up to a limit.
struct Count {
    length: usize,
    most: usize,
}

impl Write for Count {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.length = self.length.saturating_add(text.len());
        if self.length > self.most { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// Refuses what is nested too deeply or has too many items to be walked through.
pub(super) fn weigh(value: &Value) -> Result<(), Error> {
    fn walk(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
        let map = match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => false,
            ValueKind::Map => true,
            _ => return Ok(()),
        };
        if depth == 0 {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
        }
        for item in value.try_iter()? {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| Error::new(ErrorKind::WriteFailure, "a list or map has too many items"))?;
            let inner = if map { value.get_item(&item)? } else { item };
            walk(&inner, depth - 1, left)?;
        }
        Ok(())
    }
    let mut left = MOST_ITEMS;
    walk(value, DEEPEST, &mut left)
}

fn weigh_all(values: &[Value]) -> Result<(), Error> {
    values.iter().try_for_each(weigh)
}

/// Filters that look at a container's items, not at its text.
const STRUCTURAL: [&str; 25] = [
    "length", "count", "dictsort", "items", "reverse", "default", "d", "attr", "first", "last", "min", "max", "sort",
    "list", "bool", "batch", "slice", "sum", "unique", "chain", "zip", "groupby", "abs", "round", "int",
];
/// All others but `map`, `select` and their like, `join` and `tojson`.
const TEXTUAL: [&str; 16] = [
    "safe",
    "escape",
    "e",
    "lower",
    "upper",
    "title",
    "capitalize",
    "replace",
    "trim",
    "split",
    "lines",
    "float",
    "string",
    "indent",
    "pprint",
    "format",
];

/// Makes everything that an environment offers count.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    for name in STRUCTURAL.into_iter().chain(TEXTUAL) {
        environment.add_filter(name, move |args: Rest<Value>| -> Result<Value, Error> {
            weigh_all(&args)?;
            before(name, &args)?;
            built(PLAIN.empty_state().apply_filter(name, &args)?)
        });
    }
    environment.add_filter("join", |value: Value, joiner: Option<Value>| -> Result<Value, Error> {
        join_length(&value, joiner.as_ref())?;
        let joiner = joiner.map_or_else(|| Value::from(""), |joiner| Value::from(joiner.to_string()));
        built(PLAIN.empty_state().apply_filter("join", &[value, joiner])?)
    });
    add_choosing(environment);
    add_operators(environment);
    for name in COMPARING {
        environment.add_test(name, move |value: Value, other: Value| -> Result<bool, Error> {
            weigh_all(&[value.clone(), other.clone()])?;
            PLAIN.empty_state().perform_test(name, &[value, other])
        });
    }
    for name in ["namespace", "dict"] {
        environment.add_function(name, move |args: Rest<Value>| -> Result<Value, Error> {
            weigh_all(&args)?;
            match PLAIN.empty_state().lookup(name) {
                Some(function) => function.call(&PLAIN.empty_state(), &args),
                None => Err(Error::from(ErrorKind::UnknownFunction)),
            }
        });
    }
    // It would show everything there is.
    environment.add_function("debug", |_: Rest<Value>| "");
    environment.set_unknown_method_callback(|state, value, method, args| {
        weigh(value)?;
        weigh_all(args)?;
        match method {
            "join" => join_length(args.first().unwrap_or(&Value::UNDEFINED), Some(value))?,
            "replace" | "format" | "split" => before(method, &[std::slice::from_ref(value), args].concat())?,
            _ => {}
        }
        built(minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)?)
    });
    environment.set_formatter(|out, _, value| {
        charge(written(value)?)?;
        write!(out, "{value}").map_err(|_| Error::new(ErrorKind::WriteFailure, "it writes too much"))
    });
}

/// The tests that compare two values.
const COMPARING: [&str; 17] = [
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "in",
    "sameas",
];

/// `map`, `select` and their like, which apply other filters and tests: those that count.
fn add_choosing(environment: &mut Environment<'static>) {
    type Choosing = fn(&State, Value, Rest<Value>) -> Result<Vec<Value>, Error>;
    fn word(args: &mut impl Iterator<Item = Value>) -> Option<Cow<'static, str>> {
        args.next().map(|name| name.to_string().into())
    }
    let choosing: [(&str, Choosing); 5] = [
        ("map", filters::map),
        ("select", |state, value, args| {
            let mut args = args.0.into_iter();
            filters::select(state, value, word(&mut args), Rest(args.collect()))
        }),
        ("reject", |state, value, args| {
            let mut args = args.0.into_iter();
            filters::reject(state, value, word(&mut args), Rest(args.collect()))
        }),
        ("selectattr", |state, value, args| {
            let mut args = args.0.into_iter();
            let attribute = word(&mut args).unwrap_or_default();
            filters::selectattr(state, value, attribute, word(&mut args), Rest(args.collect()))
        }),
        ("rejectattr", |state, value, args| {
            let mut args = args.0.into_iter();
            let attribute = word(&mut args).unwrap_or_default();
            filters::rejectattr(state, value, attribute, word(&mut args), Rest(args.collect()))
        }),
    ];
    for (name, apply) in choosing {
        environment.add_filter(name, move |state: &State, value: Value, args: Rest<Value>| -> Result<Value, Error> {
            weigh(&value)?;
            weigh_all(&args)?;
            built(Value::from(apply(state, value, args)?))
        });
    }
}

/// Counts beforehand what a filter or method builds, where that may be more than it is given.
fn before(name: &str, args: &[Value]) -> Result<(), Error> {
    let given = args.first().unwrap_or(&Value::UNDEFINED);
    if TEXTUAL.contains(&name) {
        args.iter().try_for_each(|value| written(value).map(drop))?;
    }
    let text = |i: usize| args.get(i).map(ToString::to_string).unwrap_or_default();
    let wide = |n: Option<usize>| match n {
        Some(n) if n > WIDEST => Err(Error::new(ErrorKind::InvalidOperation, format!("{n} is too wide"))),
        n => Ok(n.unwrap_or(0)),
    };
    let more = match name {
        "replace" => {
            let (whole, old, new) = (text(0), text(1), text(2));
            whole.matches(&*old).count().saturating_mul(new.len())
        }
        "split" => match args.get(1).filter(|by| !by.is_none() && !by.is_undefined()) {
            Some(_) => ITEM * 2 * text(0).matches(&*text(1)).count(),
            None => ITEM * text(0).split_whitespace().count(),
        },
        "lines" => ITEM * text(0).lines().count(),
        "list" | "reverse" | "first" | "last" | "sort" | "unique" if given.kind() == ValueKind::String => {
            ITEM * given.as_str().map_or(0, str::len)
        }
        "indent" => {
            let named = args.last().filter(|last| last.is_kwargs()).map(|k| k.get_attr("width")).transpose()?;
            let width = args.get(1).and_then(Value::as_usize).or(named.as_ref().and_then(Value::as_usize));
            wide(width.or_else(|| named.filter(Value::is_number).map(|_| usize::MAX)))? * text(0).lines().count()
        }
        "batch" | "slice" => match args.get(1).and_then(Value::as_usize) {
            Some(n) if n > MOST_ITEMS => {
                return Err(Error::new(ErrorKind::InvalidOperation, format!("{n} is too many")));
            }
            n => ITEM * n.unwrap_or(0),
        },
        "format" => {
            let pattern = text(0);
            if pattern.contains('*') || pattern.contains(":{") {
                return Err(Error::new(ErrorKind::InvalidOperation, "a width that an argument gives is not supported"));
            }
            let numbers = pattern.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let widest = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max();
            let mut longest = wide(widest)?;
            for value in args.iter().skip(1) {
                longest = longest.max(written(value)?);
            }
            longest.saturating_mul(pattern.matches(['{', '%']).count())
        }
        _ => 0,
    };
    charge(more)
}

fn join_length(items: &Value, joiner: Option<&Value>) -> Result<(), Error> {
    weigh(items)?;
    let joiner = joiner.map_or(Ok(0), written)?;
    let mut length = 0_usize;
    for item in items.try_iter()? {
        length = length.saturating_add(written(&item)?).saturating_add(joiner);
        if length > left() {
            break;
        }
    }
    charge(length)
}

/// Minijinja as it is, for what the wrappers wrap.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_debug(false);
    environment
});

/// Operators by the name of the filter that stands for them, which no template can spell, and as expressions.
const OPERATORS: [(&str, &str); 10] = [
    ("+", "a + b"),
    ("*", "a * b"),
    ("[:]", "a[b:c:d]"),
    ("==", "a == b"),
    ("!=", "a != b"),
    (">", "a > b"),
    (">=", "a >= b"),
    ("<", "a < b"),
    ("<=", "a <= b"),
    ("in", "a in b"),
];
const CONCAT: &str = "~";
const LIST: &str = "[]";
const MAP: &str = "{}";

static EXPRESSIONS: LazyLock<Vec<(&str, Expression<'static, 'static>)>> = LazyLock::new(|| {
    OPERATORS.iter().filter_map(|(name, source)| Some((*name, PLAIN.compile_expression(source).ok()?))).collect()
});

fn add_operators(environment: &mut Environment<'static>) {
    for (name, expression) in EXPRESSIONS.iter() {
        environment.add_filter(*name, move |args: Rest<Value>| -> Result<Value, Error> {
            weigh_all(&args)?;
            let get = |i: usize| args.get(i).cloned().unwrap_or(Value::UNDEFINED);
            let (a, b) = (get(0), get(1));
            let list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
            match *name {
                "+" if a.kind() == ValueKind::String && b.kind() == ValueKind::String => {
                    charge(written(&a)?.saturating_add(written(&b)?))?;
                }
                "*" => {
                    let times = a.as_usize().or(b.as_usize()).unwrap_or(1);
                    if [&a, &b].into_iter().any(|value| list(value) || value.kind() == ValueKind::String) {
                        let items = |value: &Value| if list(value) { ITEM * value.len().unwrap_or(0) } else { 0 };
                        let text = |value: &Value| value.as_str().map_or(0, str::len);
                        let one = items(&a).max(items(&b)).max(text(&a)).max(text(&b));
                        charge(one.saturating_mul(times))?;
                    }
                }
                _ => {}
            }
            built(expression.eval(context! { a, b, c => get(2), d => get(3) })?)
        });
    }
    environment.add_filter(CONCAT, |a: Value, b: Value| -> Result<Value, Error> {
        charge(written(&a)?.saturating_add(written(&b)?))?;
        Ok(Value::from(format!("{a}{b}")))
    });
    environment.add_filter(LIST, |items: Rest<Value>| built(Value::from(items.0)));
    environment.add_filter(MAP, |items: Rest<Value>| -> Result<Value, Error> {
        let pairs = items.as_chunks().0.iter().map(|[key, value]| (key.clone(), value.clone()));
        built(Value::from_iter(pairs))
    });
}

/// Turns the instructions that build and compare values into calls of the filters that count.
pub(super) fn guard(instructions: &mut Instructions<'_>) -> Result<(), Error> {
    let mut at = 0;
    while let Some(instruction) = instructions.get_mut(at) {
        let replaced = match instruction {
            Instruction::Add => Some(("+", 2)),
            Instruction::Mul => Some(("*", 2)),
            Instruction::Slice => Some(("[:]", 4)),
            Instruction::StringConcat => Some((CONCAT, 2)),
            Instruction::Eq => Some(("==", 2)),
            Instruction::Ne => Some(("!=", 2)),
            Instruction::Gt => Some((">", 2)),
            Instruction::Gte => Some((">=", 2)),
            Instruction::Lt => Some(("<", 2)),
            Instruction::Lte => Some(("<=", 2)),
            Instruction::In => Some(("in", 2)),
            Instruction::BuildList(Some(count)) => Some((LIST, *count)),
            Instruction::BuildMap(count) => Some((MAP, count.saturating_mul(2))),
            Instruction::CompareAndPreserve(_) => {
                return Err(Error::new(ErrorKind::SyntaxError, "chains of comparisons are not supported"));
            }
            _ => None,
        };
        if let Some((name, count)) = replaced {
            let count = u16::try_from(count)
                .map_err(|_| Error::new(ErrorKind::SyntaxError, "a list or map has too many items"))?;
            // The last number says that the filter is looked up by its name each time.
            *instruction = Instruction::ApplyFilter(name, Some(count), u8::MAX);
        }
        at += 1;
    }
    Ok(())
}
