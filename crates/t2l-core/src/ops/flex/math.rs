//! Elementwise maths that the compiler can vectorise.

/// `exp(x)` to about one unit in the last place, without branches (range reduction to `2ⁿ·exp(r)`, degree 6).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer that stands in the low bits
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// Runs a loop with the widest vector instructions of this machine.
#[inline(always)]
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// Sum of `f(a, b)` over two slices, in 16 lanes so that it vectorises; the order is fixed.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    for (x, y) in (&mut a_chunks).zip(&mut b_chunks) {
        for i in 0..16 {
            lanes[i] += f(x[i], y[i]);
        }
    }
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| f(x, y)).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "exp({x}) = {}", exp(x));
        }
        assert!(exp(-1e30) < 2e-38);
    }

    /// Features of the crate pulp decide what is compiled in; without them every kernel here is scalar, and slow.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_widest_vectors_of_this_machine_are_used() {
        struct Width;
        impl pulp::WithSimd for Width {
            type Output = usize;
            fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
                size_of::<S::f32s>() / size_of::<f32>()
            }
        }
        let least = match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx2")) {
            _ if !is_x86_feature_detected!("fma") => 1,
            (true, _) => 16,
            (_, true) => 8,
            _ => 1,
        };
        assert!(pulp::Arch::new().dispatch(Width) >= least);
    }
}
