//! Token ids and decoded text, of the tokenizer inside SmolLM2's GGUF file and of MiniLM's `tokenizer.json`.

use serde_json::Value;
use sha2::{Digest, Sha256};
use t2l_backbone::{gguf::GgufFile, tokenizer::ModelTokenizer};
use t2l_testing::json;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().map(|id| id as u32)
}

#[test]
fn reference_vocabulary() {
    super::with_smollm2(|area, model| {
        let facts = json(&area.join("vocab_facts.json"));
        let file = GgufFile::open(model).unwrap();
        let tokenizer = ModelTokenizer::from_gguf(&file).unwrap();
        assert_eq!(tokenizer.vocabulary() as u64, facts["n_tokens"].as_u64().unwrap());
        for (key, digest) in
            [("tokens", "sha256_tokens_joined_by_newline"), ("merges", "sha256_merges_joined_by_newline")]
        {
            let joined = file.strings(&format!("tokenizer.ggml.{key}")).unwrap().join("\n");
            let hex: String = Sha256::digest(joined).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, facts[digest].as_str().unwrap(), "{key}");
        }
        let specials = facts["special_tokens"].as_object().unwrap();
        for (token, expected) in specials {
            assert_eq!(tokenizer.token_id(token), id(expected), "{token}");
            assert_eq!(tokenizer.encode(token).unwrap(), [id(expected).unwrap()], "{token}");
            assert_eq!(tokenizer.decode(&[id(expected).unwrap()], true).unwrap(), "", "{token}");
        }
        let sample = facts["sample"].as_object().unwrap();
        for (number, token) in sample {
            assert_eq!(tokenizer.token(number.parse().unwrap()).as_deref(), token.as_str(), "{number}");
        }
        assert_eq!(tokenizer.bos(), id(&facts["bos"]));
        assert_eq!(tokenizer.eos(), id(&facts["eos"]));
        assert_eq!(tokenizer.pad(), id(&facts["pad"]));
        let added = tokenizer.encode_with_special("a").unwrap().first().copied() == tokenizer.bos();
        assert_eq!(added, facts["add_bos"].as_bool().unwrap());
        specials.len() + sample.len()
    });
}

#[test]
fn reference_texts() {
    super::with_smollm2(|area, model| {
        let tokenizer = ModelTokenizer::from_gguf(&GgufFile::open(model).unwrap()).unwrap();
        let cases = json(&area.join("texts.json"));
        let cases = cases.as_array().unwrap();
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
            let tokens: Vec<Option<String>> = expected.iter().map(|&id| tokenizer.token(id)).collect();
            assert_eq!(serde_json::json!(tokens), case["tokens"], "{text:?}");
            for (key, skip_special) in [("decoded", false), ("decoded_skip_special", true)] {
                assert_eq!(tokenizer.decode(&expected, skip_special).unwrap(), case[key].as_str().unwrap());
                let mut stream = tokenizer.stream(skip_special);
                let mut streamed: String = expected.iter().map(|&id| stream.push(id).unwrap()).collect();
                streamed += &stream.finish().unwrap();
                assert_eq!(streamed, case[key].as_str().unwrap(), "streamed");
            }
        }
        cases.len()
    });
}

#[test]
fn reference_tokenizer_json() {
    let Some(fixtures) = t2l_testing::fixtures() else { return };
    super::each(fixtures.join("encoders/minilm"), t2l_testing::minilm(), |area, model| {
        let tokenizer = ModelTokenizer::from_tokenizer_json(model.join("tokenizer.json")).unwrap();
        let cases = json(&area.join("texts.json"));
        let longest = cases["max_seq_length"].as_u64().unwrap() as usize;
        let mut count = 0;
        for (texts, expected) in [("texts", "input_ids"), ("texts_after_add_full_stop", "input_ids_formatted")] {
            let (texts, expected) = (cases[texts].as_array().unwrap(), cases[expected].as_array().unwrap());
            for (text, expected) in texts.iter().zip(expected) {
                let found = tokenizer.encode_with_special(text.as_str().unwrap()).unwrap();
                // Lengths are the caller's business, so nothing is cut here.
                if found.len() <= longest {
                    assert_eq!(found, ids(expected), "{text}");
                    count += 1;
                } else {
                    let kept = longest - 1;
                    assert_eq!(found[..kept], ids(expected)[..kept], "{text}");
                }
            }
        }
        count
    });
}
