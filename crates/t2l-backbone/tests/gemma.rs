//! Gemma 3 270M from its Q4_K_M file, where it is: everything around the decoder, padding, the sliding window, an adapter.
//! Its numbers are compared with llama.cpp's in `interop/llama_cpp_gemma.py`; none of them stand here.

use burn::tensor::{Device, Int, Tensor, TensorData};
use t2l_backbone::chat::Message;
use t2l_backbone::{Backbone, Sampling};
use t2l_core::{Adapter, AdapterBatch, AdapterLayout, LoraFactors, LoraScaling, ModuleFactors};
use t2l_testing::gemma3;

fn logits(model: &Backbone, ids: &[u32], adapters: &AdapterBatch) -> Vec<f32> {
    let flat: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(flat, [1, ids.len()]), &Device::flex());
    let tokens = ids.dims()[1];
    let hidden = model.decoder.hidden(model.decoder.embed(ids), &[0], None, adapters).expect("runs");
    model.decoder.logits(hidden.narrow(1, tokens - 1, 1)).into_data().iter().collect()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// An adapter of rank 2 whose factors are waves.
fn adapter(layout: &AdapterLayout) -> Adapter {
    let wave = |shape: [usize; 4]| -> Tensor<4> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32).sin() * 0.1).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    };
    let modules = layout.modules.iter().map(|m| ModuleFactors {
        name: m.name.clone(),
        a: wave([1, layout.layers, 2, m.in_features]),
        b: wave([1, layout.layers, m.out_features, 2]),
    });
    let scaling = LoraScaling { alpha: 2.0, rank: 2, use_rslora: false };
    LoraFactors { scaling, modules: modules.collect() }.adapter(0, "gemma").expect("a task")
}

#[test]
fn gemma_3_end_to_end() {
    let path = match gemma3() {
        Ok(path) => path,
        Err(skip) => return println!("0 cases, 1 skipped: gemma-3-270m ({skip})"),
    };
    let model = Backbone::load(&path, &Device::flex()).expect("loads");
    let config = model.decoder.config();
    assert_eq!((config.family.as_str(), config.layers, config.head_dim, config.kv_heads), ("gemma3", 18, 256, 1));
    assert_eq!((config.window_of(4), config.window_of(5)), (Some(512), None));

    // The file has no template; its vocabulary has the tokens of one.
    let text = model.chat.render_bare(&[Message::user("Hi")], true).expect("renders");
    assert_eq!(text, "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n");
    let ids = model.tokenizer.encode(&text).expect("tokens");
    assert_eq!(ids.first().copied(), model.tokenizer.bos());
    assert_eq!(model.tokenizer.stops().len(), 2, "{:?}", model.tokenizer.stops());
    for text in ["naïve  café\n\n\n  日本語 🙂\tx = {1: 2}", "1234 <unused1> \u{1}", " a", ""] {
        let ids = model.tokenizer.encode(text).expect("tokens");
        assert_eq!(model.tokenizer.decode(&ids, false).expect("text"), text);
    }

    // Two rows of different lengths, padded on the left, answer as alone.
    let prompt = |text: &str| model.tokenizer.encode_with_special(text).expect("tokens");
    let prompts = [
        prompt("The capital of France is Paris. The capital of Italy is"),
        prompt("One, two, three, four, five, six, seven,"),
    ];
    let options = |rows| model.until_end_of_turn(vec![8; rows], Sampling::GREEDY);
    let none = AdapterBatch::none;
    let together = model.decoder.generate(&prompts, &none(2), &options(2), |_, _| ()).expect("answers");
    for (prompt, answer) in prompts.iter().zip(&together) {
        let alone = model.decoder.generate(&[prompt.clone()], &none(1), &options(1), |_, _| ()).expect("answers");
        assert_eq!(alone[0].ids, answer.ids);
    }
    assert!(model.text(&together[0]).expect("text").contains("Rome"), "{}", model.text(&together[0]).expect("text"));

    // An adapter is worn, and by its row only.
    let layout = model.decoder.layout("gemma", &["q_proj", "v_proj"]).expect("a layout");
    let adapter = adapter(&layout);
    let batch = |rows: &[Option<usize>]| AdapterBatch::from_adapters(&[&adapter], rows, &Device::flex()).expect("fits");
    let base = logits(&model, &prompts[0], &none(1));
    let worn = logits(&model, &prompts[0], &batch(&[Some(0)]));
    assert!(furthest(&base, &worn) > 0.1, "{}", furthest(&base, &worn));
    assert!(furthest(&base, &logits(&model, &prompts[0], &batch(&[None]))) < 1e-3);
    println!("1 cases, 0 skipped:");
}
