//! What a well-formed file gives, and one hostile file for each way of being wrong.

use proptest::prelude::*;

use super::{Array, GgufFile, GgufProblem, TensorType, Value, testing::*};

const F32: u32 = 0;

fn small_file() -> Bytes {
    Bytes::front(2, 3)
        .entry_str("general.architecture", "llama")
        .entry_u32("llama.block_count", 30)
        .entry_strs("tokens", &["a", "b"])
        .tensor("matrix", &[3, 2], F32, 0)
        .tensor("vector", &[2], F32, 32)
        .pad(32)
        .f32(1.0)
        .f32(2.0)
        .f32(3.0)
        .f32(4.0)
        .f32(5.0)
        .f32(6.0)
        .pad(32)
        .f32(-1.0)
        .f32(f32::MIN_POSITIVE)
}

#[test]
fn a_small_file_is_read() {
    let file = small_file().open().unwrap();
    assert_eq!(file.str("general.architecture").unwrap(), "llama");
    assert_eq!(file.u32("llama.block_count").unwrap(), 30);
    assert_eq!(file.usize("llama.block_count").unwrap(), 30);
    assert_eq!(file.strings("tokens").unwrap(), ["a", "b"]);
    assert_eq!(file.get::<u32>("absent").unwrap(), None);
    assert_eq!(file.entries().count(), 3);
    let names: Vec<_> = file.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["matrix", "vector"]);
    let matrix = file.tensor("matrix").unwrap();
    assert_eq!((matrix.shape.as_slice(), matrix.kind, matrix.values()), ([2, 3].as_slice(), TensorType::F32, 6));
    assert_eq!(file.read_f32("matrix").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(file.read_f32("vector").unwrap(), [-1.0, f32::MIN_POSITIVE]);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small_file().0;
    for length in 0..bytes.len() {
        let cut = Bytes(bytes[..length].to_vec());
        assert!(cut.open().is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn errors_name_key_and_types() {
    let file = small_file().open().unwrap();
    let message = file.u32("general.architecture").unwrap_err().to_string();
    assert!(message.ends_with("metadata \"general.architecture\" is a string; an unsigned 32-bit integer is needed"));
    assert!(matches!(file.f32("absent").unwrap_err().problem, GgufProblem::MissingKey(key) if key == "absent"));
    assert!(
        matches!(file.read_f32("absent").unwrap_err().problem, GgufProblem::MissingTensor(name) if name == "absent")
    );
}

#[test]
fn missing_file_and_folder() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_path_buf(), folder.path().join("absent.gguf")] {
        assert!(matches!(GgufFile::open(path).unwrap_err().problem, GgufProblem::Io(_)));
    }
}

#[test]
fn other_formats() {
    assert!(matches!(Bytes::default().problem(), GgufProblem::NotGguf));
    assert!(matches!(Bytes::default().raw(b"GGML").u32(3).problem(), GgufProblem::NotGguf));
    let version = |version: u32| Bytes::default().raw(b"GGUF").u32(version).u64(0).u64(0).problem();
    assert!(matches!(version(1), GgufProblem::UnsupportedVersion(1)));
    assert!(matches!(version(4), GgufProblem::UnsupportedVersion(4)));
    assert!(matches!(version(3u32.swap_bytes()), GgufProblem::BigEndian));
}

#[test]
fn counts_beyond_the_file() {
    for lie in [1 << 20, 1 << 40, 1 << 63, u64::MAX] {
        assert!(matches!(Bytes::front(lie, 0).problem(), GgufProblem::TooMany { claimed, .. } if claimed == lie));
        assert!(matches!(Bytes::front(0, lie).problem(), GgufProblem::TooMany { claimed, .. } if claimed == lie));
        let key = Bytes::front(0, 1).u64(lie).raw(&[0; 64]);
        assert!(matches!(key.problem(), GgufProblem::TooMany { claimed, .. } if claimed == lie));
        let text = Bytes::front(0, 1).string("key").u32(STRING).u64(lie).raw(&[0; 64]);
        assert!(matches!(text.problem(), GgufProblem::TooMany { what, .. } if what.contains("key")));
        let name = Bytes::front(1, 0).u64(lie).raw(&[0; 64]);
        assert!(matches!(name.problem(), GgufProblem::TooMany { claimed, .. } if claimed == lie));
        for element in 0..=12 {
            let array = Bytes::front(0, 1).string("key").u32(ARRAY).u32(element).u64(lie).raw(&[0; 64]);
            assert!(matches!(array.problem(), GgufProblem::TooMany { claimed, .. } if claimed == lie), "{element}");
        }
    }
}

#[test]
fn unknown_value_types() {
    let value = Bytes::front(0, 1).string("key").u32(13).u64(0);
    assert!(matches!(value.problem(), GgufProblem::UnknownValueType { key, code: 13 } if key == "key"));
    let element = Bytes::front(0, 1).string("key").u32(ARRAY).u32(99).u64(0);
    assert!(matches!(element.problem(), GgufProblem::UnknownValueType { key, code: 99 } if key == "key"));
}

#[test]
fn booleans_are_zero_or_one() {
    let value = Bytes::front(0, 1).string("key").u32(7).u8(2);
    assert!(matches!(value.problem(), GgufProblem::NotBoolean { value: 2, .. }));
    let array = Bytes::front(0, 1).string("key").u32(ARRAY).u32(7).u64(2).u8(1).u8(255);
    assert!(matches!(array.problem(), GgufProblem::NotBoolean { value: 255, .. }));
}

#[test]
fn nested_arrays_are_read_to_a_depth() {
    let nested = |depth: usize| {
        let front = Bytes::front(0, 1).string("key").u32(ARRAY);
        let arrays = (1..depth).fold(front, |bytes, _| bytes.u32(ARRAY).u64(1));
        arrays.u32(0).u64(1).u8(42)
    };
    let file = nested(3).open().unwrap();
    let inner = Array::Array(vec![Array::Array(vec![Array::U8(vec![42])])]);
    assert_eq!(file.metadata("key"), Some(&Value::Array(inner)));
    for depth in [4, 10_000] {
        assert!(matches!(nested(depth).problem(), GgufProblem::NestedTooDeep { .. }));
    }
}

#[test]
fn strings_must_be_utf8() {
    let bad = [0xff, 0xfe];
    let key = Bytes::front(0, 1).u64(2).raw(&bad).u32(0).u8(0).raw(&[0; 16]);
    assert!(matches!(key.problem(), GgufProblem::NotUtf8(_)));
    let value = Bytes::front(0, 1).string("key").u32(STRING).u64(2).raw(&bad);
    assert!(matches!(value.problem(), GgufProblem::NotUtf8(what) if what.contains("key")));
    let name = Bytes::front(1, 0).u64(2).raw(&bad).u32(0).u32(0).u64(0).raw(&[0; 16]);
    assert!(matches!(name.problem(), GgufProblem::NotUtf8(_)));
}

#[test]
fn names_are_unique() {
    let keys = Bytes::front(0, 2).entry_u32("key", 1).entry_u32("key", 1);
    assert!(matches!(keys.problem(), GgufProblem::DuplicateKey(key) if key == "key"));
    let tensors = Bytes::front(2, 0).tensor("t", &[1], F32, 0).tensor("t", &[1], F32, 32).pad(32).raw(&[0; 64]);
    assert!(matches!(tensors.problem(), GgufProblem::DuplicateTensor(name) if name == "t"));
}

#[test]
fn alignments() {
    for alignment in [0, 3, 33] {
        let file = Bytes::front(0, 1).entry_u32("general.alignment", alignment);
        assert!(matches!(file.problem(), GgufProblem::BadAlignment(value) if value == u64::from(alignment)));
    }
    let text = Bytes::front(0, 1).entry_str("general.alignment", "32");
    assert!(matches!(text.problem(), GgufProblem::WrongType { .. }));
    let wide = |alignment| Bytes::front(1, 1).entry_u32("general.alignment", alignment).tensor("t", &[1], F32, 0);
    assert_eq!(wide(128).pad(128).f32(7.0).open().unwrap().read_f32("t").unwrap(), [7.0]);
    assert!(matches!(wide(1 << 31).pad(128).f32(7.0).problem(), GgufProblem::OutsideFile { available: 0, .. }));
}

#[test]
fn tensor_types_and_shapes() {
    let tensor = |dimensions: &[u64], kind| Bytes::front(1, 0).tensor("t", dimensions, kind, 0).pad(32).raw(&[0; 64]);
    for code in [4, 5, 9, 31, 200, u32::MAX] {
        assert!(matches!(tensor(&[32], code).problem(), GgufProblem::UnknownTensorType { code: c, .. } if c == code));
    }
    assert!(matches!(tensor(&[1; 5], F32).problem(), GgufProblem::TooManyDimensions { dimensions: 5, .. }));
    let many = Bytes::front(1, 0).string("t").u32(u32::MAX).raw(&[0; 64]);
    assert!(matches!(many.problem(), GgufProblem::TooManyDimensions { .. }));
    for impossible in [[0, 1], [1, 0], [1 << 32, 1 << 32], [u64::MAX, 2], [1 << 63, 1]] {
        assert!(matches!(tensor(&impossible, F32).problem(), GgufProblem::BadShape { .. }), "{impossible:?}");
    }
    assert!(matches!(tensor(&[16, 2], 2).problem(), GgufProblem::PartialBlock { row: 16, block: 32, .. }));
    assert!(matches!(tensor(&[32], 12).problem(), GgufProblem::PartialBlock { block: 256, .. }));
}

#[test]
fn data_lies_within_the_file() {
    let at = |offset| Bytes::front(1, 0).tensor("t", &[8], F32, offset).pad(32).raw(&[0; 64]);
    assert!(at(32).open().is_ok());
    for offset in [64, 1 << 40, u64::MAX - 31] {
        assert!(matches!(at(offset).problem(), GgufProblem::OutsideFile { .. }), "{offset}");
    }
    assert!(matches!(at(8).problem(), GgufProblem::Misaligned { offset: 8, alignment: 32, .. }));
    let large = Bytes::front(1, 0).tensor("t", &[1 << 40], F32, 0).pad(32).raw(&[0; 64]);
    assert!(matches!(large.problem(), GgufProblem::OutsideFile { length, .. } if length == 1 << 42));
}

#[test]
fn tensors_do_not_share_bytes() {
    let file = Bytes::front(2, 0).tensor("a", &[16], F32, 0).tensor("b", &[8], F32, 32).pad(32).raw(&[0; 64]);
    let GgufProblem::Overlap { first, second } = file.problem() else { panic!("not an overlap") };
    assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
}

proptest! {
    /// Whatever single byte is changed, opening and reading ends in a value or an error.
    #[test]
    fn damaged_files_do_not_panic(at in 0usize..300, value: u8) {
        let mut bytes = small_file();
        let at = at % bytes.0.len();
        bytes.0[at] = value;
        if let Ok(file) = bytes.open() {
            for tensor in file.tensors() {
                prop_assert_eq!(file.read_f32(&tensor.name).unwrap().len(), tensor.values());
            }
        }
    }

    /// Any bytes are some numbers in every block type.
    #[test]
    fn any_block_decodes(bytes in proptest::collection::vec(any::<u8>(), 256)) {
        for kind in (0..=30).filter_map(TensorType::from_code) {
            let values = super::quants::dequantise(kind, &bytes);
            prop_assert_eq!(values.len(), bytes.len() / kind.block_bytes() * kind.block_values());
        }
    }
}

/// `fixtures/gguf/blocks.gguf` holds random blocks of every type and what the `gguf` Python package
/// makes of them; see `make.py` beside it.
#[test]
fn dequantisation_is_exact() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/gguf/blocks.gguf");
    let file = GgufFile::open(path).unwrap();
    let mut kinds = Vec::new();
    for tensor in file.tensors().filter(|tensor| !tensor.name.ends_with(".expected")) {
        let expected = file.read_f32(&format!("{}.expected", tensor.name)).unwrap();
        let values = file.read_f32(&tensor.name).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&expected), "{}", tensor.name);
        assert_eq!(file.tensor(&format!("{}.expected", tensor.name)).unwrap().shape, tensor.shape);
        kinds.push(tensor.kind);
    }
    assert_eq!(kinds.len(), 12, "every type but F32, in which the expectations are: {kinds:?}");
}

#[test]
fn every_metadata_type_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/gguf/blocks.gguf");
    let file = GgufFile::open(path).unwrap();
    let expected = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("u64", Value::U64(1 << 63)),
        ("i64", Value::I64(-(1 << 62))),
        ("f32", Value::F32(0.1)),
        ("f64", Value::F64(0.1)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("naïve “quotes” 😀".into())),
        ("strings", Value::Array(Array::String(vec!["a".into(), "".into(), "ü".into()]))),
        ("i32s", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("f32s", Value::Array(Array::F32(vec![0.5, -0.25]))),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
    ];
    for (name, value) in expected {
        assert_eq!(file.metadata(&format!("test.{name}")), Some(&value), "{name}");
    }
    assert_eq!(file.get::<Vec<i64>>("test.i32s").unwrap(), Some(vec![1, -2, 3]));
    assert_eq!(file.get::<u64>("test.u64").unwrap(), Some(1 << 63));
    assert!(file.u32("test.u64").is_err(), "does not fit");
    assert!(file.u32("test.i8").is_err(), "negative");
}
