//! A base model's folder: config.json, the index of its shards, and one safetensors file that it may name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [config, index, weights] = t2l_fuzz::files(data);
    t2l_fuzz::write("config.json", config);
    t2l_fuzz::write("model.safetensors", weights);
    match index {
        [] => drop(std::fs::remove_file(t2l_fuzz::folder().join("model.safetensors.index.json"))),
        index => t2l_fuzz::write("model.safetensors.index.json", index),
    }
    let _ = t2l_backbone::Decoder::load(t2l_fuzz::folder(), t2l_fuzz::device());
});
