//! Keeps the digits of JSON numbers while programs work with 64-bit numbers. In: the JSON text of a record.
//! Out: the text to parse, and for each float that was read the digits to write. Nothing is remembered of
//! numbers that are written as they were read, which are nearly all.
//!
//! A number that neither 64-bit integers nor 64-bit floats can hold is *long*. Programs see the next larger
//! float that no other number of the record has. This float stands for the digits, so a program may move it
//! anywhere. A program that computes with it would lose digits; `flows` finds that.

use std::{borrow::Cow, collections::HashMap};

use ::vrl::value::Value;

/// The numbers of one record that have to be written differently from how a float is written.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_bits: HashMap<u64, Digits>,
    has_long: bool,
}

#[derive(Debug)]
enum Digits {
    /// A float, written as `1.50` or `1e3` in the record; `None` if it is written in two ways.
    Same(Option<Box<str>>),
    /// A long number.
    Long(Box<str>),
}

impl Numbers {
    /// Reads the numbers of a record: its JSON documents, valid or not.
    pub fn read(&mut self, documents: &[&[u8]]) {
        self.by_bits.clear();
        self.has_long = false;
        let all = || documents.iter().flat_map(|document| Tokens::new(document));
        if !all().any(|(_, token)| !is_canonical(token)) {
            return;
        }
        let mut long = Vec::new();
        for (_, token) in all() {
            match Number::of(token) {
                Number::Integer => {}
                Number::Float(float) => {
                    let digits = (self.by_bits.entry(float.to_bits()))
                        .or_insert_with(|| Digits::Same(Some(token.into())));
                    if let Digits::Same(text) = digits
                        && text.as_deref().is_some_and(|text| text != token)
                    {
                        *text = None;
                    }
                }
                Number::Long(float) => long.push((float, token)),
            }
        }
        // After all others, so that no exact number has the bits of a long one.
        for (float, token) in long {
            let mut candidate = float.next_up();
            while let Some(taken) = self.by_bits.get(&candidate.to_bits()) {
                if matches!(taken, Digits::Long(text) if **text == *token) {
                    break;
                }
                candidate = candidate.next_up();
            }
            self.by_bits
                .insert(candidate.to_bits(), Digits::Long(token.into()));
            self.has_long = true;
        }
    }

    /// `document` as it has to be parsed. It must be one of those that were read.
    pub fn parsable<'d>(&self, document: &'d [u8]) -> Cow<'d, [u8]> {
        if !self.has_long {
            return Cow::Borrowed(document);
        }
        let mut replaced = Vec::with_capacity(document.len() + 16);
        let mut copied = 0;
        for (at, token) in Tokens::new(document) {
            let Number::Long(float) = Number::of(token) else {
                continue;
            };
            replaced.extend_from_slice(&document[copied..at]);
            copied = at + token.len();
            let mut candidate = float.next_up();
            while !matches!(self.by_bits.get(&candidate.to_bits()), Some(Digits::Long(text)) if **text == *token)
            {
                candidate = candidate.next_up();
            }
            replaced.extend_from_slice(written(candidate).as_bytes());
        }
        replaced.extend_from_slice(&document[copied..]);
        Cow::Owned(replaced)
    }

    /// The digits of `float` as they were read; `None` if it is written like any float.
    pub fn digits(&self, float: f64) -> Option<&str> {
        match self.by_bits.get(&float.to_bits())? {
            Digits::Same(text) => text.as_deref(),
            Digits::Long(text) => Some(text),
        }
    }

    /// True if `value` is or contains a long number.
    pub fn has_long(&self, value: &Value) -> bool {
        self.has_long
            && match value {
                Value::Float(float) => {
                    matches!(self.by_bits.get(&float.to_bits()), Some(Digits::Long(_)))
                }
                Value::Array(elements) => elements.iter().any(|element| self.has_long(element)),
                Value::Object(object) => object.values().any(|member| self.has_long(member)),
                _ => false,
            }
    }
}

/// True if this JSON text has a number that 64 bits cannot hold.
pub(super) fn any_long(document: &[u8]) -> bool {
    Tokens::new(document)
        .any(|(_, token)| !is_canonical(token) && matches!(Number::of(token), Number::Long(_)))
}

enum Number {
    /// Exact in 64 bits signed.
    Integer,
    /// The shortest text of this float has the same value, or its text with up to 17 digits.
    Float(f64),
    /// Neither; this is the nearest float.
    Long(f64),
}

impl Number {
    fn of(token: &str) -> Self {
        if is_integer(token) && token != "-0" && token.parse::<i64>().is_ok() {
            return Self::Integer;
        }
        match token.parse::<f64>() {
            Ok(float) if same_value(token, &written(float)) || is_rounded(token, float) => Self::Float(float),
            Ok(float) if float.is_finite() && float < f64::MAX => Self::Long(float),
            // The JSON parser refuses it and says where.
            _ => Self::Integer,
        }
    }
}

/// How serde_json writes a float.
fn written(float: f64) -> String {
    serde_json::Number::from_f64(float).map_or_else(String::new, |number| number.to_string())
}

/// True if the number is `float` rounded to at most 17 digits: `%.17g` writes 0.1 as 0.10000000000000001, and
/// whoever reads that as a 64-bit float has all of it.
fn is_rounded(token: &str, float: f64) -> bool {
    let digits = decimal(token).1.len();
    (1..=17).contains(&digits) && same_value(token, &format!("{float:.*e}", digits - 1))
}

fn is_integer(token: &str) -> bool {
    !token.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// True if the number is written as it was read. The first lines find it out without parsing.
fn is_canonical(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    let plain = !digits.starts_with('0') && !digits.contains(['e', 'E']);
    if is_integer(token) {
        return (plain && digits.len() <= 18) || token == "0" || matches!(Number::of(token), Number::Integer);
    }
    if plain && digits.len() <= 16 && !digits.ends_with('0') {
        return true;
    }
    token.parse::<f64>().is_ok_and(|float| written(float) == token)
}

/// True if two JSON numbers have the same decimal value.
fn same_value(left: &str, right: &str) -> bool {
    decimal(left) == decimal(right)
}

/// Sign, digits without zeros at the ends, and the power of ten of the last digit.
fn decimal(number: &str) -> (bool, String, i64) {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let stripped = digits.trim_end_matches('0');
    let significant = stripped.trim_start_matches('0');
    if significant.is_empty() {
        return (negative, String::new(), 0);
    }
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MIN / 2);
    let power = exponent - fraction.len() as i64 + (digits.len() - stripped.len()) as i64;
    (negative, significant.to_owned(), power)
}

/// The number tokens of a JSON text with their positions. Strings are skipped.
struct Tokens<'d> {
    document: &'d [u8],
    at: usize,
}

impl<'d> Tokens<'d> {
    fn new(document: &'d [u8]) -> Self {
        Self { document, at: 0 }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.document.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
    }
}

impl<'d> Iterator for Tokens<'d> {
    type Item = (usize, &'d str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.document.get(self.at)? {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let rest = &self.document[self.at..];
                    let len = (rest.iter())
                        .position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                        .unwrap_or(rest.len());
                    let at = self.at;
                    self.at += len;
                    return std::str::from_utf8(&rest[..len]).ok().map(|token| (at, token));
                }
                _ => self.at += 1,
            }
        }
    }
}
