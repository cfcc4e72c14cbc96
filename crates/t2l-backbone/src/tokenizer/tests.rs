//! Small vocabularies, made here: every byte is a token, so that any text has ids.

use proptest::prelude::*;
use t2l_gguf::{GgufProblem, testing::Bytes};

use super::{ModelTokenizer, TokenizerError, pre_types::PreType, sentencepiece};

/// What byte-level vocabularies write for each byte.
fn byte_tokens() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut beyond = 256..;
    (0..=255)
        .map(|byte: u8| match printable(byte) {
            true => char::from(byte).to_string(),
            false => char::from_u32(beyond.next().unwrap()).unwrap().to_string(),
        })
        .collect()
}

const MERGES: [&str; 5] = ["h e", "Ġ Ġ", "l l", "1 2", "he ll"];
const CONTROLS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Control tokens 0 to 2, all bytes, then what the merges make.
fn byte_level(pre: &str) -> Bytes {
    let mut tokens: Vec<String> = CONTROLS.map(str::to_owned).into();
    tokens.extend(byte_tokens());
    tokens.extend(MERGES.map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![1; tokens.len()];
    kinds[..3].fill(3);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Bytes::front(0, 8)
        .entry_str("tokenizer.ggml.model", "gpt2")
        .entry_str("tokenizer.ggml.pre", pre)
        .entry_strs("tokenizer.ggml.tokens", &tokens)
        .entry_strs("tokenizer.ggml.merges", &MERGES)
        .entry_i32s("tokenizer.ggml.token_type", &kinds)
        .entry_u32("tokenizer.ggml.bos_token_id", 1)
        .entry_u32("tokenizer.ggml.eos_token_id", 2)
        .entry_u32("tokenizer.ggml.padding_token_id", 0)
}

fn build(bytes: &Bytes) -> Result<ModelTokenizer, TokenizerError> {
    ModelTokenizer::from_gguf(&bytes.open().unwrap())
}

fn tokens(tokenizer: &ModelTokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().iter().map(|&id| tokenizer.token(id).unwrap()).collect()
}

#[test]
fn byte_level_vocabulary() {
    let tokenizer = build(&byte_level("smollm")).unwrap();
    assert_eq!(tokenizer.vocabulary(), 3 + 256 + MERGES.len());
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), Some(0)));
    assert_eq!(tokenizer.stops(), [2]);
    assert_eq!(tokens(&tokenizer, "hello"), ["hell", "o"]);
    assert_eq!(tokens(&tokenizer, "<|im_start|>he<|im_end|>"), ["<|im_start|>", "he", "<|im_end|>"]);
    assert_eq!(tokenizer.decode(&[1, 2], true).unwrap(), "");
    assert_eq!(tokenizer.decode(&[1, 2], false).unwrap(), "<|im_start|><|im_end|>");
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
}

#[test]
fn word_rules_differ_at_digits_and_spaces() {
    let cut = |pre: &str, text: &str| tokens(&build(&byte_level(pre)).unwrap(), text);
    // GPT-2 keeps one space for the word that follows; with digits cut out first, there is no such word.
    assert_eq!(cut("gpt-2", "  12"), ["Ġ", "Ġ", "12"]);
    assert_eq!(cut("smollm", "  12"), ["ĠĠ", "1", "2"]);
    assert_eq!(cut("llama-bpe", "  12"), ["Ġ", "Ġ", "12"]);
    assert_eq!(cut("qwen2", "12"), ["1", "2"]);
    // Normal form C joins a letter and its accent.
    assert_eq!(cut("qwen2", "e\u{301}"), cut("qwen2", "é"));
    assert_ne!(cut("smollm", "e\u{301}"), cut("smollm", "é"));
}

#[test]
fn every_named_rule_is_a_valid_expression() {
    for name in super::pre_types::NAMES.split(", ") {
        let rule = PreType::named(name).unwrap_or_else(|| panic!("{name} is advertised but unknown"));
        assert!(rule.pre_tokenizer().is_ok(), "{name}");
        let tokenizer = build(&byte_level(name)).unwrap();
        let text = "Hello  world's 12345\r\n\n  façade — 你好 ÀÉÎ camelCase\t!";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), false).unwrap(), text, "{name}");
    }
}

#[test]
fn unknown_tokenizers_are_named() {
    let error = build(&byte_level("martian")).unwrap_err();
    assert!(matches!(&error, TokenizerError::Unsupported { kind, .. } if kind.contains("martian")), "{error}");
    let error =
        build(&Bytes::front(0, 2).entry_str("tokenizer.ggml.model", "t5").entry_strs("tokenizer.ggml.tokens", &[]));
    assert!(matches!(error, Err(TokenizerError::Unsupported { .. })));
    let error = build(&Bytes::front(0, 0)).unwrap_err();
    assert!(matches!(error, TokenizerError::Gguf(error) if matches!(error.problem, GgufProblem::MissingKey(_))));
}

/// A vocabulary of two tokens with one thing wrong.
fn inconsistent(entries: u64, add: impl FnOnce(Bytes) -> Bytes) -> String {
    let front = Bytes::front(0, 2 + entries).entry_str("tokenizer.ggml.model", "gpt2");
    let error = build(&add(front.entry_str("tokenizer.ggml.pre", "gpt-2"))).unwrap_err();
    assert!(matches!(error, TokenizerError::Invalid { .. }), "{error}");
    error.to_string()
}

#[test]
fn inconsistent_vocabularies() {
    let vocabulary = |bytes: Bytes, tokens: &[&str], merges: &[&str]| {
        bytes.entry_strs("tokenizer.ggml.tokens", tokens).entry_strs("tokenizer.ggml.merges", merges)
    };
    let twice = inconsistent(2, |bytes| vocabulary(bytes, &["a", "a"], &[]));
    assert!(twice.contains("\"a\" is in the vocabulary twice"), "{twice}");
    let half = inconsistent(2, |bytes| vocabulary(bytes, &["a", "b"], &["ab"]));
    assert!(half.contains("no two halves"), "{half}");
    inconsistent(2, |bytes| vocabulary(bytes, &["a", "b"], &["a b"]));
    inconsistent(2, |bytes| vocabulary(bytes, &["a", "ac"], &["a c"]));
    let kinds = inconsistent(3, |bytes| {
        vocabulary(bytes, &["a", "b"], &[]).entry_i32s("tokenizer.ggml.token_type", &[1, 1, 1])
    });
    assert!(kinds.contains("3 token types for 2 tokens"), "{kinds}");
    let beyond =
        inconsistent(3, |bytes| vocabulary(bytes, &["a", "b"], &[]).entry_u32("tokenizer.ggml.eos_token_id", 2));
    assert!(beyond.contains("eos_token_id is 2"), "{beyond}");
}

fn sentencepiece(prefix_space: bool) -> ModelTokenizer {
    sentencepiece_of("llama", prefix_space)
}

fn sentencepiece_of(architecture: &str, prefix_space: bool) -> ModelTokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    tokens.extend((0..=255).map(|byte: u8| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "h", "e", "l", "o", "he", "ll", "▁he", "▁hell", "lo"].map(str::to_owned));
    let mut kinds = vec![6; tokens.len()];
    kinds[..3].copy_from_slice(&[2, 3, 3]);
    kinds[259..].fill(1);
    let mut scores = vec![0.0; 259];
    scores.extend((0..10).map(|rank| -(rank as f32)));
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    build(
        &Bytes::front(0, 9)
            .entry_str("general.architecture", architecture)
            .entry_str("tokenizer.ggml.model", "llama")
            .entry_bool("tokenizer.ggml.add_space_prefix", prefix_space)
            .entry_strs("tokenizer.ggml.tokens", &tokens)
            .entry_f32s("tokenizer.ggml.scores", &scores)
            .entry_i32s("tokenizer.ggml.token_type", &kinds)
            .entry_u32("tokenizer.ggml.bos_token_id", 1)
            .entry_u32("tokenizer.ggml.eos_token_id", 2)
            .entry_u32("tokenizer.ggml.unknown_token_id", 0),
    )
    .unwrap()
}

#[test]
fn sentencepiece_vocabulary() {
    let tokenizer = sentencepiece(true);
    assert_eq!(tokens(&tokenizer, "hello"), ["▁hell", "o"]);
    assert_eq!(tokens(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokens(&sentencepiece(false), "hello"), ["he", "ll", "o"]);
    let ids = tokenizer.encode_with_special("hello é").unwrap();
    assert_eq!(ids.first(), Some(&1), "SentencePiece models begin with BOS");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hello é");
}

#[test]
fn special_tokens_of_phi3_take_white_space_along() {
    let of = |architecture: &str, text: &str| tokens(&sentencepiece_of(architecture, true), text);
    assert_eq!(of("llama", "</s> \nhello"), ["</s>", "▁", "▁", "<0x0A>", "he", "ll", "o"]);
    assert_eq!(of("phi3", "</s> \nhello"), ["</s>", "▁hell", "o"]);
    assert_eq!(of("phi3", "<s> hello"), of("llama", "<s> hello"), "but not the first of a text");
}

#[test]
fn merges_follow_scores() {
    let tokens = ["a", "b", "ab", "ba", "aba"].map(str::to_owned);
    let merges = sentencepiece::merges(&tokens, &[0.0, 0.0, -2.0, -1.0, -3.0]);
    let expected = [("b", "a"), ("a", "b"), ("a", "ba"), ("ab", "a")];
    assert_eq!(merges, expected.map(|(left, right)| (left.to_owned(), right.to_owned())));
    // Scores that are no numbers have some order too.
    assert_eq!(sentencepiece::merges(&tokens, &[f32::NAN; 5]).len(), 4);
}

#[test]
fn streams_hold_back_unfinished_characters() {
    let tokenizer = build(&byte_level("smollm")).unwrap();
    let ids = tokenizer.encode("a😀b").unwrap();
    assert_eq!(ids.len(), 6);
    let mut stream = tokenizer.stream(true);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "", "", "😀", "b"]);
    assert_eq!(stream.finish().unwrap(), "");
    let pieces: Vec<String> = ids[..3].iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", ""]);
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn tokenizer_json_and_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let missing = ModelTokenizer::from_tokenizer_json(&path).unwrap_err();
    assert!(matches!(missing, TokenizerError::Io { .. }), "{missing}");

    let model = r#"{"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<end>": 3, "hi": 4}}"#;
    let cut = r#"{"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}"#;
    let json = format!(
        r#"{{"version": "1.0", "truncation": {cut}, "pre_tokenizer": {{"type": "Whitespace"}}, "model": {model}}}"#
    );
    std::fs::write(&path, json).unwrap();
    let alone = ModelTokenizer::from_tokenizer_json(&path).unwrap();
    assert_eq!(alone.encode("hi hi").unwrap(), [4, 4], "nothing is cut");
    assert_eq!((alone.bos(), alone.eos(), alone.stops()), (None, None, [].as_slice()));

    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer_config.json", r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#);
    write("special_tokens_map.json", r#"{"pad_token": "<unk>"}"#);
    write("generation_config.json", r#"{"eos_token_id": [2, 3, 99]}"#);
    let full = ModelTokenizer::from_tokenizer_json(&path).unwrap();
    assert_eq!((full.bos(), full.eos(), full.pad()), (Some(1), Some(2), Some(0)));
    assert_eq!(full.stops(), [2, 3]);

    write("tokenizer_config.json", "[");
    let broken = ModelTokenizer::from_tokenizer_json(&path).unwrap_err();
    assert!(matches!(broken, TokenizerError::Invalid { path, .. } if path.ends_with("tokenizer_config.json")));
}

#[test]
fn broken_tokenizer_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let prefix_that_cuts_a_character =
        r#"{"model": {"type": "BPE", "continuing_subword_prefix": "@", "vocab": {"a": 0, "é": 1}, "merges": ["a é"]}}"#;
    for text in ["", "{}", "[1]", r#"{"model": {"type": "BPE", "vocab": 3}}"#, prefix_that_cuts_a_character] {
        std::fs::write(&path, text).unwrap();
        let error = ModelTokenizer::from_tokenizer_json(&path).unwrap_err();
        assert!(matches!(error, TokenizerError::Invalid { .. }), "{text}: {error}");
    }
}

/// What parses and makes the library panic when it is used.
#[test]
fn tokenizer_json_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let with = |part: &str| {
        let model = r#"{"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "": 1, "hi": 2}}"#;
        std::fs::write(&path, format!(r#"{{"version": "1.0", "model": {model}, {part}}}"#)).unwrap();
        ModelTokenizer::from_tokenizer_json(&path).unwrap()
    };
    let empty_map = with(r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}"#);
    let error = empty_map.encode("hi").unwrap_err();
    assert!(matches!(&error, TokenizerError::Encode(reason) if reason.contains("cannot be used")), "{error}");
    let sequence = r#"[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]"#;
    let undefined = with(&format!(
        r#""post_processor": {{"type": "TemplateProcessing", "single": {sequence}, "pair": {sequence}, "special_tokens": {{}}}}"#
    ));
    assert_eq!(undefined.encode("hi").unwrap(), [2]);
    let error = undefined.encode_with_special("hi").unwrap_err();
    assert!(matches!(&error, TokenizerError::Encode(reason) if reason.contains("cannot be used")), "{error}");
    let stripping = with(r#""decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 1}"#);
    assert_eq!(stripping.decode(&[2], false).unwrap(), "hi");
    let error = stripping.decode(&[1], false).unwrap_err();
    assert!(matches!(&error, TokenizerError::Decode(reason) if reason.contains("cannot be used")), "{error}");
}

proptest! {
    #[test]
    fn any_text_survives(text: String, pre in prop::sample::select(vec!["gpt-2", "smollm", "llama-bpe", "tekken"])) {
        let tokenizer = build(&byte_level(pre)).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap(), false).unwrap(), text);
    }

    #[test]
    fn any_text_survives_sentencepiece(text: String, prefix_space: bool) {
        // The mark for a space cannot be told from a space, in any vocabulary of this kind.
        let text = text.replace('▁', "_");
        let tokenizer = sentencepiece(prefix_space);
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap(), false).unwrap(), text);
    }

    /// Whatever ids come, the pieces of a stream are the text.
    #[test]
    fn streams_give_the_whole_text(ids in prop::collection::vec(0u32..264, 0..40), skip_special: bool) {
        let tokenizer = build(&byte_level("smollm")).unwrap();
        let mut stream = tokenizer.stream(skip_special);
        let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.finish().unwrap();
        prop_assert_eq!(text, tokenizer.decode(&ids, skip_special).unwrap());
    }
}
