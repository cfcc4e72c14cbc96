//! Vocabularies in SentencePiece's style (GGUF calls them `llama`): pieces with scores, `▁` for a space,
//! and byte pieces `<0x00>` to `<0xFF>` for characters that have none.

use std::collections::HashMap;

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, Result,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence, strip::Strip},
    models::bpe::Merges,
    normalizers::{self, Prepend, Replace},
};

const SPACE: &str = "▁";

/// The merges that build each piece out of two others. A piece with a higher score is built earlier;
/// of two ways to build it, the one with the earlier left half comes first.
pub(super) fn merges(tokens: &[String], scores: &[f32]) -> Merges {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut ranked: Vec<(f32, (usize, usize), (&str, &str))> = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                ranked.push((score, (left_id, right_id), (left, right)));
            }
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().map(|(_, _, (left, right))| (left.to_owned(), right.to_owned())).collect()
}

/// Spaces become `▁`; with `prefix_space`, one is put before the text.
pub(super) fn normalizer(prefix_space: bool) -> Result<NormalizerWrapper> {
    let spaces = Replace::new(" ", SPACE)?.into();
    let steps = if prefix_space { vec![Prepend::new(SPACE.into()).into(), spaces] } else { vec![spaces] };
    Ok(normalizers::Sequence::new(steps).into())
}

/// The way back: `▁` to spaces, byte pieces to characters, the space that was put first taken off.
pub(super) fn decoder(prefix_space: bool) -> Result<DecoderWrapper> {
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix_space {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(sequence::Sequence::new(steps).into())
}
