//! A GGUF file from metadata and plain floats.

use std::io::{self, Write};

use half::{bf16, f16};

use super::{Array, Value};

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Number type of a written tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WrittenType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    BF16,
}

impl WrittenType {
    const fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 30,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        }
    }
}

/// Collects metadata and the list of tensors, then writes them with the tensors' values, one tensor at a time.
#[derive(Debug, Default)]
pub struct GgufWriter {
    entries: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, WrittenType)>,
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry; keys are written in the order given and must differ.
    pub fn entry(&mut self, key: impl Into<String>, value: Value) {
        self.entries.push((key.into(), value));
    }

    /// Adds a tensor; `shape` is row-major, slowest dimension first: `[out, in]`.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize], kind: WrittenType) {
        self.tensors.push((name.into(), shape.to_vec(), kind));
    }

    /// Writes the file: the header, then what `values` gives for each tensor in turn.
    ///
    /// # Errors
    /// What `values` or the output say; a tensor that gets another number of values than its shape has.
    pub fn write<E: From<io::Error>>(
        &self,
        out: &mut impl Write,
        mut values: impl FnMut(usize) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the tensors are too large to be written");
        let mut header = Vec::new();
        header.extend(b"GGUF");
        put_u32(&mut header, VERSION);
        put_len(&mut header, self.tensors.len());
        put_len(&mut header, self.entries.len());
        for (key, value) in &self.entries {
            put_string(&mut header, key);
            put_value(&mut header, value);
        }
        let (mut offset, mut sizes) = (0_usize, Vec::with_capacity(self.tensors.len()));
        for (name, shape, kind) in &self.tensors {
            put_string(&mut header, name);
            put_u32(&mut header, shape.len() as u32);
            shape.iter().rev().for_each(|size| put_len(&mut header, *size));
            put_u32(&mut header, kind.code());
            put_len(&mut header, offset);
            let size = shape.iter().try_fold(kind.bytes(), |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
            let padded = size.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?;
            offset = offset.checked_add(padded).ok_or_else(too_large)?;
            sizes.push((size, padded));
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&header)?;
        for (i, ((name, _, kind), (size, padded))) in self.tensors.iter().zip(sizes).enumerate() {
            let mut bytes = kind.encode(&values(i)?);
            if bytes.len() != size {
                let reason = format!("tensor {name:?} has {} bytes of values instead of {size}", bytes.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason).into());
            }
            bytes.resize(padded, 0);
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

fn put_len(out: &mut Vec<u8>, value: usize) {
    out.extend((value as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend(text.as_bytes());
}

/// Type code, then the value.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    macro_rules! number {
        ($code:expr, $value:expr) => {{
            put_u32(out, $code);
            out.extend($value.to_le_bytes());
        }};
    }
    match value {
        Value::U8(x) => number!(0, x),
        Value::I8(x) => number!(1, x),
        Value::U16(x) => number!(2, x),
        Value::I16(x) => number!(3, x),
        Value::U32(x) => number!(4, x),
        Value::I32(x) => number!(5, x),
        Value::F32(x) => number!(6, x),
        Value::Bool(x) => number!(7, u8::from(*x)),
        Value::String(text) => {
            put_u32(out, STRING);
            put_string(out, text);
        }
        Value::Array(array) => {
            put_u32(out, ARRAY);
            put_array(out, array);
        }
        Value::U64(x) => number!(10, x),
        Value::I64(x) => number!(11, x),
        Value::F64(x) => number!(12, x),
    }
}

/// Element type, count, elements.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! numbers {
        ($code:expr, $values:expr) => {{
            put_u32(out, $code);
            put_len(out, $values.len());
            $values.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(x) => numbers!(0, x),
        Array::I8(x) => numbers!(1, x),
        Array::U16(x) => numbers!(2, x),
        Array::I16(x) => numbers!(3, x),
        Array::U32(x) => numbers!(4, x),
        Array::I32(x) => numbers!(5, x),
        Array::F32(x) => numbers!(6, x),
        Array::Bool(x) => {
            put_u32(out, 7);
            put_len(out, x.len());
            out.extend(x.iter().map(|b| u8::from(*b)));
        }
        Array::String(x) => {
            put_u32(out, STRING);
            put_len(out, x.len());
            x.iter().for_each(|text| put_string(out, text));
        }
        Array::Array(x) => {
            put_u32(out, ARRAY);
            put_len(out, x.len());
            x.iter().for_each(|inner| put_array(out, inner));
        }
        Array::U64(x) => numbers!(10, x),
        Array::I64(x) => numbers!(11, x),
        Array::F64(x) => numbers!(12, x),
    }
}

#[cfg(test)]
mod tests {
    use super::super::GgufFile;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entries = [
            ("bool", Value::Bool(true)),
            ("i8", Value::I8(-3)),
            ("f64", Value::F64(0.1)),
            ("text", Value::String("Zürich".into())),
            ("strings", Value::Array(Array::String(vec!["a".into(), String::new()]))),
            ("nested", Value::Array(Array::Array(vec![Array::U16(vec![1, 2]), Array::Bool(vec![false])]))),
        ];
        let mut writer = GgufWriter::new();
        for (key, value) in &entries {
            writer.entry(*key, value.clone());
        }
        let tensors = [
            ("a", vec![3, 5], WrittenType::F16),
            ("b", vec![7], WrittenType::F32),
            ("c", vec![2, 1], WrittenType::BF16),
        ];
        for (name, shape, kind) in &tensors {
            writer.tensor(*name, shape, *kind);
        }
        let values = |i: usize| -> Vec<f32> {
            let count: usize = tensors.get(i).map_or(0, |t| t.1.iter().product());
            (0..count).map(|k| k as f32 * 0.5 - 2.0).collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let mut bytes = Vec::new();
        writer.write(&mut bytes, |i| Ok::<_, io::Error>(values(i))).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let file = GgufFile::open(&path).unwrap();
        for (key, value) in &entries {
            assert_eq!(file.metadata(key), Some(value));
        }
        for (i, (name, shape, _)) in tensors.iter().enumerate() {
            assert_eq!(&file.tensor(name).unwrap().shape, shape);
            assert_eq!(file.read_f32(name).unwrap(), values(i));
        }
    }

    #[test]
    fn a_wrong_number_of_values_is_refused() {
        let mut writer = GgufWriter::new();
        writer.tensor("a", &[2, 2], WrittenType::F32);
        let error = writer.write(&mut Vec::new(), |_| Ok::<_, io::Error>(vec![1.0])).unwrap_err();
        assert_eq!(error.to_string(), "tensor \"a\" has 4 bytes of values instead of 16");
    }
}
