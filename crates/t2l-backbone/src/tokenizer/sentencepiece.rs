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
/// Bytes of a piece that is still taken apart; real ones are far shorter, and the work grows with the square.
const LONGEST_PIECE: usize = 1024;

/// A way to build a piece out of two others.
struct Merge<'a> {
    score: f32,
    ids: (usize, usize),
    halves: (&'a str, &'a str),
}

/// The merges that build each piece out of two others. A piece with a higher score is built earlier;
/// of two ways to build it, the one with the earlier left half comes first.
pub(super) fn merges(tokens: &[String], scores: &[f32]) -> Merges {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut ranked = Vec::new();
    for (token, &score) in tokens.iter().zip(scores).filter(|(token, _)| token.len() <= LONGEST_PIECE) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                ranked.push(Merge { score, ids: (left_id, right_id), halves: (left, right) });
            }
        }
    }
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ids.cmp(&b.ids)));
    ranked.into_iter().map(|Merge { halves: (left, right), .. }| (left.to_owned(), right.to_owned())).collect()
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
