//! Reads the members of a document's object, each name once. Of repeated names, the last value counts, at the
//! place of the first, as in most parsers. Dropped members are not stored. Refuses documents that are not
//! JSON or not an object.

use super::{plan::Plan, scan::Scanner};

/// Up to this many fields that the plan does not name, each is compared with those before it. More are
/// sorted.
const FEW: usize = 32;

/// Not in the list.
const ABSENT: u32 = u32::MAX;

/// A range of bytes. Kafka's records are smaller than 2 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub start: u32,
    pub end: u32,
}

impl Range {
    fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// A field of the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Its name as it is written, with its quotes.
    pub key: Range,
    /// Its name without quotes; in [`Members::unescaped`] when it has escapes.
    name: Range,
    escaped: bool,
    /// Its value, or that of its last repetition.
    pub value: Range,
    /// Its entry in the plan.
    pub entry: Option<u32>,
}

/// Why there are no members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoMembers {
    NotJson,
    /// JSON of another kind, whose name follows with its article.
    NotObject(&'static str),
}

/// The members of one document; reused for the next document.
#[derive(Debug, Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// Per entry of the plan: where its field is in the list.
    places: Vec<u32>,
    /// Of the fields that the plan does not name: a summary of the name, and where it is in the list.
    others: Vec<(u64, u32)>,
    unescaped: Vec<u8>,
    open: Vec<u8>,
}

impl Members {
    pub fn list(&self) -> &[Member] {
        &self.list
    }

    /// Whether the document has the field of this entry.
    pub fn has(&self, entry: usize) -> bool {
        self.places[entry] != ABSENT
    }

    /// Reads a document, which must be UTF-8.
    pub fn read(&mut self, document: &[u8], plan: &Plan) -> Result<(), NoMembers> {
        self.list.clear();
        self.others.clear();
        self.unescaped.clear();
        self.places.clear();
        self.places.resize(plan.entries(), ABSENT);
        let mut scanner = Scanner::new(document);
        scanner.space();
        let first = scanner.peek().ok_or(NoMembers::NotJson)?;
        if first == b'{' {
            self.object(document, plan, &mut scanner)
                .ok_or(NoMembers::NotJson)?;
        } else {
            scanner.value(&mut self.open).ok_or(NoMembers::NotJson)?;
        }
        scanner.end().ok_or(NoMembers::NotJson)?;
        if let Some(kind) = other_kind(first) {
            return Err(NoMembers::NotObject(kind));
        }
        if self.others.len() > FEW {
            self.collapse_many(document);
        }
        Ok(())
    }

    fn object(&mut self, document: &[u8], plan: &Plan, scanner: &mut Scanner<'_>) -> Option<()> {
        scanner.expect(b'{')?;
        scanner.space();
        if scanner.peek()? == b'}' {
            return scanner.expect(b'}');
        }
        loop {
            let start = scanner.at();
            let escaped = scanner.string()?;
            let key = Range::new(start, scanner.at());
            let mut name = Range::new(start + 1, scanner.at() - 1);
            scanner.space();
            scanner.expect(b':')?;
            scanner.space();
            let value = scanner.at();
            scanner.value(&mut self.open)?;
            if escaped {
                let from = self.unescaped.len();
                unescape(name.of(document), &mut self.unescaped);
                name = Range::new(from, self.unescaped.len());
            }
            let member = Member {
                key,
                name,
                escaped,
                value: Range::new(value, scanner.at()),
                entry: None,
            };
            self.add(document, plan, member);
            scanner.space();
            if scanner.peek()? != b',' {
                return scanner.expect(b'}');
            }
            scanner.expect(b',')?;
            scanner.space();
        }
    }

    #[inline]
    fn add(&mut self, document: &[u8], plan: &Plan, mut member: Member) {
        let place = self.list.len() as u32;
        let name = if member.escaped {
            member.name.of(&self.unescaped)
        } else {
            member.name.of(document)
        };
        if let Some(entry) = plan.find(name) {
            if plan.entry(entry).dropped {
                return;
            }
            match self.places[entry] {
                ABSENT => self.places[entry] = place,
                first => {
                    self.list[first as usize].value = member.value;
                    return;
                }
            }
            member.entry = Some(entry as u32);
        } else if plan.keeps_others {
            let summary = summary(name);
            if self.others.len() < FEW {
                let first = self.others.iter().find(|(other, at)| {
                    *other == summary && name_of(&self.list[*at as usize], document, &self.unescaped) == name
                });
                if let Some(&(_, first)) = first {
                    self.list[first as usize].value = member.value;
                    return;
                }
            }
            self.others.push((summary, place));
        } else {
            return;
        }
        self.list.push(member);
    }

    /// Finds repeated names by sorting, so that the time for an object with very many fields stays
    /// reasonable.
    fn collapse_many(&mut self, document: &[u8]) {
        let (list, unescaped) = (&self.list, &self.unescaped);
        let name = |at: u32| name_of(&list[at as usize], document, unescaped);
        self.others.sort_unstable_by(|left, right| {
            let by_name = || name(left.1).cmp(name(right.1));
            (left.0.cmp(&right.0))
                .then_with(by_name)
                .then(left.1.cmp(&right.1))
        });
        let (mut last_values, mut repeated) = (Vec::new(), Vec::new());
        for same in (self.others).chunk_by(|left, right| left.0 == right.0 && name(left.1) == name(right.1)) {
            if let [(_, first), more @ .., (_, last)] = same {
                last_values.push((*first, list[*last as usize].value));
                repeated.extend(more.iter().map(|(_, at)| *at));
                repeated.push(*last);
            }
        }
        for (first, value) in last_values {
            self.list[first as usize].value = value;
        }
        repeated.sort_unstable();
        // From here on the places of entries are wrong, but callers only ask whether there is one.
        let mut at = 0..;
        self.list
            .retain(|_| at.next().is_none_or(|at| repeated.binary_search(&at).is_err()));
    }
}

fn name_of<'a>(member: &Member, document: &'a [u8], unescaped: &'a [u8]) -> &'a [u8] {
    member.name.of(if member.escaped { unescaped } else { document })
}

/// The kind of a value that starts with this byte and is not an object.
fn other_kind(first: u8) -> Option<&'static str> {
    match first {
        b'{' => None,
        kind => Some(kind_of(kind)),
    }
}

/// The kind of a JSON value by its first byte, with its article.
pub(super) fn kind_of(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// Two different names rarely have the same; in order of nothing.
#[inline]
fn summary(name: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let length = name.len() as u64;
    let ends = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => match (name.first_chunk(), name.last_chunk()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
            }
            _ => name.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
        },
    };
    ends ^ length.wrapping_mul(MIX)
}

/// Writes what the inside of a JSON string stands for. Half of a surrogate pair, which no name of a plan has,
/// becomes the three bytes that UTF-8 would have for it.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&letter, behind)) = rest.split_first() else {
            return;
        };
        rest = behind;
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut unit = take_hex(&mut rest);
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(mut low) = rest.strip_prefix(b"\\u")
                    && let second @ 0xdc00..0xe000 = take_hex(&mut low)
                {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
                    rest = low;
                }
                push_code_point(unit, out);
            }
            other => out.push(other),
        }
    }
}

/// Four hexadecimal digits; the scanner has seen that they are there.
fn take_hex(rest: &mut &[u8]) -> u32 {
    let (digits, behind) = rest.split_at(rest.len().min(4));
    *rest = behind;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0);
    digits.iter().fold(0, |all, byte| all << 4 | digit(byte))
}

fn push_code_point(point: u32, out: &mut Vec<u8>) {
    match char::from_u32(point) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend([
            0xe0 | (point >> 12) as u8,
            0x80 | (point >> 6 & 0x3f) as u8,
            0x80 | (point & 0x3f) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_what_serde_json_says() {
        for raw in [
            r#"plain"#,
            r#"st\u0061tus"#,
            r#"\"\\\/\b\f\n\r\t"#,
            r#"\u00e9\u20AC"#,
            r#"x\ud83d\ude00y"#,
            "\u{e9}\u{1f600}",
        ] {
            let mut out = Vec::new();
            unescape(raw.as_bytes(), &mut out);
            let expected: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{raw}");
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_stay_different() {
        let of = |raw: &str| {
            let mut out = Vec::new();
            unescape(raw.as_bytes(), &mut out);
            out
        };
        assert_eq!(of(r#"\ud800"#), [0xed, 0xa0, 0x80]);
        assert_ne!(of(r#"\ud800"#), of(r#"\ud801"#));
        assert_eq!(of(r#"\ud800\u0041"#), [0xed, 0xa0, 0x80, b'A']);
        assert_eq!(
            of(r#"\ud800\ud83d\ude00"#),
            [&[0xed, 0xa0, 0x80], "\u{1f600}".as_bytes()].concat()
        );
    }
}
