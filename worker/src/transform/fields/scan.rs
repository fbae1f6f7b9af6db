//! Scans JSON without storing anything, to find where each value ends. It accepts what serde_json accepts
//! when it skips a document, which is what the decoder Json accepts, at any depth without recursion. The
//! bytes must be UTF-8. It checks eight bytes of a string in one step.

/// A position in a document. Each method returns `None` if the document is not JSON.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'d> {
    bytes: &'d [u8],
    at: usize,
}

impl<'d> Scanner<'d> {
    pub fn new(bytes: &'d [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips one byte, which must be this one.
    #[inline]
    pub fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips the space after the document; nothing else may follow.
    pub fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.bytes.len()).then_some(())
    }

    /// Skips a string from its opening quote; true if it has escapes.
    #[inline]
    pub fn string(&mut self) -> Option<bool> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.plain();
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                // A control character.
                _ => return None,
            }
        }
    }

    /// Skips the characters of a string up to a quote, a backslash or a control character.
    #[inline]
    fn plain(&mut self) {
        while let Some(eight) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let marks = special(u64::from_le_bytes(*eight));
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while let Some(b' '..=b'!' | b'#'..=b'[' | b']'..) = self.peek() {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Option<()> {
        let letter = *self.bytes.get(self.at + 1)?;
        self.at += 2;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    /// Skips a number.
    #[inline]
    pub fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        (self.bytes.get(self.at..end)? == word).then(|| self.at = end)
    }

    /// Skips the name of a member with its colon, up to its value.
    #[inline]
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// Skips a value of any kind from its first byte. `open` holds the brackets around; it is empty before
    /// and after.
    #[inline]
    pub fn value(&mut self, open: &mut Vec<u8>) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'{' | b'[' => self.nested(open),
            _ => None,
        }
    }

    fn nested(&mut self, open: &mut Vec<u8>) -> Option<()> {
        open.clear();
        loop {
            // At the first byte of a value.
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    // In ASCII both closing brackets come two after the opening ones.
                    if self.peek()? != bracket + 2 {
                        open.push(bracket);
                        if bracket == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => drop(self.string()?),
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            // After a value.
            loop {
                let Some(&bracket) = open.last() else {
                    return Some(());
                };
                self.space();
                let byte = self.peek()?;
                self.at += 1;
                if byte == b',' {
                    self.space();
                    if bracket == b'{' {
                        self.name()?;
                    }
                    break;
                }
                if byte != bracket + 2 {
                    return None;
                }
                open.pop();
            }
        }
    }
}

/// The high bit of each byte that is a quote, a backslash or a control character. Bits above the lowest such
/// bit may be wrong, because a borrow propagates upwards.
#[inline]
fn special(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (zero(eight ^ (ONES * b'"' as u64)) | zero(eight ^ (ONES * b'\\' as u64)) | control) & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode;

    fn accepted(document: &[u8]) -> bool {
        let mut scanner = Scanner::new(document);
        scanner.space();
        std::str::from_utf8(document).is_ok()
            && scanner
                .value(&mut Vec::new())
                .and_then(|()| scanner.end())
                .is_some()
    }

    /// The decoder Json.
    fn decodes(document: &[u8]) -> bool {
        decode::check(crds::spec::DecoderType::Json, Some(document)).is_ok()
    }

    #[test]
    fn each_byte_is_plain_or_special_at_each_position() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                let mut eight = [b'~'; 8];
                eight[place] = byte;
                let marks = special(u64::from_le_bytes(eight));
                let expected = matches!(byte, 0..0x20 | b'"' | b'\\').then_some(place);
                assert_eq!(
                    (marks != 0).then(|| marks.trailing_zeros() as usize / 8),
                    expected,
                    "{byte} at {place}"
                );
            }
        }
    }

    #[test]
    fn the_grammar_of_json_is_neither_wider_nor_narrower_than_that_of_the_decoder() {
        for good in [
            "0",
            "-0",
            "1.5e-7",
            "1E+400",
            "[]",
            "{}",
            " [ 1 , [ { } ] ] ",
            r#"{"":[],"a":{"b":null}}"#,
            r#""\ud800""#,
            "\"\u{7f}\u{20ac}\"",
        ] {
            assert!(accepted(good.as_bytes()) && decodes(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e+",
            "nul",
            "nulll",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":}",
            "[}",
            "{]",
            "[1",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"a\nb\"",
            "\u{feff}1",
            "1 1",
            "]",
            "NaN",
            "Infinity",
            "\u{a0}1",
        ] {
            assert!(!accepted(bad.as_bytes()) && !decodes(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_million_brackets_do_not_exhaust_the_stack() {
        let deep = "[".repeat(1_000_000);
        assert!(!accepted(deep.as_bytes()));
        assert!(accepted(format!("{deep}{}", "]".repeat(1_000_000)).as_bytes()));
        assert!(!accepted(format!("{deep}{}", "}".repeat(1_000_000)).as_bytes()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_the_decoder_accepts_is_accepted_and_nothing_else(
            bytes in proptest::collection::vec(proptest::sample::select(b"[]{}:,\"\"\\a1-.e0u \n\x01\xc3\xa9tn".to_vec()), 0..24)
        ) {
            prop_assert_eq!(accepted(&bytes), decodes(&bytes));
        }

        #[test]
        fn a_valid_document_with_a_few_bytes_changed_is_accepted_exactly_when_the_decoder_accepts_it(
            edits in proptest::collection::vec((0..120_usize, any::<u8>(), 0..3_u8), 0..4)
        ) {
            let mut bytes = br#"{"id": 17, "status":"pa\u0069d\n", "amount" : "12.50e+3","items":[{"sku":"A\"1","ok":true},[], null,-0.5]} "#.to_vec();
            for (at, byte, how) in edits {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            prop_assert_eq!(accepted(&bytes), decodes(&bytes));
        }
    }
}
