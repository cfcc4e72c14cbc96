//! The front of a GGUF file: metadata and the list of tensors. Every count and length is compared
//! with the bytes that are left before anything is allocated for it.

use std::collections::{BTreeMap, HashSet};

use super::{Array, GgufProblem, TensorInfo, TensorType, Value};

const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_DIMENSIONS: u32 = 4;
/// Models use one level; two more cost nothing.
const MAX_ARRAY_DEPTH: usize = 3;
/// Bytes of the smallest metadata entry (empty key, type, one byte) and of the smallest tensor entry.
const SMALLEST_ENTRY: usize = 8 + 4 + 1;
const SMALLEST_TENSOR: usize = 8 + 4 + 4 + 8;

/// Metadata by key, and the tensors in the file's order.
pub(super) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Header, GgufProblem> {
    let mut cursor = Cursor { bytes, position: 0 };
    if cursor.take(MAGIC.len(), "the magic number").ok() != Some(MAGIC) {
        return Err(GgufProblem::NotGguf);
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => return Err(GgufProblem::BigEndian),
        version => return Err(GgufProblem::UnsupportedVersion(version)),
    }
    let tensor_count = cursor.u64("the number of tensors")?;
    let entry_count = cursor.u64("the number of metadata entries")?;

    let entry_count = cursor.bounded(entry_count, SMALLEST_ENTRY, "the number of metadata entries")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entry_count {
        let key = cursor.string("a metadata key")?;
        let value = cursor.value(&key)?;
        if metadata.contains_key(&key) {
            return Err(GgufProblem::DuplicateKey(key));
        }
        metadata.insert(key, value);
    }
    let alignment = alignment(&metadata)?;

    let tensor_count = cursor.bounded(tensor_count, SMALLEST_TENSOR, "the number of tensors")?;
    let mut entries = Vec::with_capacity(tensor_count);
    let mut names = HashSet::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        let entry = cursor.tensor()?;
        if !names.insert(entry.name.clone()) {
            return Err(GgufProblem::DuplicateTensor(entry.name));
        }
        entries.push(entry);
    }

    // The data section begins at the next multiple of the alignment and ends with the file.
    let data_start = (cursor.position as u64).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    let available = (bytes.len() as u64).saturating_sub(data_start);
    let mut tensors = Vec::with_capacity(tensor_count);
    for entry in entries {
        tensors.push(entry.locate(data_start, available, alignment)?);
    }
    reject_overlaps(&tensors)?;
    Ok(Header { metadata, tensors })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, GgufProblem> {
    let key = "general.alignment";
    let alignment = match metadata.get(key) {
        None => DEFAULT_ALIGNMENT,
        Some(value) => super::read_value::<u64>(key, value)?,
    };
    if alignment.is_power_of_two() { Ok(alignment) } else { Err(GgufProblem::BadAlignment(alignment)) }
}

/// Without overlaps, all tensors together are no larger than the file.
fn reject_overlaps(tensors: &[TensorInfo]) -> Result<(), GgufProblem> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.start);
    for pair in order.windows(2) {
        if let [first, second] = pair
            && first.start + first.length > second.start
        {
            return Err(GgufProblem::Overlap { first: first.name.clone(), second: second.name.clone() });
        }
    }
    Ok(())
}

/// A tensor as the header lists it.
struct TensorEntry {
    name: String,
    dimensions: Vec<u64>,
    kind: TensorType,
    offset: u64,
}

impl TensorEntry {
    fn locate(self, data_start: u64, available: u64, alignment: u64) -> Result<TensorInfo, GgufProblem> {
        let Self { name, dimensions, kind, offset } = self;
        let row = dimensions.first().copied().unwrap_or(1);
        if row % kind.block_values() as u64 != 0 {
            return Err(GgufProblem::PartialBlock { tensor: name, row, kind, block: kind.block_values() });
        }
        let values = dimensions.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let length = values
            .filter(|&values| values > 0)
            .and_then(|values| (values / kind.block_values() as u64).checked_mul(kind.block_bytes() as u64));
        let Some(length) = length else {
            return Err(GgufProblem::BadShape { tensor: name, dimensions });
        };
        if offset % alignment != 0 {
            return Err(GgufProblem::Misaligned { tensor: name, offset, alignment });
        }
        if offset.checked_add(length).is_none_or(|end| end > available) {
            return Err(GgufProblem::OutsideFile { tensor: name, offset, length, available });
        }
        // Within the file, hence within the address space. Sizes divide a product that fits too.
        let start = (data_start + offset) as usize;
        let shape = dimensions.iter().rev().map(|&size| size as usize).collect();
        Ok(TensorInfo { name, shape, kind, start, length: length as usize })
    }
}

/// Reads forward through the header.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], GgufProblem> {
        let end = self.position.checked_add(length);
        let Some(slice) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            return Err(GgufProblem::Truncated { what: what.into(), offset: self.bytes.len() });
        };
        self.position += length;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufProblem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufProblem> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufProblem> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `smallest` bytes each, when the file can hold that many.
    fn bounded(&self, claimed: u64, smallest: usize, what: &str) -> Result<usize, GgufProblem> {
        let available = (self.remaining() / smallest) as u64;
        if claimed > available {
            return Err(GgufProblem::TooMany { what: what.into(), claimed, available });
        }
        Ok(claimed as usize)
    }

    fn string(&mut self, what: &str) -> Result<String, GgufProblem> {
        let length = self.u64(what)?;
        let length = self.bounded(length, 1, what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(GgufProblem::NotUtf8(what.into())),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufProblem> {
        let what = format!("metadata {key:?}");
        let code = self.u32(&what)?;
        Ok(match code {
            0 => Value::U8(u8::from_le_bytes(self.array(&what)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(&what)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(&what)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(&what)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(&what)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(&what)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(&what)?)),
            7 => Value::Bool(boolean(self.array(&what)?, key)?),
            8 => Value::String(self.string(&what)?),
            9 => Value::Array(self.array_value(key, &what, 1)?),
            10 => Value::U64(u64::from_le_bytes(self.array(&what)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(&what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(&what)?)),
            code => return Err(GgufProblem::UnknownValueType { key: key.into(), code }),
        })
    }

    fn array_value(&mut self, key: &str, what: &str, depth: usize) -> Result<Array, GgufProblem> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(GgufProblem::NestedTooDeep { key: key.into(), limit: MAX_ARRAY_DEPTH });
        }
        let code = self.u32(what)?;
        let count = self.u64(what)?;
        Ok(match code {
            0 => Array::U8(self.elements(count, what, u8::from_le_bytes)?),
            1 => Array::I8(self.elements(count, what, i8::from_le_bytes)?),
            2 => Array::U16(self.elements(count, what, u16::from_le_bytes)?),
            3 => Array::I16(self.elements(count, what, i16::from_le_bytes)?),
            4 => Array::U32(self.elements(count, what, u32::from_le_bytes)?),
            5 => Array::I32(self.elements(count, what, i32::from_le_bytes)?),
            6 => Array::F32(self.elements(count, what, f32::from_le_bytes)?),
            7 => {
                let count = self.bounded(count, 1, what)?;
                let bytes = self.take(count, what)?;
                Array::Bool(bytes.iter().map(|&byte| boolean([byte], key)).collect::<Result<_, _>>()?)
            }
            8 => {
                let count = self.bounded(count, 8, what)?;
                let mut strings = Vec::with_capacity(count);
                for _ in 0..count {
                    strings.push(self.string(what)?);
                }
                Array::String(strings)
            }
            9 => {
                let count = self.bounded(count, 4 + 8, what)?;
                let mut arrays = Vec::with_capacity(count);
                for _ in 0..count {
                    arrays.push(self.array_value(key, what, depth + 1)?);
                }
                Array::Array(arrays)
            }
            10 => Array::U64(self.elements(count, what, u64::from_le_bytes)?),
            11 => Array::I64(self.elements(count, what, i64::from_le_bytes)?),
            12 => Array::F64(self.elements(count, what, f64::from_le_bytes)?),
            code => return Err(GgufProblem::UnknownValueType { key: key.into(), code }),
        })
    }

    fn elements<T, const N: usize>(
        &mut self,
        count: u64,
        what: &str,
        decode: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufProblem> {
        let count = self.bounded(count, N, what)?;
        let (elements, _) = self.take(count * N, what)?.as_chunks::<N>();
        Ok(elements.iter().map(|&bytes| decode(bytes)).collect())
    }

    fn tensor(&mut self) -> Result<TensorEntry, GgufProblem> {
        let name = self.string("a tensor's name")?;
        let what = format!("the entry of tensor {name:?}");
        let count = self.u32(&what)?;
        if count > MAX_DIMENSIONS {
            return Err(GgufProblem::TooManyDimensions { tensor: name, dimensions: count });
        }
        let mut dimensions = Vec::with_capacity(count as usize);
        for _ in 0..count {
            dimensions.push(self.u64(&what)?);
        }
        let code = self.u32(&what)?;
        let offset = self.u64(&what)?;
        let Some(kind) = TensorType::from_code(code) else {
            return Err(GgufProblem::UnknownTensorType { tensor: name, code });
        };
        Ok(TensorEntry { name, dimensions, kind, offset })
    }
}

fn boolean([byte]: [u8; 1], key: &str) -> Result<bool, GgufProblem> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(GgufProblem::NotBoolean { key: key.into(), value }),
    }
}
