//! Every tensor of a GGUF file as the numbers it stands for: what `cargo xtask interop` compares with Python's `gguf`.
//!
//! `cargo run --release -p t2l-gguf --example dequantise -- model.gguf FOLDER` writes one file a tensor, numbered in the
//! file's order (`0.f32`, `1.f32`, …), row-major little-endian f32, and prints their names.

use std::error::Error;
use std::path::PathBuf;

use t2l_gguf::GgufFile;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let (Some(model), Some(folder)) = (words.next(), words.next().map(PathBuf::from)) else {
        return Err("usage: dequantise MODEL FOLDER".into());
    };
    let file = GgufFile::open(model)?;
    for (i, tensor) in file.tensors().enumerate() {
        let values = file.read_f32(&tensor.name)?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{i}.f32")), bytes)?;
        println!("{}", tensor.name);
    }
    Ok(())
}
