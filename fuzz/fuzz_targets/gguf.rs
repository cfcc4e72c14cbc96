//! A GGUF file: header, metadata, every tensor's values, tokenizer and template out of it; as an adapter too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2l_backbone::chat::ChatTemplate;
use t2l_backbone::gguf::GgufFile;
use t2l_backbone::tokenizer::ModelTokenizer;

fuzz_target!(|data: &[u8]| {
    t2l_fuzz::write("model.gguf", data);
    let path = t2l_fuzz::folder().join("model.gguf");
    let Ok(file) = GgufFile::open(&path) else { return };
    let names: Vec<String> = file.tensors().map(|t| t.name.clone()).collect();
    for name in names {
        let _ = file.read_f32(&name);
    }
    let _ = ModelTokenizer::from_gguf(&file);
    let _ = ChatTemplate::from_gguf(&file);
    let _ = t2l_adapter::load(&path, None, t2l_fuzz::device());
    let _ = t2l_backbone::Backbone::load(&path, t2l_fuzz::device());
});
