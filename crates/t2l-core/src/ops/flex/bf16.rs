//! Products in bf16 with sums in f32, as mixed-precision training takes them. AVX512-BF16 takes them at about twice the rate of
//! f32 on AMD's processors, on Intel's at less than that of f32: there it is [AMX](super::amx) that makes them pay. The weight is
//! frozen, so it is rounded and packed once, for each direction.
//!
//! The only unsafe code is [`kernel`]: vector instructions over ranges that are checked beside them.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::amx::{self, PANEL};
use super::{finish, operand, tensor, values};

/// Rows of `x` that share one pass of vector instructions over a panel: with three vectors each they fill the registers.
const STRIP: usize = 8;

/// Rows of `x` that one thread takes at a time.
const CHUNK: usize = 4 * amx::STRIP;

/// A weight `[out, in]` packed for `x · Wᵀ` and for its gradient `dy · W`.
#[derive(Clone)]
pub struct PackedWeight {
    out: usize,
    input: usize,
    forward: Arc<Panels>,
    backward: Arc<Panels>,
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedWeight [{}, {}]", self.out, self.input)
    }
}

impl PackedWeight {
    /// Packs a weight. `None` where this processor or the weight's device has no such products, or slower ones than f32's.
    pub fn new(weight: &Tensor<2>) -> Option<Self> {
        if !kernel::available() || !(amx::available() || kernel::faster_than_f32()) {
            return None;
        }
        let [out, input] = weight.dims();
        let weight = operand(&weight.clone().cast(DType::F32))?.values.to_contiguous();
        let weight = values(&weight);
        let forward = Arc::new(Panels::new(input, out, |k, column| weight[column * input + k]));
        let backward = Arc::new(Panels::new(out, input, |k, column| weight[k * input + column]));
        Some(Self { out, input, forward, backward })
    }

    /// The weight's shape: `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.out, self.input]
    }

    /// See [`crate::ops::linear_bf16`]. `None` where `x` is not an f32 tensor of this width on flex.
    pub fn linear(&self, x: &Tensor<3>) -> Option<Tensor<3>> {
        let [batch, tokens, input] = x.dims();
        if input != self.input {
            return None;
        }
        let mut x = operand(x)?;
        x.values = x.values.to_contiguous();
        let out = self.forward.multiply(values(&x.values), batch * tokens);
        let (backward, shape) = (Arc::clone(&self.backward), [batch, tokens, input]);
        Some(finish([x], tensor(out, &[batch, tokens, self.out]), move |grad, [wanted]| {
            [wanted.then(|| tensor(backward.multiply(values(&grad), batch * tokens), &shape))]
        }))
    }
}

/// A matrix `[depth, columns]` in panels of [`PANEL`] columns: per panel and pair of rows, the pairs of its columns. The depth
/// is filled up with zeros to whole tiles.
struct Panels {
    /// Two bf16 values each, the even row's in the low half; missing rows and columns are zeros.
    pairs: Vec<u32>,
    depth: usize,
    columns: usize,
}

impl Panels {
    fn new(depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        let half = |k: usize, column: usize| match k < depth && column < columns {
            true => u32::from(half::bf16::from_f32(value(k, column)).to_bits()),
            false => 0,
        };
        let of_panel = pairs_of(depth) * PANEL;
        let mut pairs = vec![0u32; columns.div_ceil(PANEL) * of_panel];
        pairs.par_chunks_mut(of_panel.max(1)).enumerate().for_each(|(panel, pairs)| {
            for (i, pair) in pairs.iter_mut().enumerate() {
                let (k, column) = (i / PANEL * 2, panel * PANEL + i % PANEL);
                *pair = half(k, column) | half(k + 1, column) << 16;
            }
        });
        Self { pairs, depth, columns }
    }

    /// `x · self`. `x`: `[rows, depth]`; gives `[rows, columns]`.
    fn multiply(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0f32; rows * self.columns];
        if rows == 0 || self.columns == 0 || self.depth == 0 {
            return out;
        }
        let chunks = x.par_chunks(CHUNK * self.depth).zip(out.par_chunks_mut(CHUNK * self.columns));
        chunks.for_each(|(x, out)| self.multiply_chunk(x, out));
        out
    }

    fn multiply_chunk(&self, x: &[f32], out: &mut [f32]) {
        let pairs = pairs_of(self.depth);
        let rows = x.len() / self.depth;
        // With few rows most of a tile would be empty.
        let by_amx = amx::available() && rows > STRIP;
        let strip_length = if by_amx { amx::STRIP } else { STRIP };
        // Rows that are missing from the last strip are zeros.
        let mut halves = vec![0u32; rows.next_multiple_of(strip_length) * pairs];
        for (row, halves) in x.chunks_exact(self.depth).zip(halves.chunks_exact_mut(pairs)) {
            kernel::round(row, &mut halves[..self.depth.div_ceil(2)]);
        }
        let mut block = [0.0f32; amx::STRIP * PANEL];
        for (panel, weight) in self.pairs.chunks_exact(pairs * PANEL).enumerate() {
            let first = panel * PANEL;
            let count = PANEL.min(self.columns - first);
            for strip in (0..rows).step_by(strip_length) {
                let strip_rows = strip_length.min(rows - strip);
                let halves = &halves[strip * pairs..];
                if by_amx {
                    amx::multiply(&halves[..amx::STRIP * pairs], weight, &mut block);
                } else {
                    kernel::multiply(&halves[..strip_rows * pairs], weight, &mut block);
                }
                for (row, block) in block.chunks_exact(PANEL).take(strip_rows).enumerate() {
                    out[(strip + row) * self.columns + first..][..count].copy_from_slice(&block[..count]);
                }
            }
        }
    }
}

/// Pairs of values in a packed row, whole tiles of them.
fn pairs_of(depth: usize) -> usize {
    depth.div_ceil(2).next_multiple_of(amx::PAIRS)
}

/// Vector instructions behind safe functions. Each checks the ranges it touches; callers reach it only through a
/// [`PackedWeight`], which exists only where [`available`](kernel::available) said so.
#[cfg(target_arch = "x86_64")]
mod kernel {
    use std::arch::x86_64::{
        __cpuid, __m256bh, __m512bh, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{PANEL, STRIP};

    pub fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }

    /// Whether `vdpbf16ps`, where it is [`available`], beats products of f32: not on Intel's processors (1.3 times the time
    /// for a step of training).
    pub fn faster_than_f32() -> bool {
        // The first letters of the vendor's name.
        __cpuid(0).ebx != u32::from_le_bytes(*b"Genu")
    }

    /// Rounds values to bf16, two to a word; an odd last one is paired with a zero.
    pub fn round(x: &[f32], halves: &mut [u32]) {
        assert!(available() && halves.len() == x.len().div_ceil(2));
        let whole = x.len() / 16 * 16;
        // SAFETY: the processor has the instructions, asked just above; 16 values at a time are read from `x` and 8 words
        // written to `halves`, below `whole` values and `whole / 2` words, which both slices have.
        unsafe { round_vectors(&x[..whole], &mut halves[..whole / 2]) };
        let bits = |x: Option<&f32>| x.map_or(0, |&x| u32::from(half::bf16::from_f32(x).to_bits()));
        for (pair, half) in x[whole..].chunks(2).zip(&mut halves[whole / 2..]) {
            *half = bits(pair.first()) | bits(pair.get(1)) << 16;
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn round_vectors(x: &[f32], halves: &mut [u32]) {
        for (x, halves) in x.chunks_exact(16).zip(halves.chunks_exact_mut(8)) {
            // SAFETY: both chunks are as long as a vector; a __m256bh is 32 bytes without padding.
            unsafe {
                let rounded: __m256bh = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
                halves.as_mut_ptr().cast::<__m256bh>().write_unaligned(rounded);
            }
        }
    }

    /// `out[row][column] = x[row] · panel[column]` for up to [`STRIP`] rows.
    ///
    /// `x`: `[rows, pairs]`, `panel`: `[pairs, PANEL]`.
    pub fn multiply(x: &[u32], panel: &[u32], out: &mut [f32]) {
        let pairs = panel.len() / PANEL;
        assert!(available() && pairs > 0 && panel.len() == pairs * PANEL);
        let rows = x.len() / pairs;
        assert!(x.len() == rows * pairs && rows <= STRIP && out.len() >= rows * PANEL);
        // SAFETY: the processor has the instructions, and the lengths asserted above are those that the kernel reads.
        unsafe {
            match rows {
                0 => {}
                1 => strip::<1>(x, panel, pairs, out),
                2 => strip::<2>(x, panel, pairs, out),
                3 => strip::<3>(x, panel, pairs, out),
                4 => strip::<4>(x, panel, pairs, out),
                5 => strip::<5>(x, panel, pairs, out),
                6 => strip::<6>(x, panel, pairs, out),
                7 => strip::<7>(x, panel, pairs, out),
                _ => strip::<8>(x, panel, pairs, out),
            }
        }
    }

    /// # Safety
    /// Needs AVX512-BF16, `R · pairs` words of `x`, `pairs · PANEL` of `panel`, and `R · PANEL` values of `out`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn strip<const R: usize>(x: &[u32], panel: &[u32], pairs: usize, out: &mut [f32]) {
        let (x, panel, out) = (x.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        let mut sums = [[_mm512_setzero_ps(); 3]; R];
        for pair in 0..pairs {
            // SAFETY: `pair < pairs`, `row < R` and `vector < 3`, so every read is inside what the caller vouches for.
            unsafe {
                let weight: [__m512bh; 3] = std::array::from_fn(|vector| {
                    std::mem::transmute(_mm512_loadu_si512(panel.add(pair * PANEL + vector * 16).cast()))
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x.add(row * pairs + pair).read() as i32));
                    for (sum, weight) in sums.iter_mut().zip(weight) {
                        *sum = _mm512_dpbf16_ps(*sum, x, weight);
                    }
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                // SAFETY: `row < R` and `vector < 3`, so the sixteen values lie inside what the caller vouches for.
                unsafe { _mm512_storeu_ps(out.add(row * PANEL + vector * 16), sum) };
            }
        }
    }
}

/// Processors without the instructions: no [`PackedWeight`] is ever made.
#[cfg(not(target_arch = "x86_64"))]
mod kernel {
    pub fn available() -> bool {
        false
    }

    pub fn faster_than_f32() -> bool {
        false
    }

    pub fn round(_: &[f32], _: &mut [u32]) {
        unreachable!("no weight is packed on this processor")
    }

    pub fn multiply(_: &[u32], _: &[u32], _: &mut [f32]) {
        unreachable!("no weight is packed on this processor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same words through both instructions; what is endless or no number stays in its row and its column.
    #[test]
    fn tiles_and_vectors_agree() {
        if !amx::available() || !kernel::available() {
            println!("skipped: this processor has no AMX");
            return;
        }
        let depth = 75;
        let number = |i: usize| (i * 7919 % 2003) as f32 / 1000.0 - 1.0;
        let panels = Panels::new(depth, PANEL, |k, column| match (k, column) {
            (3, 5) => f32::INFINITY,
            (74, 40) => f32::NAN,
            _ => number(k * PANEL + column),
        });
        let pairs = pairs_of(depth);
        let mut x = vec![0u32; amx::STRIP * pairs];
        for (row, halves) in x.chunks_exact_mut(pairs).enumerate() {
            let mut values: Vec<f32> = (0..depth).map(|k| number(row * depth + k + 11)).collect();
            if row == 17 {
                values[20] = f32::NEG_INFINITY;
            }
            kernel::round(&values, &mut halves[..depth.div_ceil(2)]);
        }
        let mut by_tiles = [0.0f32; amx::STRIP * PANEL];
        amx::multiply(&x, &panels.pairs, &mut by_tiles);
        let mut by_vectors = [0.0f32; amx::STRIP * PANEL];
        for (x, out) in x.chunks_exact(STRIP * pairs).zip(by_vectors.chunks_exact_mut(STRIP * PANEL)) {
            kernel::multiply(x, &panels.pairs, out);
        }
        for (i, (tiles, vectors)) in by_tiles.iter().zip(&by_vectors).enumerate() {
            let (row, column) = (i / PANEL, i % PANEL);
            assert_eq!(
                tiles.is_finite(),
                row != 17 && column != 5 && column != 40,
                "row {row}, column {column}: {tiles}"
            );
            assert_eq!(tiles.is_finite(), vectors.is_finite(), "row {row}, column {column}");
            assert!(!tiles.is_finite() || (tiles - vectors).abs() < 1e-5 * depth as f32, "{tiles} and {vectors}");
        }
    }
}
