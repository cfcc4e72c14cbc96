//! The K types: 256 values a block, split into groups of 16 or 32 with a small integer scale each
//! (and a minimum in types 2, 4 and 5), all relative to one or two f16 numbers of the block.

use super::quants::half_at;

/// 16 groups of 16: `(d · scale) · q − (dmin · minimum)`. Bytes: 16 × (minimum, scale), 64 × 2-bit, d, dmin.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at::<80, 84>(block), half_at::<82, 84>(block));
    for (group, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scales = block[group];
        let (scale, minimum) = (d * f32::from(scales & 15), dmin * f32::from(scales >> 4));
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(two_bits(&block[16..80], group, i)) - minimum;
        }
    }
}

/// 16 groups of 16: `(d · (scale − 32)) · q`, q in −4..4. Bytes: 32 × high bits, 64 × low 2 bits,
/// 12 × packed 6-bit scales, d.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at::<108, 110>(block);
    let packed = &block[96..108];
    for (group, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = (packed[group % 8] >> (4 * (group / 8))) & 15;
        let high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        for (i, value) in values.iter_mut().enumerate() {
            // A high bit of 1 means that nothing is taken off.
            let bit = (block[16 * (group % 2) + i] >> (group / 2)) & 1;
            let q = f32::from(two_bits(&block[32..96], group, i)) - f32::from((bit ^ 1) << 2);
            *value = scale * q;
        }
    }
}

/// 8 groups of 32: `(d · scale) · q − (dmin · minimum)`. Bytes: d, dmin, 12 × packed 6-bit scales and
/// minima, 128 × 4-bit.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at::<0, 144>(block), half_at::<2, 144>(block));
    for (group, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(four_bits(&block[16..144], group, i)) - minimum;
        }
    }
}

/// As [`q4_k`] with a fifth bit from 32 bytes before the halves.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at::<0, 176>(block), half_at::<2, 176>(block));
    for (group, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for (i, value) in values.iter_mut().enumerate() {
            let high = (block[16 + i] >> group) & 1;
            *value = scale * f32::from(four_bits(&block[48..176], group, i) | high << 4) - minimum;
        }
    }
}

/// 16 groups of 16: `(d · scale) · (q − 32)`. Bytes: 128 × low 4 bits, 64 × high 2 bits, 16 × signed scale, d.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at::<208, 210>(block);
    for (group, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + group] as i8);
        // Of each 128 values: low halves of 64 bytes, then their high halves.
        let (part, within) = (group / 8, group % 8);
        for (i, value) in values.iter_mut().enumerate() {
            let low = (block[64 * part + 16 * (within % 4) + i] >> (4 * (within / 4))) & 15;
            let high = two_bits(&block[128..192], group, i);
            *value = scale * (f32::from(low | high << 4) - 32.0);
        }
    }
}

/// 2-bit numbers of 64 bytes in groups of 16: 32 bytes hold 128 values, the lowest pairs of bits first.
fn two_bits(bytes: &[u8], group: usize, i: usize) -> u8 {
    let (part, within) = (group / 8, group % 8);
    (bytes[32 * part + 16 * (within % 2) + i] >> (2 * (within / 2))) & 3
}

/// 4-bit numbers of 128 bytes in groups of 32: 32 bytes hold 64 values, the low halves first.
fn four_bits(bytes: &[u8], group: usize, i: usize) -> u8 {
    (bytes[32 * (group / 2) + i] >> (4 * (group % 2))) & 15
}

/// The 6-bit scale and minimum of one of 8 groups, packed in 12 bytes: four scales, four minima (whose
/// top bits belong to the later groups), four bytes with the later groups' low halves.
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let at = group % 4;
    let (scales, minima, halves) = (packed[at], packed[4 + at], packed[8 + at]);
    let (scale, minimum) = if group < 4 {
        (scales & 63, minima & 63)
    } else {
        ((halves & 15) | ((scales >> 2) & 48), (halves >> 4) | ((minima >> 2) & 48))
    };
    (f32::from(scale), f32::from(minimum))
}
