//! The finished records above a committed offset, as text for the commit's metadata: a restart skips them. In: ascending
//! ranges of offsets. Out: `k1:` and the base64 of variable-length integers, the lengths of unfinished and finished runs
//! in turn, counted from the committed offset. What does not fit into the [`MetadataLimit`] is left out and will be processed again.
//! Pure.

use std::{fmt, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use crate::record::Offset;

/// Brokers take 4096 bytes of metadata (`offset.metadata.max.bytes`) and refuse the commit above; for those that are set lower
/// there is [`MetadataLimit::shrink`].
const MAX_TEXT: usize = 3072;
/// Version of the text; a reader skips what it does not know.
const PREFIX: &str = "k1:";

/// How long the text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataLimit(usize);

impl Default for MetadataLimit {
    fn default() -> Self {
        Self(MAX_TEXT)
    }
}

impl fmt::Display for MetadataLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl MetadataLimit {
    /// A broker has refused a text of this length. It does not say what it takes, so the next is at most half as long; down to
    /// none, which every broker takes. Never grows.
    pub fn shrink(&mut self, refused: usize) {
        self.0 = self.0.min(refused / 2);
    }

    /// More ranges than these do not fit: each takes at least two bytes.
    pub fn ranges(self) -> usize {
        self.bytes() / 2
    }

    /// Bytes that fit in. Base64 makes four characters of three of them, and the last ones are not filled up.
    fn bytes(self) -> usize {
        self.0.saturating_sub(PREFIX.len()) * 3 / 4
    }
}

/// Metadata that is not ours, or is damaged: nothing is skipped then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the metadata of the committed offset was not written by this worker; records finished ahead of it are processed again")
    }
}

/// The text for `ranges`, ascending and all above `committed`, as far as it fits. Empty without ranges that do.
pub fn encode(room: MetadataLimit, committed: Offset, ranges: &[Range<Offset>]) -> String {
    encode_within(room.bytes(), committed, ranges)
}

/// [`encode`] for a place that takes any length.
pub fn encode_all(committed: Offset, ranges: &[Range<Offset>]) -> String {
    encode_within(usize::MAX, committed, ranges)
}

fn encode_within(most: usize, committed: Offset, ranges: &[Range<Offset>]) -> String {
    let mut bytes = Vec::new();
    let mut at = committed;
    for range in ranges {
        let before = bytes.len();
        push(&mut bytes, (range.start - at) as u64);
        push(&mut bytes, (range.end - range.start) as u64);
        if bytes.len() > most {
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

/// The offset a run further on. TimedPipeline are never empty, so a text is read in one way only.
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

    /// The finished runs, each behind a gap, above `committed`.
    fn placed(committed: Offset, runs: &[(i64, i64)]) -> Vec<Range<Offset>> {
        let mut at = committed;
        let place = |(gap, run): &(i64, i64)| {
            let start = at + gap;
            at = start + run;
            start..at
        };
        runs.iter().map(place).collect()
    }

    #[test]
    fn nothing_ahead_is_no_text() {
        assert_eq!(encode(MetadataLimit::default(), 7, &[]), "");
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
        let text = encode(MetadataLimit::default(), 0, &ranges);
        assert!(
            text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 8,
            "{}",
            text.len()
        );
        let read = decode(0, &text).unwrap();
        assert_eq!(read, ranges[..read.len()]);
    }

    #[test]
    fn whatever_a_broker_takes_it_is_found_out_by_a_few_refusals() {
        let ranges: Vec<_> = (0..5000).map(|n| 1000 * n + 1..1000 * n + 2).collect();
        for taken in [0, 1, 6, 100, 1024, 3000] {
            let (mut room, mut refusals) = (MetadataLimit::default(), 0);
            let text = loop {
                let text = encode(room, 0, &ranges);
                if text.len() <= taken {
                    break text;
                }
                room.shrink(text.len());
                refusals += 1;
            };
            assert!(refusals <= 10, "{refusals} for {taken}");
            assert!(text.len() + 16 >= taken / 2, "{} of {taken}", text.len());
            let found = room;
            room.shrink(4000);
            assert_eq!(room, found, "an answer to something longer that comes late");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            committed in 0..i64::MAX / 2,
            runs in prop::collection::vec((1..1_i64 << 40, 1..1_i64 << 20), 0..100),
        ) {
            let ranges = placed(committed, &runs);
            let text = encode(MetadataLimit::default(), committed, &ranges);
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert_eq!(decode(committed, &text), Ok(ranges));
        }

        /// Never longer than the room, and nothing left out that would have fitted in.
        #[test]
        fn in_any_room_the_first_ranges_that_fit_are_told(
            room in 0_usize..400,
            committed in 0..i64::MAX / 2,
            runs in prop::collection::vec((1..1_i64 << 20, 1..1_i64 << 10), 0..150),
        ) {
            let room = MetadataLimit(room);
            let ranges = placed(committed, &runs);
            let text = encode(room, committed, &ranges);
            prop_assert!(text.len() <= room.0, "{} in {}", text.len(), room);
            let told = decode(committed, &text).unwrap();
            prop_assert_eq!(told.as_slice(), &ranges[..told.len()]);
            prop_assert!(told.len() <= room.ranges());
            if told.len() < ranges.len() {
                let one_more = encode_all(committed, &ranges[..=told.len()]);
                prop_assert!(one_more.len() > room.0, "{} in {}", one_more.len(), room);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(committed in any::<i64>(), text in "(k1:)?[A-Za-z0-9+/]{0,40}") {
            if let Ok(ranges) = decode(committed, &text) {
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.start > committed));
            }
        }
    }
}
