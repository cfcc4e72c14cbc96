//! Every fused kernel against the composed form: values and gradients, on any shapes.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use proptest::prelude::*;

use super::{AdamW, AttentionMask, Bf16Weight, composed};
use crate::{InputDropout, RowFactors};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn close<const D: usize>(a: &Tensor<D>, b: &Tensor<D>, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let (a, b): (Vec<f32>, Vec<f32>) = (a.to_data().iter().collect(), b.to_data().iter().collect());
    let largest = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= 2e-5 * largest, "{what}[{i}]: {a} against {b} (largest {largest})");
    }
}

/// Compares values and the gradients with respect to every input, under a random weighting of the output.
fn compare<const N: usize, const D: usize, const O: usize>(
    inputs: [Tensor<D>; N],
    fused: impl Fn(&[Tensor<D>; N]) -> Tensor<O>,
    spelled_out: impl Fn(&[Tensor<D>; N]) -> Tensor<O>,
) {
    close(&fused(&inputs), &spelled_out(&inputs), "value, untracked");
    let weighting = random(spelled_out(&inputs).dims());
    let run = |f: &dyn Fn(&[Tensor<D>; N]) -> Tensor<O>| {
        let tracked = inputs.each_ref().map(|x| Tensor::from_inner(x.clone()).require_grad());
        let out = f(&tracked);
        let grads = out.clone().mul(Tensor::from_inner(weighting.clone())).sum().backward();
        (out.inner(), tracked.map(|x| x.grad(&grads).expect("every input has a gradient")))
    };
    let ((a, a_grads), (b, b_grads)) = (run(&fused), run(&spelled_out));
    close(&a, &b, "value");
    for (i, (a, b)) in a_grads.iter().zip(&b_grads).enumerate() {
        close(a, b, &format!("gradient {i}"));
    }
}

/// Constants go into a tracked computation as constants.
fn constant<const D: usize>(like: &Tensor<3>, x: &Tensor<D>) -> Tensor<D> {
    if like.device() == Device::flex() { x.clone() } else { Tensor::from_inner(x.clone()) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_of_a_half_weight(batch in 1usize..5, tokens in 1usize..9, input in 1usize..150, output in 1usize..200) {
        for dtype in [DType::BF16, DType::F16] {
            let weight = random([output, input]).cast(dtype);
            let wide = weight.clone().cast(DType::F32);
            compare(
                [random([batch, tokens, input])],
                |[x]| super::linear(x.clone(), &constant(x, &weight)),
                |[x]| composed::linear(x.clone(), &constant(x, &wide)),
            );
            let x = random([batch, tokens, input]);
            close(&composed::linear(x.clone(), &weight), &composed::linear(x, &wide), "composed");
        }
    }

    /// Rounds its operands; sums in f32 of the same rounded values are the reference.
    #[test]
    fn linear_in_bf16(batch in 1usize..4, tokens in 1usize..70, input in 1usize..130, output in 1usize..130) {
        let rounded = |x: Tensor<3>| x.cast(DType::BF16).cast(DType::F32);
        let weight: Tensor<2> = random([output, input]);
        if let Some(packed) = Bf16Weight::new(&weight) {
            let weight = weight.cast(DType::BF16).cast(DType::F32);
            let (x, dy) = (random([batch, tokens, input]), random([batch, tokens, output]));
            let tracked = Tensor::from_inner(x.clone()).require_grad();
            let y = super::linear_bf16(tracked.clone(), &packed);
            close(&y.clone().inner(), &composed::linear(rounded(x.clone()), &weight), "value");
            close(&super::linear_bf16(x, &packed), &y.clone().inner(), "untracked");
            let grads = y.mul(Tensor::from_inner(dy.clone())).sum().backward();
            let dx = tracked.grad(&grads).expect("it has a gradient");
            close(&dx, &composed::linear(rounded(dy), &weight.transpose()), "gradient");
        } else {
            println!("skipped: this processor has no products in bf16");
        }
    }

    #[test]
    fn linear(batch in 1usize..5, tokens in 1usize..6, input in 1usize..150, output in 1usize..200) {
        let weight = random([output, input]);
        compare(
            [random([batch, tokens, input])],
            |[x]| super::linear(x.clone(), &constant(x, &weight)),
            |[x]| composed::linear(x.clone(), &constant(x, &weight)),
        );
        // A view with other strides, on both sides.
        let x = random([tokens, batch, input]).swap_dims(0, 1);
        let weight = random([input, output]).transpose();
        close(&super::linear(x.clone(), &weight), &composed::linear(x, &weight), "strided");
    }

    // Narrower rows have gradients that are nothing but cancellation: for a width of 1 the norm is a constant.
    #[test]
    fn rms_norm(batch in 1usize..4, tokens in 1usize..9, width in 4usize..70) {
        let weight = random([width]);
        compare(
            [random([batch, tokens, width])],
            |[x]| super::rms_norm(x.clone(), &constant(x, &weight), 1e-5),
            |[x]| composed::rms_norm(x.clone(), &constant(x, &weight), 1e-5),
        );
    }

    #[test]
    fn layer_norm(rows in 1usize..40, width in 4usize..70) {
        // Weight and bias as `[1, width]` like `x`, so that their gradients are compared too.
        let flat = |x: &Tensor<2>| x.clone().reshape([width]);
        compare(
            [random([rows, width]), random([1, width]), random([1, width])],
            |[x, weight, bias]| super::layer_norm(x.clone(), &flat(weight), &flat(bias), 1e-5),
            |[x, weight, bias]| composed::layer_norm(x.clone(), &flat(weight), &flat(bias), 1e-5),
        );
    }

    #[test]
    fn silu(rows in 1usize..90, width in 1usize..100) {
        compare(
            [random([rows, width]).mul_scalar(4.0)],
            |[x]| super::silu(x.clone()),
            |[x]| composed::silu(x.clone()),
        );
    }

    #[test]
    fn silu_gate(batch in 1usize..4, tokens in 1usize..9, width in 1usize..40) {
        compare(
            [random([batch, tokens, 2 * width]).mul_scalar(4.0)],
            |[x]| super::silu_gate(x.clone()),
            |[x]| composed::silu_gate(x.clone()),
        );
    }

    #[test]
    fn rope(batch in 1usize..4, tokens in 1usize..9, heads in 1usize..4, half in 1usize..9) {
        let angles = random([batch, tokens, half]);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let split = |x: &Tensor<3>| x.clone().reshape([batch, tokens, heads, 2 * half]);
        compare(
            [random([batch, tokens, heads * 2 * half])],
            |[x]| super::rope(split(x), &constant(x, &cos), &constant(x, &sin)),
            |[x]| composed::rope(split(x), &constant(x, &cos), &constant(x, &sin)),
        );
    }

    #[test]
    fn attention(
        batch in 1usize..4, past in 0usize..5, queries in 1usize..9, kv_heads in 1usize..3, group in 1usize..4,
        head_dim in 1usize..9, window in proptest::option::of(1usize..6), start in 0usize..6,
    ) {
        let keys = past + queries;
        let mask = AttentionMask { starts: (0..batch).map(|row| (start * row).min(keys)).collect(), window };
        let widest = batch * keys * kv_heads * group * head_dim;
        let q = |x: &Tensor<1>| x.clone().narrow(0, 0, batch * queries * kv_heads * group * head_dim).reshape([batch, queries, kv_heads * group, head_dim]);
        let kv = |x: &Tensor<1>| x.clone().narrow(0, 0, batch * keys * kv_heads * head_dim).reshape([batch, keys, kv_heads, head_dim]);
        compare(
            [random([widest]), random([widest]), random([widest])],
            |[a, b, c]| super::attention(q(a), kv(b), kv(c), &mask, 0.5, None),
            |[a, b, c]| composed::attention(q(a), kv(b), kv(c), &mask, 0.5, None),
        );
    }

    #[test]
    fn rope_attention(
        batch in 1usize..4, tokens in 1usize..9, kv_heads in 1usize..3, group in 1usize..4, half in 1usize..5,
        window in proptest::option::of(1usize..6), start in 0usize..6,
    ) {
        let mask = AttentionMask { starts: (0..batch).map(|row| (start * row).min(tokens)).collect(), window };
        let angles = random([batch, tokens, half]);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let heads = [kv_heads * group, kv_heads];
        compare(
            [random([batch, tokens, (heads[0] + 2 * kv_heads) * 2 * half])],
            |[x]| super::rope_attention(x.clone(), &constant(x, &cos), &constant(x, &sin), heads, &mask, 0.4),
            |[x]| composed::rope_attention(x.clone(), &constant(x, &cos), &constant(x, &sin), heads, &mask, 0.4),
        );
    }

    #[test]
    fn low_rank(
        rows in 1usize..4, tokens in 1usize..7, input in 1usize..20, output in 1usize..20, rank in 1usize..9,
        first in 0usize..5, after in 0usize..5,
        p in proptest::option::of(0.05f64..0.6), seed: u64, first_row in 0usize..4,
    ) {
        let dropout = p.map(|p| InputDropout { p, seed, first_row });
        let scaling = random([rows, 1, 1]);
        let run = |[y, x, a, b]: &[Tensor<3>; 4], fused: bool| {
            let factors = RowFactors { a: a.clone(), b: b.clone(), scaling: constant(x, &scaling) };
            if fused { super::low_rank(y.clone(), first, x.clone(), &factors, dropout, 3) } else { composed::low_rank(y.clone(), first, x.clone(), &factors, dropout, 3) }
        };
        compare(
            [random([rows, tokens, first + output + after]), random([rows, tokens, input]), random([rows, rank, input]), random([rows, output, rank])],
            |inputs| run(inputs, true),
            |inputs| run(inputs, false),
        );
    }

    #[test]
    fn label_nll(n in 1usize..150, width in 1usize..20, vocabulary in 2usize..90, smoothing in prop_oneof![Just(0.0), Just(0.1)], softcap in prop_oneof![Just(None), Just(Some(2.5))]) {
        let head = random([vocabulary, width]);
        let labels: Vec<i32> = (0..n).map(|i| (i * 7 % vocabulary) as i32).collect();
        let run = |x: &Tensor<2>, fused: bool| {
            let labels: Tensor<1, Int> = Tensor::from_data(TensorData::new(labels.clone(), [n]), &Device::flex());
            let tracked = x.device() != Device::flex();
            let head = if tracked { Tensor::from_inner(head.clone()) } else { head.clone() };
            let labels = if tracked { Tensor::from_inner(labels) } else { labels };
            if fused { super::label_nll(x.clone(), &head, labels, smoothing, softcap) } else { composed::label_nll(x.clone(), &head, labels, smoothing, softcap) }
        };
        compare([random([n, width])], |[x]| run(x, true), |[x]| run(x, false));
    }

    #[test]
    fn adamw(n in 1usize..50, step in 1u64..20) {
        let step = AdamW { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1, step, clip: 0.7 };
        let (p, m, v, g) = (random([n]), random([n]), random([n]).square(), random([n]));
        for (a, b) in super::adamw([&p, &m, &v], &g, &step).iter().zip(&composed::adamw([&p, &m, &v], &g, &step)) {
            close(a, b, "state");
        }
    }
}

#[test]
fn a_query_that_sees_nothing_gives_zeros() {
    let mask = AttentionMask { starts: vec![2], window: None };
    let x = random([1, 3, 2, 4]);
    let out = super::attention(x.clone(), x.clone(), x, &mask, 1.0, None);
    assert_eq!(out.narrow(1, 0, 2).abs().max().into_scalar::<f32>(), 0.0);
}
