//! Speed of a forward pass at the shape of SmolLM2-135M, with random weights: prefill, and one decoded token.
//!
//! Decoding a token reads every weight once, so its time is bounded by `bytes / memory bandwidth`; criterion's throughput
//! column gives the bytes per second that were reached.

use std::hint::black_box;

use burn::tensor::{Device, Int, Tensor, TensorData};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use t2l_backbone::{Decoder, DecoderConfig, KvCache};
use t2l_core::AdapterBatch;

fn ids(rows: usize, tokens: usize, device: &Device) -> Tensor<2, Int> {
    let ids = (0..rows * tokens).map(|i| (i * 37 % 49_000) as i32).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(ids, [rows, tokens]), device)
}

fn step(decoder: &Decoder, ids: Tensor<2, Int>, cache: &mut KvCache) -> Vec<f32> {
    let [rows, tokens] = ids.dims();
    let (starts, none) = (vec![0; rows], AdapterBatch::none(rows));
    let hidden = decoder.hidden(decoder.embed(ids), &starts, Some(cache), &none).expect("fits");
    decoder.logits(hidden.narrow(1, tokens - 1, 1)).to_data().iter().collect()
}

fn decode(criterion: &mut Criterion) {
    let device = Device::flex();
    let decoder = Decoder::random(DecoderConfig::smollm2_135m(), 0, &device).expect("random weights fit");
    let bytes = decoder.config().parameters() as u64 * 4;
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Bytes(bytes));
    for rows in [1, 8] {
        let mut filled = KvCache::new(decoder.config(), rows, 128, &device);
        step(&decoder, ids(rows, 128, &device), &mut filled);
        let all: Vec<usize> = (0..rows).collect();
        group.bench_function(format!("one token after 128, batch {rows}"), |bencher| {
            bencher.iter_batched_ref(
                || filled.select(&all, 1),
                |cache| black_box(step(&decoder, ids(rows, 1, &device), cache)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("prefill");
    group.sample_size(10).throughput(Throughput::Elements(512));
    group.bench_function("512 tokens, batch 1", |bencher| {
        bencher.iter_batched_ref(
            || KvCache::new(decoder.config(), 1, 512, &device),
            |cache| black_box(step(&decoder, ids(1, 512, &device), cache)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
