//! How much longer a tokenizer may make a text: every `Replace` step of a tokenizer.json may put more in place of what it
//! finds, and a sequence of them multiplies that.

use serde_json::Value;

/// Factor up to which the steps together may lengthen a text; those of real models reach about ten.
const LONGEST: usize = 1 << 10;
/// Levels to which steps may be nested in one another.
const DEEPEST: usize = 8;

/// Refuses a tokenizer.json whose normaliser or decoder lengthens texts without reason.
///
/// # Errors
/// Says which of the two, and the limit.
pub fn check_growth(file: &Value) -> Result<(), String> {
    for part in ["normalizer", "decoder"] {
        let factor = file.get(part).map_or(Some(1), |step| growth(step, DEEPEST));
        if factor.is_none_or(|factor| factor > LONGEST) {
            return Err(format!("its {part} makes texts more than {LONGEST} times as long, or is nested too deeply"));
        }
    }
    Ok(())
}

/// How many times as long a step makes a text at most; `None` beyond all bounds.
fn growth(step: &Value, depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let own = match step.get("type").and_then(Value::as_str) {
        // A pattern that matches nothing at all matches between any two letters.
        Some("Replace") => 1 + step.get("content").and_then(Value::as_str).map_or(0, str::len),
        _ => 1,
    };
    let inner = ["normalizers", "decoders"].iter().filter_map(|key| step.get(key)?.as_array()).flatten();
    inner.map(|step| growth(step, depth)).try_fold(own, |product, factor| product.checked_mul(factor?))
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
}
