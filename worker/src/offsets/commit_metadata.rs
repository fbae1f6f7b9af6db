//! What a commit says in its metadata: the topic that the offset belongs to, and the out-of-order completions
//! above the offset, which the worker skips after a restart. Pure.
//!
//! The text is `t1:`, the [`TopicId`] and `;` if the id is known, then `k1:` and the base64 of variable-length
//! integers if there are out-of-order completions. The integers are the lengths of unfinished and finished
//! runs in turn, counted from the committed offset. What does not fit into the [`MetadataLimit`] is left out:
//! ranges from the end, whose records are then processed again, and the topic id where brokers accept hardly
//! anything.

use std::{fmt, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use crate::record::{Offset, topic_id::TopicId};

/// By default, brokers accept 4096 bytes of metadata (`offset.metadata.max.bytes`) and refuse commits with
/// more. For brokers with a lower limit there is [`MetadataLimit::shrink`].
const MAX_TEXT: usize = 3072;
/// Version of the text; a reader ignores versions that it does not know.
const PREFIX: &str = "k1:";
/// The same for the topic id.
const TOPIC_PREFIX: &str = "t1:";
const TOPIC_END: char = ';';
/// Bytes of the topic id with its prefix and end.
const TOPIC_LENGTH: usize = TOPIC_PREFIX.len() + TopicId::LENGTH + 1;

/// Maximum length of the text in bytes.
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
    /// A broker has refused a text of this length. It does not report its limit, so the next text is at most
    /// half as long, down to no text, which every broker accepts. The limit never grows.
    pub fn shrink(&mut self, refused: usize) {
        self.0 = self.0.min(refused / 2);
    }

    /// Maximum number of ranges: each takes at least two bytes.
    pub fn ranges(self) -> usize {
        self.bytes() / 2
    }

    /// What is left for the ranges beside the id of the topic. None: the id does not fit.
    fn beside_topic(self) -> Option<Self> {
        self.0.checked_sub(TOPIC_LENGTH).map(Self)
    }

    /// Number of bytes before base64, which makes four characters of three bytes and adds no padding.
    fn bytes(self) -> usize {
        self.0.saturating_sub(PREFIX.len()) * 3 / 4
    }
}

/// Metadata that another program wrote, or that is damaged: the worker then skips nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the metadata of the committed offset was not written by a worker; \
             records above it that were already finished are processed again",
        )
    }
}

/// The text for a commit of an offset of this topic: its id, and what [`encode`] makes of the ranges.
pub fn of_topic(
    topic: Option<&TopicId>,
    limit: MetadataLimit,
    ranges: impl FnOnce(MetadataLimit) -> String,
) -> String {
    match topic.zip(limit.beside_topic()) {
        Some((id, left)) => format!("{TOPIC_PREFIX}{id}{TOPIC_END}{}", ranges(left)),
        None => ranges(limit),
    }
}

/// The topic that the committed offset belongs to, if its metadata says so.
pub fn topic_id(text: &str) -> Option<TopicId> {
    split_topic(text).0
}

fn split_topic(text: &str) -> (Option<TopicId>, &str) {
    let tagged = || {
        let (id, rest) = text.strip_prefix(TOPIC_PREFIX)?.split_once(TOPIC_END)?;
        Some((TopicId::parse(id)?, rest))
    };
    tagged().map_or((None, text), |(id, rest)| (Some(id), rest))
}

/// The text for the first of `ranges` that fit into `limit`. They must ascend and be above `committed`. Empty
/// if none fits.
pub fn encode(limit: MetadataLimit, committed: Offset, ranges: &[Range<Offset>]) -> String {
    encode_within(limit.bytes(), committed, ranges)
}

/// [`encode`] without a limit.
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

/// The ranges in `text`, which is the metadata of the committed offset `committed`.
pub fn decode(committed: Offset, text: &str) -> Result<Vec<Range<Offset>>, Unreadable> {
    let (_, text) = split_topic(text);
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

/// The offset after the next run. Runs are never empty, so a text has exactly one meaning.
fn advance(at: Offset, bytes: &mut &[u8]) -> Result<Offset, Unreadable> {
    let run = pull(bytes).filter(|run| *run > 0).ok_or(Unreadable)?;
    let run = Offset::try_from(run).map_err(|_| Unreadable)?;
    at.checked_add(run).ok_or(Unreadable)
}

/// Seven bits in each byte, the lowest first. A set high bit means that more bytes follow.
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

    /// The finished runs above `committed`, each after a gap.
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
    fn no_ranges_make_an_empty_text() {
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
    fn a_few_refusals_find_the_limit_of_any_broker() {
        let ranges: Vec<_> = (0..5000).map(|n| 1000 * n + 1..1000 * n + 2).collect();
        for accepted in [0, 1, 6, 100, 1024, 3000] {
            let (mut limit, mut refusals) = (MetadataLimit::default(), 0);
            let text = loop {
                let text = encode(limit, 0, &ranges);
                if text.len() <= accepted {
                    break text;
                }
                limit.shrink(text.len());
                refusals += 1;
            };
            assert!(refusals <= 10, "{refusals} for {accepted}");
            assert!(text.len() + 16 >= accepted / 2, "{} of {accepted}", text.len());
            let found = limit;
            limit.shrink(4000);
            assert_eq!(limit, found, "a late refusal of a longer text");
        }
    }

    #[test]
    fn the_topic_id_comes_first_and_is_left_out_where_it_does_not_fit() {
        let id = TopicId::parse("ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2").unwrap();
        let text = |limit, ranges: &[Range<Offset>]| {
            of_topic(Some(&id), MetadataLimit(limit), |left| encode(left, 5, ranges))
        };
        let ranges = [7..9, 12..13];
        let tagged = text(3072, &ranges);
        assert_eq!(tagged, "t1:ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2;k1:AgIDAQ");
        assert_eq!(
            (topic_id(&tagged), decode(5, &tagged)),
            (Some(id.clone()), Ok(ranges.to_vec()))
        );
        let only = text(TOPIC_LENGTH, &ranges);
        assert_eq!(only, "t1:ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2;");
        assert_eq!(
            (topic_id(&only), decode(5, &only)),
            (Some(id.clone()), Ok(vec![]))
        );
        let none = text(TOPIC_LENGTH - 1, &ranges);
        assert_eq!((topic_id(&none), decode(5, &none)), (None, Ok(ranges.to_vec())));
        for foreign in [
            "",
            "t1:short;k1:AgI",
            "note; t1:",
            "t1:ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2",
        ] {
            assert_eq!(topic_id(foreign), None, "{foreign}");
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

        /// Never longer than the limit, and no range left out that would fit.
        #[test]
        fn the_first_ranges_that_fit_into_any_limit_are_encoded(
            limit in 0_usize..400,
            committed in 0..i64::MAX / 2,
            runs in prop::collection::vec((1..1_i64 << 20, 1..1_i64 << 10), 0..150),
        ) {
            let limit = MetadataLimit(limit);
            let ranges = placed(committed, &runs);
            let text = encode(limit, committed, &ranges);
            prop_assert!(text.len() <= limit.0, "{} in {}", text.len(), limit);
            let read = decode(committed, &text).unwrap();
            prop_assert_eq!(read.as_slice(), &ranges[..read.len()]);
            prop_assert!(read.len() <= limit.ranges());
            if read.len() < ranges.len() {
                let one_more = encode_all(committed, &ranges[..=read.len()]);
                prop_assert!(one_more.len() > limit.0, "{} in {}", one_more.len(), limit);
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
