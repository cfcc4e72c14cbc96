//! From stored blocks to f32. Each function is one type's formula, evaluated in f32 in the order that
//! the `gguf` Python package and llama.cpp's own reference use, so that the results agree bit for bit.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{TensorType, k_quants};

/// Enough work per piece that handing it to another thread pays.
const VALUES_PER_PIECE: usize = 1 << 16;

/// Decodes whole blocks of one type; bytes beyond the last whole block are ignored.
pub(super) fn dequantise(kind: TensorType, data: &[u8]) -> Vec<f32> {
    match kind {
        TensorType::F32 => decode(data, |block, out: &mut [f32; 1]| *out = [f32::from_le_bytes(*block)]),
        TensorType::F16 => decode(data, |block, out: &mut [f32; 1]| *out = [f16::from_le_bytes(*block).to_f32()]),
        TensorType::BF16 => decode(data, |block, out: &mut [f32; 1]| *out = [bf16::from_le_bytes(*block).to_f32()]),
        TensorType::Q4_0 => decode(data, q4_0),
        TensorType::Q4_1 => decode(data, q4_1),
        TensorType::Q5_0 => decode(data, q5_0),
        TensorType::Q5_1 => decode(data, q5_1),
        TensorType::Q8_0 => decode(data, q8_0),
        TensorType::Q2_K => decode(data, k_quants::q2_k),
        TensorType::Q3_K => decode(data, k_quants::q3_k),
        TensorType::Q4_K => decode(data, k_quants::q4_k),
        TensorType::Q5_K => decode(data, k_quants::q5_k),
        TensorType::Q6_K => decode(data, k_quants::q6_k),
    }
}

fn decode<const BYTES: usize, const VALUES: usize>(
    data: &[u8],
    block: impl Fn(&[u8; BYTES], &mut [f32; VALUES]) + Sync,
) -> Vec<f32> {
    let (blocks, _) = data.as_chunks::<BYTES>();
    let mut values = vec![0.0; blocks.len() * VALUES];
    let (outputs, _) = values.as_chunks_mut::<VALUES>();
    let piece = (VALUES_PER_PIECE / VALUES).max(1);
    outputs.par_chunks_mut(piece).zip(blocks.par_chunks(piece)).for_each(|(outputs, blocks)| {
        for (output, bytes) in outputs.iter_mut().zip(blocks) {
            block(bytes, output);
        }
    });
    values
}

/// The f16 at a fixed place of a block.
pub(super) fn half_at<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> f32 {
    const { assert!(AT + 2 <= BYTES) };
    f16::from_le_bytes([block[AT], block[AT + 1]]).to_f32()
}

/// `d · (q − 8)`: scale, then 16 bytes whose low halves are the first 16 numbers.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at::<0, 18>(block);
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d · q + m`.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at::<0, 20>(block), half_at::<2, 20>(block));
    for (i, &byte) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// `d · (q − 16)`, the fifth bits packed in a 32-bit word before the halves.
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at::<0, 22>(block);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, &byte) in block[6..].iter().enumerate() {
        out[i] = d * (five_bits(byte & 15, high, i) - 16.0);
        out[i + 16] = d * (five_bits(byte >> 4, high, i + 16) - 16.0);
    }
}

/// `d · q + m` with five bits.
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at::<0, 24>(block), half_at::<2, 24>(block));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, &byte) in block[8..].iter().enumerate() {
        out[i] = d * five_bits(byte & 15, high, i) + m;
        out[i + 16] = d * five_bits(byte >> 4, high, i + 16) + m;
    }
}

fn five_bits(low: u8, high: u32, index: usize) -> f32 {
    f32::from(low | (((high >> index) & 1) as u8) << 4)
}

/// `d · q` with signed bytes.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at::<0, 34>(block);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte as i8) * d;
    }
}
