//! A text encoder's folder, of any family: config.json, tokenizer.json, the sentence-transformers' files, model.safetensors,
//! and a text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2l_core::TextEncoder;

fuzz_target!(|data: &[u8]| {
    let [config, tokenizer, modules, pooling, weights, text] = t2l_fuzz::files(data);
    let _ = std::fs::create_dir_all(t2l_fuzz::folder().join("1_Pooling"));
    t2l_fuzz::write("config.json", config);
    t2l_fuzz::write("tokenizer.json", tokenizer);
    t2l_fuzz::write("modules.json", modules);
    t2l_fuzz::write("1_Pooling/config.json", pooling);
    t2l_fuzz::write("model.safetensors", weights);
    if modules.is_empty() {
        let _ = std::fs::remove_file(t2l_fuzz::folder().join("modules.json"));
    }
    if let Ok(encoder) = t2l_encoder::Encoder::load(t2l_fuzz::folder(), t2l_fuzz::device()) {
        let _ = encoder.encode(&[&String::from_utf8_lossy(text)]);
    }
});
