//! How much longer a tokenizer may make a text: every `Replace` step of a tokenizer.json may put more in place of what it
//! finds, others write bytes as characters, a template may repeat the text, and a sequence of them multiplies that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Levels to which steps may be nested in one another.
const DEEPEST: usize = 8;

/// Parts of a tokenizer.json: the factor up to which their steps together may lengthen a text (those of real models reach
/// about a hundred, most of it by a precompiled map of characters), and the steps that do not do so each time they come.
const PARTS: [(&str, usize, &[&str]); 4] = [
    ("normalizer", 1 << 10, &["NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase"]),
    (
        "pre_tokenizer",
        1 << 4,
        &[
            "BertPreTokenizer",
            "Delimiter",
            "Digits",
            "FixedLength",
            "Punctuation",
            "Split",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ],
    ),
    ("post_processor", 1 << 6, &[]),
    ("decoder", 1 << 10, &[]),
];

/// Refuses a tokenizer.json that lengthens texts without reason.
///
/// # Errors
/// Says which part of it, and the limit.
pub(super) fn check_growth(file: &Value) -> Result<(), String> {
    for (part, longest, once) in PARTS {
        let factor = file.get(part).map_or(Ok(1), |step| growth(step, once, DEEPEST));
        let factor = factor.map_err(|CutOff| format!("its {part} has a map of characters that is cut off"))?;
        if factor > longest {
            return Err(format!("its {part} makes texts more than {longest} times as long, or is nested too deeply"));
        }
    }
    Ok(())
}

/// A precompiled map of characters that ends too early.
struct CutOff;

/// How many times as long a step makes a text at most; without bound where steps are nested more than `depth` deep. What it
/// is called proves little: a step without a name, or with an unknown one, is what its keys say.
fn growth(step: &Value, once: &[&str], depth: usize) -> Result<usize, CutOff> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(usize::MAX) };
    let text = |key: &str| step.get(key).and_then(Value::as_str);
    // A pattern that matches nothing at all matches between any two letters.
    let inserted = text("content").map_or(0, str::len).max(text("prepend").map_or(0, str::len));
    let mapped = match text("precompiled_charsmap") {
        Some(map) => longest_text(map).ok_or(CutOff)?,
        None => 0,
    };
    let own = (1 + inserted.max(mapped)).max(template(step));
    let inner = ["normalizers", "pretokenizers", "processors", "decoders"];
    let inner = inner.iter().filter_map(|key| step.get(key)?.as_array()).flatten();
    let factor = inner
        .map(|step| growth(step, once, depth))
        .try_fold(own, |product, factor| Ok(product.saturating_mul(factor?)))?;
    let bounded = text("type").is_some_and(|name| once.contains(&name));
    // Bytes written as characters are twice as many each time, and so are letters with something between them.
    Ok(if bounded { factor } else { factor.max(2) })
}

/// Tokens that a template makes of one, at most.
fn template(step: &Value) -> usize {
    let pieces = step.get("single").and_then(Value::as_array).map_or(0, Vec::len);
    let special = step.get("special_tokens").and_then(Value::as_object);
    let ids = special.into_iter().flat_map(|tokens| tokens.values()).filter_map(|token| token.get("ids")?.as_array());
    pieces.saturating_mul(ids.map(Vec::len).max().unwrap_or(1).max(1))
}

/// Length of the longest text that a precompiled map puts in place of a character. Such texts end with a zero byte and
/// stand behind a table, whose length comes first; `None` where the table goes on beyond the map's end.
fn longest_text(map: &str) -> Option<usize> {
    let bytes = STANDARD.decode(map).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let texts = rest.get(u32::from_le_bytes(*length) as usize..)?;
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ordinary_steps_are_let_through_and_chains_are_not() {
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": " "}, "content": content});
        let chain = |steps: Vec<Value>| json!({"normalizer": {"type": "Sequence", "normalizers": steps}});
        assert!(check_growth(&json!({"normalizer": null, "decoder": {"type": "ByteLevel"}})).is_ok());
        assert!(check_growth(&chain(vec![json!({"type": "Prepend", "prepend": "▁"}), replace("▁")])).is_ok());
        assert!(check_growth(&chain(vec![replace("aa"); 6])).is_ok());
        assert!(check_growth(&chain(vec![replace("aa"); 7])).is_err());
        assert!(check_growth(&chain(vec![replace("aa"); 1000])).is_err());
        assert!(check_growth(&json!({"normalizer": replace(&"a".repeat(2000))})).is_err());
        assert!(check_growth(&json!({"decoder": {"type": "Sequence", "decoders": vec![replace("aa"); 8]}})).is_err());
    }

    #[test]
    fn steps_are_what_they_do_whatever_they_are_called() {
        let normalizers = |step: Value, times: usize| {
            check_growth(&json!({"normalizer": {"type": "Sequence", "normalizers": vec![step; times]}}))
        };
        let mut replace = json!({"pattern": {"String": " "}, "content": "aa"});
        assert!(normalizers(replace.clone(), 6).is_ok());
        assert!(normalizers(replace.clone(), 7).is_err());
        replace["type"] = json!({"Replace": null});
        assert!(normalizers(replace, 7).is_err());
        assert!(normalizers(json!({"type": "Prepend", "prepend": "aaaa"}), 5).is_err());
        assert!(normalizers(json!({"type": "ByteLevel"}), 10).is_ok());
        assert!(normalizers(json!({"type": "ByteLevel"}), 11).is_err());
        assert!(normalizers(json!({"type": "NFC"}), 100).is_ok());
        let decoders =
            |step: Value| check_growth(&json!({"decoder": {"type": "Sequence", "decoders": vec![step; 11]}}));
        assert!(decoders(json!({"type": "BPEDecoder", "suffix": ""})).is_err());
        assert!(decoders(json!({"type": "NFC", "suffix": ""})).is_err());
        let cut = vec![json!({"type": "Digits", "individual_digits": true}); 100];
        let bytes = |times| vec![json!({"type": "ByteLevel"}); times];
        let pre =
            |steps: Vec<Value>| check_growth(&json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}));
        assert!(pre([cut, bytes(1)].concat()).is_ok());
        assert!(pre(bytes(5)).is_err());
        let prefixed = json!({"type": "Metaspace", "replacement": "x", "prepend_scheme": "always", "split": true});
        assert!(pre(vec![prefixed.clone(); 3]).is_ok());
        assert!(pre(vec![prefixed; 5]).is_err());
    }

    #[test]
    fn maps_and_templates_are_looked_into() {
        let map =
            |map: &str| check_growth(&json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": map}}));
        // No table, then letters without an end.
        assert!(map(&format!("AAAAAGFh{}", "YWFh".repeat(10))).is_ok());
        assert!(map(&format!("AAAAAGFh{}", "YWFh".repeat(400))).is_err());
        for cut_off in ["/////w==", "AQAAAA==", "AAA=", ""] {
            assert!(map(cut_off).is_err(), "{cut_off}");
        }
        let template = |pieces: usize, ids: usize| {
            let special = json!({"<s>": {"id": "<s>", "ids": vec![0; ids], "tokens": vec!["<s>"; ids]}});
            let single = vec![json!({"Sequence": {"id": "A", "type_id": 0}}); pieces];
            check_growth(&json!({"post_processor": {
                "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special,
            }}))
        };
        assert!(template(3, 1).is_ok());
        assert!(template(65, 1).is_err());
        assert!(template(3, 100).is_err());
    }
}
