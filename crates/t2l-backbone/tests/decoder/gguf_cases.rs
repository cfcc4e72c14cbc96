//! Tiny models of every architecture that is read from GGUF, with the logits of transformers; `interop/make_gguf_cases.py`
//! makes them.

use std::path::Path;

use burn::tensor::Device;
use t2l_backbone::Decoder;
use t2l_core::AdapterBatch;
use t2l_testing::{Cases, assert_close, tensors};

use super::{ids, rows, values};

#[test]
fn reference_gguf_architectures() {
    let area = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf-models");
    let device = Device::flex();
    Cases::each(&area, "io.safetensors", |case| {
        let io = tensors(&case.join("io.safetensors"));
        let tokens = rows(&io["input_ids"]);
        let check = |path: &Path, kind: &str| {
            let decoder = Decoder::load(path, &device).unwrap_or_else(|e| panic!("{e}"));
            let none = AdapterBatch::none(tokens.len());
            let hidden = decoder.hidden(decoder.embed(ids(&tokens, &device)), &[0], None, &none).expect("runs");
            let expected = &io[&format!("logits.{kind}")];
            assert_close(&path.display().to_string(), &values(decoder.logits(hidden)), &expected.values, 1e-4, 1e-4);
        };
        let kinds: Vec<&str> = io.keys().filter_map(|key| key.strip_prefix("logits.")).collect();
        assert!(!kinds.is_empty(), "{}", case.display());
        for kind in kinds {
            check(&case.join(format!("{kind}.gguf")), kind);
        }
        if case.join("config.json").exists() {
            check(case, "plain");
        }
        Ok(())
    });
}
