//! Metadata values, and what a reader may ask them to be.

use std::fmt;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// A metadata array; each kind is stored as densely as the file has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
}

impl Array {
    /// How many elements the array has.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type's name, `"u32"` for example.
    pub fn element_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
        }
    }

    /// The elements as integers when every one is a whole number.
    fn integers(&self) -> Option<Vec<i64>> {
        Some(match self {
            Self::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U64(v) => v.iter().map(|&x| x.try_into().ok()).collect::<Option<_>>()?,
            Self::I64(v) => v.clone(),
            _ => return None,
        })
    }
}

impl Value {
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(x) => x.into(),
            Self::I8(x) => x.into(),
            Self::U16(x) => x.into(),
            Self::I16(x) => x.into(),
            Self::U32(x) => x.into(),
            Self::I32(x) => x.into(),
            Self::U64(x) => x.into(),
            Self::I64(x) => x.into(),
            _ => return None,
        })
    }
}

/// The type and, for a single number or boolean, the value: for error messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => write!(f, "the u8 {x}"),
            Self::I8(x) => write!(f, "the i8 {x}"),
            Self::U16(x) => write!(f, "the u16 {x}"),
            Self::I16(x) => write!(f, "the i16 {x}"),
            Self::U32(x) => write!(f, "the u32 {x}"),
            Self::I32(x) => write!(f, "the i32 {x}"),
            Self::U64(x) => write!(f, "the u64 {x}"),
            Self::I64(x) => write!(f, "the i64 {x}"),
            Self::F32(x) => write!(f, "the f32 {x}"),
            Self::F64(x) => write!(f, "the f64 {x}"),
            Self::Bool(x) => write!(f, "the boolean {x}"),
            Self::String(_) => f.write_str("a string"),
            Self::Array(a) => write!(f, "an array of {} {}", a.len(), a.element_name()),
        }
    }
}

/// What [`GgufFile::get`](super::GgufFile::get) can read a value as. Integers of any width are taken
/// where they fit, since writers differ in the width they choose.
pub trait FromValue<'a>: Sized {
    /// What is needed, for the error message.
    const EXPECTED: &'static str;
    /// The value as this type; nothing when it is of another kind or does not fit.
    fn from_value(value: &'a Value) -> Option<Self>;
}

impl FromValue<'_> for u32 {
    const EXPECTED: &'static str = "an unsigned 32-bit integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.integer()?.try_into().ok()
    }
}

impl FromValue<'_> for u64 {
    const EXPECTED: &'static str = "an unsigned integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.integer()?.try_into().ok()
    }
}

impl FromValue<'_> for usize {
    const EXPECTED: &'static str = "an unsigned integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.integer()?.try_into().ok()
    }
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a floating-point number";
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::Bool(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::String(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a [String] {
    const EXPECTED: &'static str = "an array of strings";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::String(x)) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a [f32] {
    const EXPECTED: &'static str = "an array of f32";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::F32(x)) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a [bool] {
    const EXPECTED: &'static str = "an array of booleans";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::Bool(x)) => Some(x),
            _ => None,
        }
    }
}

impl FromValue<'_> for Vec<i64> {
    const EXPECTED: &'static str = "an array of integers";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Array(x) => x.integers(),
            _ => None,
        }
    }
}
