//! The words that a text quotes, in a tiny decoder's embeddings.

use burn::tensor::{Int, Tensor};
use t2l_backbone::{Decoder, TokenEmbeddings};
use t2l_core::{EncodeError, TextEncoder};
use t2l_encoder::{EmbeddingTable, Encoder, QuotedWords};

use crate::last_token::{WORDS, folder};
use crate::tiny::{Tiny, device, values};

/// Sum of some tokens' vectors, by the definition.
fn expected(embeddings: &TokenEmbeddings, tokens: &[u32]) -> Vec<f32> {
    let all: Vec<Vec<f32>> = embeddings.iter().map(Iterator::collect).collect();
    let width = embeddings.width();
    let mean: Vec<f32> = (0..width).map(|i| all.iter().map(|v| v[i]).sum::<f32>() / all.len() as f32).collect();
    let mut sum = vec![0.0f32; width];
    for &token in tokens {
        let centred: Vec<f32> = all[token as usize].iter().zip(&mean).map(|(x, m)| x - m).collect();
        let length = centred.iter().map(|x| x * x).sum::<f32>().sqrt();
        sum.iter_mut().zip(centred).for_each(|(s, x)| *s += x / length);
    }
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    sum.iter().map(|x| x / length * (width as f32).sqrt()).collect()
}

#[test]
fn quoted_tokens_stand_for_themselves() {
    let model = folder(WORDS);
    let embeddings = TokenEmbeddings::load(model.path()).unwrap();
    let words = QuotedWords::load(model.path(), &device()).unwrap();
    let encoded = |text: &str| values(words.encode(&[text]).unwrap().embeddings);
    for (text, tokens) in [("w9: say \"w3\"", &[3][..]), ("'w3 w4' or “w5”", &[3, 4, 5]), ("`w4` w9", &[4])] {
        for (found, expected) in encoded(text).iter().zip(expected(&embeddings, tokens)) {
            assert!((found - expected).abs() < 1e-4, "{text}: {found} {expected}");
        }
    }
    assert_eq!(encoded("say w3"), vec![0.0; words.width()]);
    assert!(QuotedWords::load(&model.path().join("none"), &device()).is_err());
    // A tokenizer of another model.
    let other = QuotedWords::load(folder(100).path(), &device()).unwrap();
    let error = other.encode(&["say w3", "say \"w99\""]).unwrap_err();
    assert!(matches!(error, EncodeError::Tokenize { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("token 99"), "{error}");
}

#[test]
fn token_embeddings_are_the_models_own() {
    let model = folder(WORDS);
    let (decoder, alone) =
        (Decoder::load(model.path(), &device()).unwrap(), TokenEmbeddings::load(model.path()).unwrap());
    let width = alone.width();
    let ids: Tensor<2, Int> = Tensor::from_data([[0, 3, 31]], &device());
    let expected = values(decoder.embed(ids).reshape([3, width]));
    for (token, expected) in [0, 3, 31].into_iter().zip(expected.chunks(width)) {
        for (found, expected) in alone.get(token).unwrap().zip(expected) {
            assert!((found - expected).abs() <= expected.abs() / 256.0, "{found} {expected}");
        }
    }
    assert_eq!(alone.iter().count(), decoder.config().vocab_size);
    assert!(alone.get(decoder.config().vocab_size as u32).is_none());
}

#[test]
fn an_encoder_and_a_table_put_them_beside_the_embedding() {
    let (model, bert) = (folder(WORDS), tempfile::tempdir().unwrap());
    Tiny::bert().write(bert.path());
    let plain = Encoder::load(bert.path(), &device()).unwrap();
    let words = QuotedWords::load(model.path(), &device()).unwrap();
    let texts = ["add \"w3\" and \"w4\"", "translate the text", "add \"w3\" and \"w5\""];
    let table = EmbeddingTable::fill(&bert.path().join("table.safetensors"), &plain, &texts, |_, _| ()).unwrap();
    let quoting = plain.clone().with_quoted_words(words.clone()).with_id("mine");
    let width = plain.width() + words.width();
    assert_eq!((quoting.id(), quoting.width()), ("mine", width));
    let rows = values(quoting.encode(&texts).unwrap().embeddings);
    let [alone, quoted] = [&plain as &dyn TextEncoder, &words].map(|e| values(e.encode(&texts).unwrap().embeddings));
    for (i, row) in rows.chunks(width).enumerate() {
        assert_eq!(row[..plain.width()], alone[i * plain.width()..][..plain.width()]);
        assert_eq!(row[plain.width()..], quoted[i * words.width()..][..words.width()]);
    }
    let mut quoted = EmbeddingTable::new(&words);
    quoted.add(&words, &texts, |_, _| ()).unwrap();
    let wider = table.beside(&quoted, &texts[..2]).unwrap();
    assert_eq!((wider.len(), wider.width()), (2, width));
    for (found, row) in values(wider.embeddings(&texts[..2], &device()).unwrap()).iter().zip(&rows) {
        assert!((found - row).abs() < 1e-5);
    }
    assert!(wider.get(texts[2]).is_none());
    assert!(table.beside(&quoted, &["count"]).is_err());
    assert_eq!(quoting.encode(&[]).unwrap().embeddings.dims(), [0, width]);
}
