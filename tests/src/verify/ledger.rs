//! Records whose content follows from their position: run, partition, sequence number. So the harness can
//! check that a record is ours, unchanged and in its place without a copy of it, and a ledger only has to
//! record which records the broker has acknowledged, and at which offsets. Some records are poison: not JSON,
//! so that they must end unchanged in the dead letter topic. Pure; [`feed`] writes the records.

pub mod feed;

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::{
    systems::kafka::{Message, Record},
    verify::checker::{Arrival, Place, Sent, What},
};

/// Prefix of the headers that the product adds to a dead letter; all other headers must be those of the
/// input.
const ADDED_HEADERS: &str = "kafka-consumer.dev/";

/// Prefix of the value of a poison record.
const POISON: &str = "poison ";

/// What the records of a run look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Unique among all records that were ever written to the topics.
    pub run: String,
    /// Keys of each partition.
    pub keys: u32,
    /// One record in this many is poison; 0: none.
    pub poison_every: u64,
    /// Timestamp of the first record; the broker and its retention must accept it.
    pub epoch: i64,
}

/// A record's value as JSON; or the row made of it, which has these fields as columns.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Document<'a> {
    pub run: &'a str,
    pub partition: i32,
    pub seq: u64,
    pub key: &'a str,
    pub checksum: &'a str,
}

impl Shape {
    /// Number of the record's key within its partition: every key occurs again and again, in no simple order.
    pub fn key(&self, seq: u64) -> u32 {
        let mixed = (seq ^ (seq >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        (mixed % u64::from(self.keys.max(1))) as u32
    }

    pub fn is_poison(&self, seq: u64) -> bool {
        self.poison_every > 0 && seq % self.poison_every == self.poison_every / 2
    }

    /// The acknowledged records, as the checker needs them.
    pub fn inputs(&self, ledger: &Ledger<i32>) -> BTreeMap<i32, Vec<Sent>> {
        ledger
            .offsets
            .iter()
            .map(|(partition, offsets)| {
                let sent = (0..)
                    .zip(offsets)
                    .map(|(seq, offset)| Sent {
                        offset: *offset,
                        key: self.key(seq),
                        poison: self.is_poison(seq),
                    })
                    .collect();
                (*partition, sent)
            })
            .collect()
    }

    fn key_text(&self, partition: i32, seq: u64) -> String {
        format!("{partition}-{}", self.key(seq))
    }

    fn value(&self, partition: i32, seq: u64) -> String {
        let key = self.key_text(partition, seq);
        let checksum = checksum(&self.run, partition, seq, &key);
        let prefix = if self.is_poison(seq) { POISON } else { "" };
        format!(
            r#"{prefix}{{"run":"{}","partition":{partition},"seq":{seq},"key":"{key}","checksum":"{checksum}"}}"#,
            self.run
        )
    }

    /// The record itself. A poison record has headers, one of them null and one twice, because the worker
    /// must keep those too.
    pub fn message(&self, partition: i32, seq: u64) -> Message {
        let headers = if self.is_poison(seq) {
            vec![
                (
                    "trace".to_string(),
                    Some(format!("{partition}/{seq}").into_bytes()),
                ),
                ("empty".to_string(), None),
                ("trace".to_string(), Some(b"again".to_vec())),
            ]
        } else {
            Vec::new()
        };
        Message {
            partition: Some(partition),
            key: Some(self.key_text(partition, seq).into_bytes()),
            value: Some(self.value(partition, seq).into_bytes()),
            headers,
            // Differs from record to record, and is never so far ahead that the broker rejects it.
            timestamp: Some(self.epoch + (seq % 1000) as i64),
        }
    }

    /// Identifies a record of the output topic or, with `letter`, of the dead letter topic.
    pub fn identify(&self, record: &Record, letter: bool) -> Arrival {
        Arrival {
            place: Place {
                partition: record.partition,
                offset: record.offset,
            },
            what: self.what(record, letter),
        }
    }

    /// Identifies a row: it has everything of a value, and no key, headers or timestamp.
    pub fn what_row(&self, row: Document<'_>) -> What {
        let Document {
            run,
            partition,
            seq,
            key,
            ..
        } = row;
        if row.checksum != checksum(run, partition, seq, key) {
            return What::Corrupted;
        }
        if run != self.run {
            return What::Foreign;
        }
        if key == self.key_text(partition, seq) {
            What::Record { partition, seq }
        } else {
            What::Corrupted
        }
    }

    fn what(&self, record: &Record, letter: bool) -> What {
        let text = record
            .value
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok());
        let Some(text) = text else { return What::Corrupted };
        let document = text.strip_prefix(POISON).unwrap_or(text);
        let Ok(document) = serde_json::from_str::<Document<'_>>(document) else {
            return What::Corrupted;
        };
        let what = self.what_row(document);
        let What::Record { partition, seq } = what else {
            return what;
        };
        let expected = self.message(partition, seq);
        let headers = record
            .headers
            .iter()
            .filter(|(name, _)| !letter || !name.starts_with(ADDED_HEADERS));
        let untouched = record.key == expected.key
            && record.value == expected.value
            && record.timestamp == expected.timestamp
            && headers.eq(&expected.headers);
        if untouched {
            What::Record { partition, seq }
        } else {
            What::Corrupted
        }
    }
}

/// The first half of a SHA-256 digest: no record that was changed by accident or by a bug still matches it.
fn checksum(run: &str, partition: i32, seq: u64, key: &str) -> String {
    let digest = openssl::sha::sha256(format!("{run}/{partition}/{seq}/{key}").as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The acknowledged records of a run, by stream: records whose order counts. A stream is a partition for a
/// [`Feed`](feed::Feed), and a key for a [`Load`](super::load::Load).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger<Stream = String> {
    pub run: String,
    /// The offset of each record, in the order of sequence numbers.
    pub offsets: BTreeMap<Stream, Vec<i64>>,
}

impl<Stream: Ord + fmt::Display> Ledger<Stream> {
    pub fn new(run: &str) -> Self {
        Self {
            run: run.into(),
            offsets: BTreeMap::new(),
        }
    }

    /// A ledger of the first `count` records of each stream. For a comparison that does not need the real
    /// offsets, so the sequence numbers stand for them.
    pub fn counted(run: &str, counts: impl IntoIterator<Item = (Stream, u64)>) -> Self {
        let offsets = |count| (0..).take(count as usize).collect();
        Self {
            run: run.into(),
            offsets: counts
                .into_iter()
                .map(|(stream, count)| (stream, offsets(count)))
                .collect(),
        }
    }

    /// Adds another ledger of the same run; their streams must differ.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.offsets.extend(other.offsets);
        self
    }

    /// Records the next acknowledged record of a stream. Fails if the order of the log is not the order of
    /// writing: then the input itself is out of order, and no result of the run means anything.
    pub fn acknowledged(&mut self, stream: Stream, seq: u64, offset: i64) -> Result<()> {
        let name = stream.to_string();
        let offsets = self.offsets.entry(stream).or_default();
        ensure!(
            offsets.len() as u64 == seq && offsets.last().is_none_or(|last| *last < offset),
            "record {seq} of stream {name} has the offset {offset}, but the {} records before it end at {:?}",
            offsets.len(),
            offsets.last()
        );
        offsets.push(offset);
        Ok(())
    }

    pub fn total(&self) -> u64 {
        self.offsets.values().map(|offsets| offsets.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            run: "r".into(),
            keys: 3,
            poison_every: 10,
            epoch: 1_000,
        }
    }

    fn record(shape: &Shape, partition: i32, seq: u64) -> Record {
        let message = shape.message(partition, seq);
        Record {
            partition: 7,
            offset: 70,
            timestamp: message.timestamp,
            key: message.key,
            value: message.value,
            headers: message.headers,
        }
    }

    #[test]
    fn an_unchanged_record_is_identified_as_output_poison_and_dead_letter() {
        for seq in [0, 4, 5, 999] {
            let arrival = shape().identify(&record(&shape(), 2, seq), false);
            assert_eq!(arrival.what, What::Record { partition: 2, seq });
            assert_eq!((arrival.place.partition, arrival.place.offset), (7, 70));
        }
        let mut letter = record(&shape(), 2, 5);
        letter
            .headers
            .push((format!("{ADDED_HEADERS}offset"), Some(b"5".to_vec())));
        assert_eq!(
            shape().identify(&letter, true).what,
            What::Record { partition: 2, seq: 5 }
        );
        assert_eq!(shape().identify(&letter, false).what, What::Corrupted);
    }

    #[test]
    fn every_change_of_a_record_is_detected() {
        let changes: [fn(&mut Record); 7] = [
            |record| record.value = None,
            |record| record.value = Some(b"{}".to_vec()),
            |record| record.value.as_mut().unwrap()[30] ^= 1,
            |record| record.key = Some(b"2-99".to_vec()),
            |record| record.key = None,
            |record| record.timestamp = None,
            |record| drop(record.headers.pop()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = record(&shape(), 2, 5);
            change(&mut changed);
            assert_eq!(shape().identify(&changed, true).what, What::Corrupted, "{number}");
        }
        let other = Shape {
            run: "other".into(),
            ..shape()
        };
        assert_eq!(shape().identify(&record(&other, 2, 5), true).what, What::Foreign);
    }

    #[test]
    fn a_row_is_identified_by_its_fields_and_every_change_of_them_is_detected() {
        let shape = shape();
        let key = shape.key_text(2, 6);
        let checksum = checksum("r", 2, 6, &key);
        let row = Document {
            run: "r",
            partition: 2,
            seq: 6,
            key: &key,
            checksum: &checksum,
        };
        assert_eq!(shape.what_row(row), What::Record { partition: 2, seq: 6 });
        for changed in [
            Document { run: "q", ..row },
            Document { partition: 1, ..row },
            Document { seq: 7, ..row },
            Document { key: "2-9", ..row },
            Document { checksum: "", ..row },
        ] {
            assert_eq!(shape.what_row(changed), What::Corrupted, "{changed:?}");
        }
        let other = Shape {
            run: "other".into(),
            ..shape
        };
        assert_eq!(other.what_row(row), What::Foreign);
    }

    #[test]
    fn all_keys_occur_and_poison_is_as_frequent_as_configured() {
        let shape = shape();
        let mut keys = [0; 3];
        (0..300).for_each(|seq| keys[shape.key(seq) as usize] += 1);
        assert!(keys.iter().all(|count| *count > 50), "{keys:?}");
        assert_eq!((0..300).filter(|seq| shape.is_poison(*seq)).count(), 30);
    }

    #[test]
    fn a_log_out_of_order_is_rejected() {
        let mut ledger = Ledger::new("r");
        ledger.acknowledged(0, 0, 5).unwrap();
        ledger.acknowledged(0, 1, 9).unwrap();
        assert!(ledger.clone().acknowledged(0, 2, 9).is_err());
        assert!(ledger.clone().acknowledged(0, 3, 10).is_err());
        assert_eq!(ledger.total(), 2);
        assert_eq!(shape().inputs(&ledger)[&0][1].offset, 9);
    }
}
