//! What a pickle names and in which order, told without interpreting it.
//!
//! The values are `pytorch-reader`'s business. Two things it does not keep are read off the opcodes here: the order of
//! strings (the published code indexes module types by the order of a Python set, which survives in nothing else), and
//! every callable that is named, even where its result is thrown away.

/// Opcodes of protocol 2 and what follows them; anything else is not what `torch.save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    None,
    Bytes(usize),
    /// A string with its length before it, in as many bytes.
    Text(usize),
    /// An integer with its length before it, in one byte.
    Long,
    /// Two lines: a module and a name in it.
    Global,
    Stop,
}

fn operand(opcode: u8) -> Option<Operand> {
    Some(match opcode {
        b'.' => Operand::Stop,
        b'c' => Operand::Global,
        b'X' => Operand::Text(4),
        0x8a => Operand::Long,
        // PROTO, BININT1, BINPUT, BINGET.
        0x80 | b'K' | b'q' | b'h' => Operand::Bytes(1),
        // BININT2.
        b'M' => Operand::Bytes(2),
        // BININT, LONG_BINPUT, LONG_BINGET.
        b'J' | b'r' | b'j' => Operand::Bytes(4),
        // BINFLOAT.
        b'G' => Operand::Bytes(8),
        // MARK, NONE, TRUE, FALSE; empty containers; tuples; items; BINPERSID, REDUCE, BUILD.
        b'(' | b'N' | 0x88 | 0x89 | b')' | b'}' | b']' | b't' | 0x85..=0x87 | b's' | b'u' | b'a' | b'e' => {
            Operand::None
        }
        b'Q' | b'R' | b'b' => Operand::None,
        _ => return None,
    })
}

/// What a pickle holds that its values do not tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Every string, in order; each is written once and referred to by number afterwards.
    pub strings: Vec<String>,
}

/// Why a pickle is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanError {
    /// Not a pickle of protocol 2.
    Malformed(String),
    /// It names something that is no tensor, container or number.
    Refused(String),
}

/// Walks over a pickle's opcodes.
pub(super) fn scan(pickle: &[u8]) -> Result<Scan, ScanError> {
    let mut rest = Cursor { bytes: pickle, at: 0 };
    let mut scan = Scan::default();
    loop {
        let (at, opcode) = (rest.at, rest.take(1)?[0]);
        let Some(operand) = operand(opcode) else {
            let reason = format!(
                "has opcode {opcode:#04x} at byte {at} of its pickle, which torch.save (protocol 2) never writes"
            );
            return Err(ScanError::Malformed(reason));
        };
        match operand {
            Operand::None => {}
            Operand::Bytes(count) => {
                rest.take(count)?;
            }
            Operand::Text(width) => {
                let length = rest.length(width)?;
                let text = std::str::from_utf8(rest.take(length)?);
                let text =
                    text.map_err(|_| ScanError::Malformed(format!("its pickle's text at byte {at} is not UTF-8")))?;
                scan.strings.push(text.to_owned());
            }
            Operand::Long => {
                let length = rest.length(1)?;
                rest.take(length)?;
            }
            Operand::Global => {
                let (module, name) = (rest.line()?, rest.line()?);
                if !is_data(&module, &name) {
                    return Err(ScanError::Refused(format!("{module}.{name}")));
                }
            }
            Operand::Stop if rest.at == pickle.len() => return Ok(scan),
            Operand::Stop => return Err(ScanError::Malformed("has bytes after the end of its pickle".into())),
        }
    }
}

/// Whether a callable only makes tensors or containers.
fn is_data(module: &str, name: &str) -> bool {
    match module {
        "collections" => name == "OrderedDict",
        "torch._utils" => matches!(name, "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_parameter"),
        "torch" => name.strip_suffix("Storage").is_some_and(|kind| {
            let kinds = ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"];
            kinds.contains(&kind)
        }),
        _ => false,
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ScanError> {
        let end = self.at.checked_add(count);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(ScanError::Malformed(format!("ends within its pickle, at byte {}", self.bytes.len())));
        };
        self.at += count;
        Ok(taken)
    }

    /// A little-endian length in so many bytes.
    fn length(&mut self, width: usize) -> Result<usize, ScanError> {
        Ok(self.take(width)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)))
    }

    fn line(&mut self) -> Result<String, ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_in_order() {
        let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00bK\x01X\x01\x00\x00\x00aK\x02u.";
        assert_eq!(scan(pickle).expect("a pickle").strings, ["b", "a"]);
    }

    #[test]
    fn callables_are_refused_by_name() {
        for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch", "QInt8Storage")] {
            // Called and thrown away: POP is refused too, but the name comes first.
            let pickle = format!("\x02c{module}\n{name}\n)R0N.");
            let pickle = [b"\x80", pickle.as_bytes()].concat();
            assert_eq!(scan(&pickle), Err(ScanError::Refused(format!("{module}.{name}"))));
        }
    }

    #[test]
    fn other_opcodes_and_every_cut_are_refused() {
        // STACK_GLOBAL, INST, EXT1, FRAME, POP, DUP.
        for opcode in [0x93, b'i', 0x82, 0x95, b'0', b'2'] {
            assert!(matches!(scan(&[0x80, 2, opcode, b'.']), Err(ScanError::Malformed(_))), "{opcode:#x}");
        }
        let pickle = b"\x80\x02ccollections\nOrderedDict\n)RX\x02\x00\x00\x00ab\x8a\x01\x07s.";
        assert!(scan(pickle).is_ok());
        for end in 0..pickle.len() {
            assert!(matches!(scan(&pickle[..end]), Err(ScanError::Malformed(_))), "cut at {end}");
        }
        assert!(matches!(scan(b"X\xff\xff\xff\xffa."), Err(ScanError::Malformed(_))));
        assert!(matches!(scan(b"N.."), Err(ScanError::Malformed(_))));
    }
}
