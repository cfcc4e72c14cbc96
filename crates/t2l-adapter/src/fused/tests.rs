//! ΔW stays the same both ways, whatever the heads, the ranks and the parts that are there.

use burn::tensor::Device;
use proptest::prelude::*;

use super::*;

const PARTS: [&str; 5] = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];
const HIDDEN: usize = 6;

/// The shape of a base model, and an adapter on some of its parts.
#[derive(Debug, Clone)]
struct Case {
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    inter: usize,
    use_rslora: bool,
    /// For two layers: rank, alpha and values' seed of each part that is there.
    places: Vec<Option<(usize, f64, u64)>>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let place = prop::option::of((1_usize..5, prop::sample::select(vec![0.0, 0.5, 2.0, 7.0]), any::<u64>()));
    let shape = (1_usize..4, 1_usize..4, 1_usize..4, 1_usize..7);
    (shape, any::<bool>(), prop::collection::vec(place, 2 * PARTS.len())).prop_map(
        |((kv_heads, group, head_dim, inter), use_rslora, places)| Case {
            kv_heads,
            group,
            head_dim,
            inter,
            use_rslora,
            places,
        },
    )
}

impl Case {
    fn base(&self) -> BaseShape {
        BaseShape::new("phi3", self.kv_heads * self.group, self.kv_heads).unwrap()
    }

    fn rows(&self, part: &str) -> usize {
        match part {
            "q_proj" => self.kv_heads * self.group * self.head_dim,
            "k_proj" | "v_proj" => self.kv_heads * self.head_dim,
            _ => self.inter,
        }
    }

    fn adapter(&self) -> Adapter {
        let mut adapter = Adapter::new("tiny", self.use_rslora);
        let keys = (0..2).flat_map(|layer| PARTS.map(|part| (layer, part)));
        for ((layer, part), place) in keys.zip(&self.places) {
            let Some((rank, alpha, seed)) = *place else { continue };
            let weights = LoraWeights {
                a: matrix(rank, HIDDEN, seed),
                b: matrix(self.rows(part), rank, seed.wrapping_mul(31)),
                alpha,
            };
            adapter.insert(layer, part, weights);
        }
        adapter.insert(0, "o_proj", LoraWeights { a: matrix(2, HIDDEN, 1), b: matrix(HIDDEN, 2, 2), alpha: 3.0 });
        adapter
    }
}

fn matrix(rows: usize, cols: usize, seed: u64) -> Tensor<2> {
    let value = |i: usize| ((seed % 1000) as f32 + 1.7 * i as f32).sin() + 1.5;
    let values: Vec<f32> = (0..rows * cols).map(value).collect();
    Tensor::from_data(TensorData::new(values, [rows, cols]), &Device::flex())
}

/// ΔW of rows `first..first + rows` at a place; zeros where there is nothing.
fn update(adapter: &Adapter, layer: usize, module: &str, first: usize, rows: usize) -> Vec<f64> {
    let Some(w) = adapter.get(layer, module) else { return vec![0.0; rows * HIDDEN] };
    let (rank, s) = (w.rank(), adapter.scaling(w).value());
    let a: Vec<f32> = w.a.to_data().iter().collect();
    let b: Vec<f32> = w.b.to_data().iter().collect();
    let entry = |row: usize, col: usize| -> f64 {
        (0..rank).map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * HIDDEN + col])).sum::<f64>() * s
    };
    (first..first + rows).flat_map(|row| (0..HIDDEN).map(move |col| (row, col))).map(|(r, c)| entry(r, c)).collect()
}

fn close(found: &[f64], expected: &[f64]) -> bool {
    found.iter().zip(expected).all(|(x, y)| (x - y).abs() <= 1e-5 * (1.0 + y.abs()))
}

proptest! {
    #[test]
    fn updates_stay_the_same(case in any_case()) {
        let (base, adapter) = (case.base(), case.adapter());
        let fused = fuse(&adapter, &base).unwrap();
        prop_assert!(fused.iter().all(|(_, m, _)| ["qkv_proj", "gate_up_proj", "o_proj"].contains(&m)));
        let back = split(&fused, &base).unwrap();
        for layer in 0..2 {
            for group in [&PARTS[..3], &PARTS[3..]] {
                let module = if group.len() == 3 { "qkv_proj" } else { "gate_up_proj" };
                let ranks: usize = group.iter().filter_map(|p| adapter.get(layer, p)).map(LoraWeights::rank).sum();
                prop_assert_eq!(fused.get(layer, module).map_or(0, LoraWeights::rank), ranks);
                let mut first = 0;
                for part in group {
                    let rows = case.rows(part);
                    let expected = update(&adapter, layer, part, 0, rows);
                    prop_assert!(close(&update(&fused, layer, module, first, rows), &expected), "{layer} {part}");
                    prop_assert!(close(&update(&back, layer, part, 0, rows), &expected), "{layer} {part} again");
                    // Nothing was lost and nothing has grown. (What is scaled to nothing may go.)
                    if let Some(w) = adapter.get(layer, part).filter(|w| w.alpha != 0.0) {
                        prop_assert_eq!(back.get(layer, part).map(LoraWeights::rank), Some(w.rank()));
                    }
                    first += rows;
                }
            }
        }
        prop_assert!(close(&update(&fused, 0, "o_proj", 0, HIDDEN), &update(&adapter, 0, "o_proj", 0, HIDDEN)));
    }

    #[test]
    fn a_dense_module_is_cut_by_its_heads(case in any_case(), rank in 1_usize..5, seed in any::<u64>()) {
        let total = (case.kv_heads * (case.group + 2)) * case.head_dim;
        let mut adapter = Adapter::new("tiny", case.use_rslora);
        let weights = LoraWeights { a: matrix(rank, HIDDEN, seed), b: matrix(total, rank, !seed), alpha: 3.0 };
        adapter.insert(1, "qkv_proj", weights.clone());
        let parts = split(&adapter, &case.base()).unwrap();
        prop_assert_eq!(parts.len(), 3);
        let mut first = 0;
        for part in &PARTS[..3] {
            let rows = case.rows(part);
            let found = parts.get(1, part).unwrap();
            prop_assert_eq!((found.alpha, found.b.dims()), (3.0, [rows, rank]));
            prop_assert_eq!(found.a.to_data(), weights.a.to_data());
            prop_assert_eq!(update(&parts, 1, part, 0, rows), update(&adapter, 1, "qkv_proj", first, rows));
            first += rows;
        }
    }
}

fn with(module: &str, rows: usize) -> Adapter {
    let mut adapter = Adapter::new("tiny", false);
    adapter.insert(0, module, LoraWeights { a: matrix(2, HIDDEN, 1), b: matrix(rows, 2, 2), alpha: 4.0 });
    adapter
}

#[test]
fn equal_scalings_leave_every_value_alone() {
    let mut adapter = with("q_proj", 8);
    adapter.insert(0, "v_proj", LoraWeights { a: matrix(4, HIDDEN, 3), b: matrix(4, 4, 4), alpha: 8.0 });
    let fused = fuse(&adapter, &BaseShape::new("phi3", 4, 2).unwrap()).unwrap();
    let weights = fused.get(0, "qkv_proj").unwrap();
    assert_eq!((weights.rank(), weights.alpha, weights.b.dims()), (6, 12.0, [16, 6]));
    let corner = weights.b.clone().narrow(0, 12, 4).narrow(1, 2, 4).to_data();
    assert_eq!(corner, matrix(4, 4, 4).to_data());
}

#[test]
fn only_models_that_fuse_are_concerned() {
    let llama = BaseShape::new("llama", 4, 2).unwrap();
    assert!(fuse(&with("q_proj", 8), &llama).unwrap().get(0, "q_proj").is_some());
    assert!(split(&with("qkv_proj", 16), &llama).unwrap().get(0, "qkv_proj").is_some());
}

#[test]
fn a_fresh_adapter_keeps_its_rank() {
    let mut adapter = Adapter::new("tiny", true);
    let b = Tensor::zeros([16, 3], &Device::flex());
    adapter.insert(0, "qkv_proj", LoraWeights { a: matrix(3, HIDDEN, 1), b, alpha: 4.0 });
    let parts = split(&adapter, &BaseShape::new("phi3", 4, 2).unwrap()).unwrap();
    assert!(PARTS[..3].iter().all(|p| parts.get(0, p).is_some_and(|w| w.rank() == 3)));
}

#[test]
fn what_does_not_fit_is_named() {
    let base = BaseShape::new("phi3", 4, 2).unwrap();
    let message = |result: Result<Adapter, AdapterError>| result.unwrap_err().to_string();
    assert_eq!(
        message(split(&with("qkv_proj", 15), &base)),
        "layer 0, qkv_proj: B has 15 rows, which do not fit the base model's heads"
    );
    assert!(message(fuse(&with("q_proj", 9), &base)).contains("q_proj: B has 9 rows"));
    let mut two = with("q_proj", 8);
    two.insert(0, "k_proj", LoraWeights { a: matrix(2, HIDDEN, 1), b: matrix(8, 2, 2), alpha: 4.0 });
    assert!(message(fuse(&two, &base)).contains("k_proj: B has 8 rows"));
    two.insert(0, "k_proj", LoraWeights { a: matrix(2, HIDDEN + 1, 1), b: matrix(4, 2, 2), alpha: 4.0 });
    assert!(message(fuse(&two, &base)).contains("k_proj: A has 7 columns"));
    let mut both = with("q_proj", 8);
    both.insert(0, "qkv_proj", LoraWeights { a: matrix(2, HIDDEN, 1), b: matrix(16, 2, 2), alpha: 4.0 });
    assert!(message(split(&both, &base)).contains("q_proj: is also adapted as a part of qkv_proj"));
    let sum = fuse(&both, &base).unwrap();
    assert_eq!(sum.get(0, "qkv_proj").unwrap().rank(), 4);
}
