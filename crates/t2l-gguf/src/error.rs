//! One variant for every way in which a GGUF file can be wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::TensorType;

/// What is wrong with a GGUF file, and with which one.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct GgufError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: GgufProblem,
}

impl GgufError {
    pub(crate) fn new(path: &Path, problem: GgufProblem) -> Self {
        Self { path: path.to_path_buf(), problem }
    }
}

/// The ways in which a GGUF file can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufProblem {
    /// The file cannot be opened or mapped.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The first four bytes are not `GGUF`.
    #[error("is not a GGUF file (it does not begin with the bytes \"GGUF\")")]
    NotGguf,
    /// The file was written for a big-endian machine.
    #[error("is a big-endian GGUF file; only little-endian ones are read")]
    BigEndian,
    /// A version of the format other than 2 and 3.
    #[error("has GGUF version {0}; versions 2 and 3 are read")]
    UnsupportedVersion(u32),
    /// The file ends inside its header.
    #[error("ends at byte {offset}, inside {what}")]
    Truncated {
        /// The part of the header that is cut.
        what: String,
        /// Length of the file in bytes.
        offset: usize,
    },
    /// A count or length that the rest of the file cannot hold.
    #[error("claims {claimed} for {what}, more than the {available} that the rest of the file can hold")]
    TooMany {
        /// What is counted.
        what: String,
        /// The number in the file.
        claimed: u64,
        /// The largest number that the bytes left could hold.
        available: u64,
    },
    /// A string that is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(String),
    /// A metadata type code outside the format.
    #[error("metadata {key:?} has the unknown value type {code}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type's number in the file.
        code: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata {key:?} holds the boolean {value}; only 0 and 1 are booleans")]
    NotBoolean {
        /// The key.
        key: String,
        /// The byte in the file.
        value: u8,
    },
    /// Arrays of arrays of arrays …, deeper than any model uses.
    #[error("metadata {key:?} nests arrays more than {limit} deep")]
    NestedTooDeep {
        /// The key.
        key: String,
        /// The depth that is still read.
        limit: usize,
    },
    /// The same metadata key twice.
    #[error("has the metadata {0:?} twice")]
    DuplicateKey(String),
    /// The same tensor name twice.
    #[error("has the tensor {0:?} twice")]
    DuplicateTensor(String),
    /// An alignment that is zero or no power of two.
    #[error("has the alignment {0}, which is not a power of two")]
    BadAlignment(u64),
    /// A tensor type that is not decoded here.
    #[error(
        "tensor {tensor:?} has the type {code}, which is not one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"
    )]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// The type's number in the file.
        code: u32,
    },
    /// More dimensions than ggml has.
    #[error("tensor {tensor:?} has {dimensions} dimensions; the format has at most 4")]
    TooManyDimensions {
        /// The tensor.
        tensor: String,
        /// The number in the file.
        dimensions: u32,
    },
    /// Dimensions whose product is zero or too large to count.
    #[error("tensor {tensor:?} has the impossible dimensions {dimensions:?}")]
    BadShape {
        /// The tensor.
        tensor: String,
        /// The dimensions as written in the file, fastest first.
        dimensions: Vec<u64>,
    },
    /// Rows that are no whole number of blocks.
    #[error("tensor {tensor:?} has rows of {row} values; {kind} packs them in blocks of {block}")]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Values in a row.
        row: u64,
        /// The tensor's type.
        kind: TensorType,
        /// Values in a block.
        block: usize,
    },
    /// Data that does not begin at a multiple of the alignment.
    #[error("tensor {tensor:?} begins at {offset}, not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Offset within the data section, in bytes.
        offset: u64,
        /// The file's alignment in bytes.
        alignment: u64,
    },
    /// Data that lies outside the file.
    #[error("tensor {tensor:?} needs {length} bytes at {offset}; the data section has {available}")]
    OutsideFile {
        /// The tensor.
        tensor: String,
        /// Offset within the data section, in bytes.
        offset: u64,
        /// Bytes of the tensor.
        length: u64,
        /// Bytes of the data section.
        available: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that begins earlier.
        first: String,
        /// The one that begins within it.
        second: String,
    },
    /// A key that the reader needs and the file lacks.
    #[error("has no metadata {0:?}")]
    MissingKey(String),
    /// A value of another type than the reader needs.
    #[error("metadata {key:?} is {found}; {expected} is needed")]
    WrongType {
        /// The key.
        key: String,
        /// What the reader needs.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// A tensor that the reader needs and the file lacks.
    #[error("has no tensor {0:?}")]
    MissingTensor(String),
}
