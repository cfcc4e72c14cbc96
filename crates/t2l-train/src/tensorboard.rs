//! Curves of a run as a TensorBoard event file.
//!
//! The file is a sequence of records (TFRecord: length, checksum, bytes, checksum), each a protobuf `Event` of which four
//! fields are needed here. The crates that write it are unmaintained and bring a protobuf compiler's output for them.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value};

use crate::{TrainError, files};

/// TensorBoard reads every file of a folder whose name begins so.
const NAME: &str = "events.out.tfevents.0.t2l";

/// Writes every number of a metrics file as a scalar into `folder`. Returns the path of the event file.
///
/// A metrics file holds no times: every event bears that of its last change. Lines that are half written are left out.
///
/// # Errors
/// The metrics cannot be read, or the file cannot be written.
pub fn tensorboard(metrics: &Path, folder: &Path) -> Result<PathBuf, TrainError> {
    let text = files::read_text(metrics, files::METRICS)?;
    let changed = metrics.metadata().and_then(|about| about.modified()).map_err(TrainError::io(metrics))?;
    let time = changed.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let mut bytes = record(&event(time, None, &field(3, b"brain.Event:2")));
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<Map<String, Value>>(line) else { continue };
        let Some(step) = entry.get("step").and_then(Value::as_u64) else { continue };
        bytes.extend(record(&event(time, Some(step), &field(5, &summary(&entry)))));
    }
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let path = folder.join(NAME);
    files::write_whole(&path, &bytes)?;
    Ok(path)
}

/// `Summary`: a `Value` (tag, simple_value) for every number of a line but the step.
fn summary(entry: &Map<String, Value>) -> Vec<u8> {
    let numbers = entry.iter().filter(|(name, _)| *name != "step");
    let numbers = numbers.filter_map(|(name, value)| Some((name, value.as_f64()? as f32)));
    let value = |(name, value): (&String, f32)| {
        let mut bytes = field(1, name.as_bytes());
        bytes.push(2 << 3 | 5);
        bytes.extend(value.to_le_bytes());
        field(1, &bytes)
    };
    numbers.flat_map(value).collect()
}

/// `Event`: wall_time, step, and what it says.
fn event(time: f64, step: Option<u64>, what: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(time.to_le_bytes());
    if let Some(step) = step {
        bytes.push(2 << 3);
        bytes.extend(varint(step));
    }
    bytes.extend(what);
    bytes
}

/// A protobuf field of bytes: text or another message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A TFRecord.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&length, &checksum(&length), bytes, &checksum(bytes)];
    parts.concat()
}

/// CRC-32C, masked: a checksum of bytes that hold checksums would be weak.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard's own reader (interop/tensorboard_events.py) takes for these lines, byte for byte.
    #[test]
    fn bytes_are_those_of_the_format() {
        // RFC 3720's check value of CRC-32C, masked.
        assert_eq!(
            u32::from_le_bytes(checksum(b"123456789")),
            0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
        assert_eq!(varint(300), [0xac, 0x02]);
        let entry = serde_json::json!({ "step": 7, "loss": 0.5, "name": "text" });
        let bytes = event(1.0, Some(7), &field(5, &summary(entry.as_object().expect("an object"))));
        let value = [&[0x0a, 4][..], b"loss", &[0x15, 0, 0, 0, 0x3f]].concat();
        let expected = [&[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 7, 0x2a, 13, 0x0a, 11][..], &value].concat();
        assert_eq!(bytes, expected);
        assert_eq!(record(&bytes).len(), bytes.len() + 16);
    }

    #[test]
    fn every_whole_line_is_an_event() {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = folder.path().join("metrics.jsonl");
        std::fs::write(&metrics, "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"seen/own_nll\":1}\n{\"step\":3,\"lo")
            .expect("written");
        let path = tensorboard(&metrics, &folder.path().join("tensorboard")).expect("written");
        let bytes = std::fs::read(path).expect("there");
        let (mut rest, mut records) = (&bytes[..], 0);
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            assert_eq!(after[..4], checksum(&rest[..8]));
            assert_eq!(after[4 + length..8 + length], checksum(&after[4..4 + length]));
            rest = &after[8 + length..];
            records += 1;
        }
        assert_eq!((records, rest.len()), (3, 0));
        assert!(tensorboard(&folder.path().join("none"), folder.path()).is_err());
    }
}
