//! The finished records above a committed offset, as text for the commit's metadata: a restart skips them. In: ascending
//! ranges of offsets. Out: `k1:` and the base64 of variable-length integers, the lengths of unfinished and finished runs
//! in turn, counted from the committed offset. What does not fit is left out and will be processed again. Pure.

use std::{fmt, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use crate::record::Offset;

/// Brokers take 4096 bytes of metadata (`offset.metadata.max.bytes`) and refuse the commit above; some are set lower.
const MAX_TEXT: usize = 3072;
/// Version of the text; a reader skips what it does not know.
const PREFIX: &str = "k1:";
/// More ranges than fit: each takes at least two bytes before base64.
pub const MAX_RANGES: usize = (MAX_TEXT - PREFIX.len()) / 4 * 3 / 2;

/// Metadata that is not ours, or is damaged: nothing is skipped then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the metadata of the committed offset was not written by this worker; records finished ahead of it are processed again")
    }
}

/// The text for `ranges`, ascending and all above `committed`, as far as it fits. Empty without ranges.
pub fn encode(committed: Offset, ranges: &[Range<Offset>]) -> String {
    encode_within((MAX_TEXT - PREFIX.len()) / 4 * 3, committed, ranges)
}

/// [`encode`] for a place that takes any length.
pub fn encode_all(committed: Offset, ranges: &[Range<Offset>]) -> String {
    encode_within(usize::MAX, committed, ranges)
}

fn encode_within(room: usize, committed: Offset, ranges: &[Range<Offset>]) -> String {
    let mut bytes = Vec::new();
    let mut at = committed;
    for range in ranges {
        let before = bytes.len();
        push(&mut bytes, (range.start - at) as u64);
        push(&mut bytes, (range.end - range.start) as u64);
        if bytes.len() > room {
            bytes.truncate(before);
            break;
        }
        at = range.end;
    }
    if bytes.is_empty() {
        return String::new();
    }
    format!("{PREFIX}{}", STANDARD_NO_PAD.encode(bytes))
}

/// The ranges in `text`, which was committed with `committed`.
pub fn decode(committed: Offset, text: &str) -> Result<Vec<Range<Offset>>, Unreadable> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_prefix(PREFIX).ok_or(Unreadable)?;
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| Unreadable)?;
    let mut bytes = bytes.as_slice();
    let mut ranges = Vec::new();
    let mut at = committed;
    while !bytes.is_empty() {
        let start = advance(at, &mut bytes)?;
        let end = advance(start, &mut bytes)?;
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// The offset a run further on. Runs are never empty, so a text is read in one way only.
fn advance(at: Offset, bytes: &mut &[u8]) -> Result<Offset, Unreadable> {
    let run = pull(bytes).filter(|run| *run > 0).ok_or(Unreadable)?;
    let run = Offset::try_from(run).map_err(|_| Unreadable)?;
    at.checked_add(run).ok_or(Unreadable)
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_ahead_is_no_text() {
        assert_eq!(encode(7, &[]), "");
        assert_eq!(decode(7, ""), Ok(vec![]));
    }

    #[test]
    fn foreign_or_damaged_metadata_is_refused() {
        for text in [
            "note of another tool",
            "k2:AQE",
            "k1:%%",
            "k1:AQ",
            "k1:AAE",
            "k1:gICAgICAgICAgAE",
        ] {
            assert_eq!(decode(0, text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let ranges: Vec<_> = (0..5000).map(|n| 1000 * n + 1..1000 * n + 2).collect();
        let text = encode(0, &ranges);
        assert!(
            text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 8,
            "{}",
            text.len()
        );
        let read = decode(0, &text).unwrap();
        assert_eq!(read, ranges[..read.len()]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            committed in 0..i64::MAX / 2,
            runs in prop::collection::vec((1..1_i64 << 40, 1..1_i64 << 20), 0..100),
        ) {
            let mut at = committed;
            let ranges: Vec<Range<Offset>> = runs.iter().map(|(gap, run)| {
                let start = at + gap;
                at = start + run;
                start..at
            }).collect();
            let text = encode(committed, &ranges);
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert_eq!(decode(committed, &text), Ok(ranges));
        }

        #[test]
        fn any_text_is_read_or_refused(committed in any::<i64>(), text in "(k1:)?[A-Za-z0-9+/]{0,40}") {
            if let Ok(ranges) = decode(committed, &text) {
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.start > committed));
            }
        }
    }
}
