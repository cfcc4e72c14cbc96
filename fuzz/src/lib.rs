//! What the targets share: one input as several files.

use std::path::Path;
use std::sync::LazyLock;

use burn::tensor::Device;
use tempfile::TempDir;

/// What separates files in one input.
pub const SEPARATOR: &[u8] = b"\n%%%%\n";

/// One input as `N` files; those that it does not have are empty.
pub fn files<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = data;
    std::array::from_fn(|i| {
        let at = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR).filter(|_| i + 1 < N);
        let (file, after) = match at {
            Some(at) => (&rest[..at], &rest[at + SEPARATOR.len()..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        file
    })
}

/// Several files as one input, for seeds.
pub fn joined(files: &[&[u8]]) -> Vec<u8> {
    files.join(SEPARATOR)
}

/// A folder of this process. Set TMPDIR to a memory file system for speed.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a temporary folder"));
    FOLDER.path()
}

/// Writes a file into the folder of this process.
pub fn write(name: &str, bytes: &[u8]) {
    std::fs::write(folder().join(name), bytes).expect("written");
}

/// The device that loaders put tensors on.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| t2l_core::device::parse("cpu").expect("flex"));
    &DEVICE
}
