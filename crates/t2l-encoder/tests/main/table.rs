//! Tables of embeddings: written once, read as written, and not believed when damaged.

use t2l_core::TextEncoder;
use t2l_encoder::{EmbeddingTable, EncoderError};

use crate::tiny::{Tiny, device, encode, values};

#[test]
fn a_description_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/table.safetensors");
    let encoder = Tiny::bert().load().unwrap().with_id("tiny");
    let texts = ["add the numbers", " add the numbers. ", "translate the text"];
    let mut computed = vec![];
    let table = EmbeddingTable::fill(&path, &encoder, &texts, |done, of| computed.push((done, of))).unwrap();
    // The first two are one description once formatted.
    assert_eq!((table.len(), table.width(), table.encoder()), (2, encoder.width(), "tiny"));
    assert_eq!(computed, [(2, 2)]);
    let found = values(table.embeddings(&texts, &device()).unwrap());
    for (f, e) in found.iter().zip(encode(&encoder, &texts)) {
        assert!((f - e).abs() < 1e-5);
    }
    assert_eq!(table.truncated("translate the text"), Some(false));

    let more = ["count", "translate the text"];
    let again = EmbeddingTable::fill(&path, &encoder, &more, |done, of| computed.push((done, of))).unwrap();
    assert_eq!(computed, [(2, 2), (1, 1)]);
    assert_eq!(again.len(), 3);
    assert_eq!(again.get("translate the text"), table.get("translate the text"));
    assert_eq!(EmbeddingTable::load(&path).unwrap(), again);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    EmbeddingTable::fill(&path, &encoder, &more, |_, _| panic!("nothing is missing")).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "left-over temporary files");

    let error = table.embeddings(&["count"], &device()).unwrap_err();
    assert!(matches!(&error, EncoderError::NotStored { description } if description == "count"), "{error}");
}

#[test]
fn another_encoder_or_a_bad_text_leaves_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.safetensors");
    let encoder = Tiny::bert().load().unwrap().with_id("tiny");
    EmbeddingTable::fill(&path, &encoder, &["add"], |_, _| ()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = EmbeddingTable::fill(&path, &encoder.clone().with_id("other"), &["count"], |_, _| ()).unwrap_err();
    assert!(
        matches!(error, EncoderError::OtherEncoder { .. }) && error.to_string().contains("table.safetensors"),
        "{error}"
    );
    let error = EmbeddingTable::fill(&path, &encoder, &["count", " "], |_, _| ()).unwrap_err();
    assert!(matches!(error, EncoderError::Encode(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn damaged_tables_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.safetensors");
    let encoder = Tiny::bert().load().unwrap();
    let table = EmbeddingTable::fill(&path, &encoder, &["add", "count"], |_, _| ()).unwrap();
    let good = std::fs::read(&path).unwrap();
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        EmbeddingTable::load(&path).unwrap_err();
    }
    // Any single damaged byte: an error, or a table of the same size.
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(read) = EmbeddingTable::load(&path) {
            assert_eq!((read.len(), read.width()), (table.len(), table.width()));
        }
    }
    let mut bytes = good.clone();
    let start = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = EmbeddingTable::load(&path).unwrap_err().to_string();
    assert!(error.contains("table.safetensors") && error.contains("embeddings"), "{error}");
}
