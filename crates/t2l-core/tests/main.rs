//! The shapes of adapters: any rank, layers, modules, batch.

use burn::tensor::{Device, Distribution, Tensor};
use proptest::prelude::*;
use t2l_core::{
    Adapter, AdapterBatch, AdapterLayout, FitError, LoraFactors, LoraScaling, LoraWeights, ModuleFactors, TargetModule,
};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn factors(tasks: usize, layers: usize, rank: usize, widths: &[(usize, usize)]) -> LoraFactors {
    let modules = widths.iter().enumerate().map(|(i, &(input, output))| ModuleFactors {
        name: format!("m{i}_proj"),
        a: random([tasks, layers, rank, input]),
        b: random([tasks, layers, output, rank]),
    });
    LoraFactors { scaling: LoraScaling { alpha: 16.0, rank, use_rslora: true }, modules: modules.collect() }
}

fn layout(layers: usize, widths: &[(usize, usize)]) -> AdapterLayout {
    let modules = widths.iter().enumerate().map(|(i, &(a, b))| TargetModule::new(format!("m{i}_proj"), a, b));
    AdapterLayout { base_model: "any".into(), layers, modules: modules.collect() }
}

fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
    assert_eq!(a.dims(), b.dims());
    let largest: f32 = b.clone().abs().max().into_scalar();
    let off: f32 = (a - b).abs().max().into_scalar();
    assert!(off <= 1e-5 * largest.max(1e-6), "off by {off} of {largest}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn delta_w_is_scaling_times_b_times_a(
        tasks in 1usize..4, layers in 1usize..9, rank in 1usize..33, widths in prop::collection::vec((1usize..20, 1usize..20), 1..8),
    ) {
        let factors = factors(tasks, layers, rank, &widths);
        for (i, &(input, output)) in widths.iter().enumerate() {
            let name = format!("m{i}_proj");
            let delta = factors.delta_w(&name).expect("there");
            prop_assert_eq!(delta.dims(), [tasks, layers, output, input]);
            // The same through one task's adapter.
            let adapter = factors.adapter(tasks - 1, "any").expect("there");
            let w = adapter.get(layers - 1, &name).expect("there");
            let expected = w.b.clone().matmul(w.a.clone()).mul_scalar(adapter.scaling(w).value());
            close(delta.narrow(0, tasks - 1, 1).narrow(1, layers - 1, 1).reshape([output, input]), expected);
        }
        prop_assert_eq!(layout(layers, &widths).parameters(rank), widths.iter().map(|(a, b)| layers * rank * (a + b)).sum::<usize>());
    }

    #[test]
    fn rows_wear_what_they_chose(
        tasks in 1usize..4, layers in 1usize..4, rank in 1usize..9, widths in prop::collection::vec((1usize..9, 1usize..9), 1..4),
        rows in prop::collection::vec(prop::option::of(0usize..3), 1..6),
    ) {
        let factors = factors(tasks, layers, rank, &widths);
        let rows: Vec<Option<usize>> = rows.into_iter().map(|r| r.filter(|&t| t < tasks)).collect();
        let dense = AdapterBatch::select_factors(&factors, &rows).expect("fits");
        let adapters: Vec<Adapter> = (0..tasks).map(|t| factors.adapter(t, "any").expect("there")).collect();
        let listed = AdapterBatch::from_adapters(&adapters.iter().collect::<Vec<_>>(), &rows, &Device::flex()).expect("fits");
        dense.check(rows.len(), &layout(layers, &widths)).expect("fits");
        for layer in 0..layers {
            for i in 0..widths.len() {
                let name = format!("m{i}_proj");
                let update = |batch: &AdapterBatch| batch.get(layer, &name).map(|f| f.b.clone().matmul(f.a.clone()) * f.scaling.clone());
                match (update(&dense), update(&listed)) {
                    (Some(a), Some(b)) => close(a, b),
                    (Some(a), None) => prop_assert_eq!(a.abs().max().into_scalar::<f32>(), 0.0),
                    other => prop_assert!(false, "{:?}", other.1.is_some()),
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let factors = factors(1, 2, 2, &[(4, 6)]);
    let batch = AdapterBatch::from_factors(&factors);
    assert_eq!(batch.check(2, &layout(2, &[(4, 6)])), Err(FitError::Rows { expected: 2, found: 1 }));
    assert_eq!(batch.check(1, &layout(1, &[(4, 6)])), Err(FitError::NoSuchLayer { layer: 1, layers: 1 }));
    assert!(matches!(batch.check(1, &layout(2, &[(5, 6)])), Err(FitError::Shape { in_features: 5, .. })));
    let other =
        AdapterLayout { base_model: String::new(), layers: 2, modules: vec![TargetModule::new("q_proj", 4, 6)] };
    assert!(matches!(batch.check(1, &other), Err(FitError::NoSuchModule { .. })));
    assert_eq!(
        AdapterBatch::select_factors(&factors, &[Some(1)]).expect_err("too few"),
        FitError::NoSuchAdapter { row: 0, adapter: 1, given: 1 }
    );
}

#[test]
fn ranks_may_differ_between_rows() {
    let device = Device::flex();
    let one = |rank: usize| {
        let mut adapter = Adapter::new("any", false);
        adapter.insert(0, "q_proj", LoraWeights { a: random([rank, 4]), b: random([3, rank]), alpha: 8.0 });
        adapter
    };
    let (small, large) = (one(1), one(3));
    let batch = AdapterBatch::from_adapters(&[&small, &large], &[Some(1), None, Some(0)], &device).expect("fits");
    let f = batch.get(0, "q_proj").expect("there");
    assert_eq!((f.a.dims(), f.b.dims()), ([3, 3, 4], [3, 3, 3]));
    let update = f.b.clone().matmul(f.a.clone()) * f.scaling.clone();
    let w = small.get(0, "q_proj").expect("there");
    close(update.narrow(0, 2, 1).squeeze_dim::<2>(0), w.b.clone().matmul(w.a.clone()).mul_scalar(8.0));
}
