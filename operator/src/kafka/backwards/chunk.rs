//! The records of one Fetch answer. In: bytes of a broker, offsets, aborted transactions. Out: how far the bytes
//! reach, and entries, the newest first. Pure, except that decompressing takes memory: one answer at a time does.

use std::collections::HashSet;

use tokio::sync::Semaphore;

use super::question::{Entry, Shown, Take};
use crate::kafka::protocol::fetch::FetchedRecords;
use crate::kafka::protocol::records::{Batch, Batches, Record};

/// Largest batch, decompressed.
pub(super) const LARGEST: usize = 32 << 20;

/// All pages of this process decode one answer at a time, because a batch may have [`LARGEST`] bytes.
static DECODING: Semaphore = Semaphore::const_new(1);

/// How far an answer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// There is nothing.
    Empty,
    /// The first batch is cut.
    Cut,
    /// All complete batches end with this offset; true: another one is cut.
    To(i64, bool),
    /// Where the next batch begins cannot be found.
    Damaged,
}

pub(super) fn reach(records: &[u8]) -> Reach {
    let mut batches = Batches::new(records);
    let mut last = None;
    for batch in batches.by_ref() {
        match batch {
            Ok(batch) => last = last.max(Some(batch.last_offset)),
            Err(_) => return Reach::Damaged,
        }
    }
    match last {
        Some(last) => Reach::To(last, batches.is_cut()),
        None if batches.is_cut() => Reach::Cut,
        None => Reach::Empty,
    }
}

/// What an answer has.
#[derive(Debug)]
pub(super) struct Decoded<T> {
    /// The newest first.
    pub entries: Vec<Entry<T>>,
    /// First offset of the first batch.
    pub first: Option<i64>,
    pub looked: usize,
    /// Larger one of compressed and decompressed bytes.
    pub bytes: usize,
}

/// Decodes the records from `start` on and below `end`.
pub(super) async fn decode<T: Send + 'static>(
    answer: FetchedRecords,
    partition: i32,
    start: i64,
    end: i64,
    take: Take<T>,
) -> Decoded<T> {
    // The semaphore is never closed.
    let slot = DECODING.acquire().await.ok();
    let decoded = tokio::task::spawn_blocking(move || {
        // Kept to the end, also if the request is gone meanwhile.
        let _slot = slot;
        decode_now(&answer, partition, start, end, &*take)
    });
    let decoded = decoded.await;
    decoded.unwrap_or_else(|error| Decoded {
        entries: vec![unreadable(
            partition,
            start,
            end - 1,
            -1,
            format!("it cannot be decoded: {error}"),
        )],
        first: None,
        looked: 0,
        bytes: 0,
    })
}

pub(super) fn decode_now<T>(
    answer: &FetchedRecords,
    partition: i32,
    start: i64,
    end: i64,
    take: &dyn Fn(i32, &Record<'_>) -> Option<T>,
) -> Decoded<T> {
    let mut decoded = Decoded {
        entries: Vec::new(),
        first: None,
        looked: 0,
        bytes: 0,
    };
    for batch in Committed::new(answer) {
        let first = *decoded.first.get_or_insert(batch.base_offset);
        if batch.is_control || batch.base_offset >= end || batch.last_offset < start {
            continue;
        }
        // Those of a later batch that goes back would be shown twice.
        if batch.base_offset < first {
            continue;
        }
        let mut found = Vec::new();
        let mut looked = 0;
        let read = batch.bytes(LARGEST).and_then(|bytes| {
            decoded.bytes += bytes.len();
            batch.records(&bytes, |record| {
                if (start..end).contains(&record.offset) {
                    looked += 1;
                    if let Some(kept) = take(partition, &record) {
                        found.push(Entry {
                            partition,
                            offset: record.offset,
                            timestamp: record.timestamp,
                            shown: Shown::Record(kept),
                        });
                    }
                }
            })
        });
        match read {
            Ok(()) => {
                decoded.entries.extend(found);
                decoded.looked += looked;
            }
            // Records before the damage would be shown again with the rest of the batch.
            Err(why) => {
                let (first, last) = (batch.base_offset.max(start), batch.last_offset.min(end - 1));
                let time = batch.max_timestamp;
                decoded
                    .entries
                    .push(unreadable(partition, first, last, time, why));
            }
        }
    }
    decoded.bytes = decoded.bytes.max(answer.records.len());
    decoded.entries.reverse();
    decoded
}

fn unreadable<T>(partition: i32, first: i64, last: i64, timestamp: i64, why: String) -> Entry<T> {
    Entry {
        partition,
        offset: last,
        timestamp,
        shown: Shown::Unreadable { first, why },
    }
}

/// The batches of an answer without those of aborted transactions. Markers are among them.
pub(super) struct Committed<'a> {
    batches: Batches<'a>,
    /// Producer and first offset, the last one first.
    begin: Vec<(i64, i64)>,
    /// Producers whose transaction is one of the aborted ones here.
    aborted: HashSet<i64>,
}

impl<'a> Committed<'a> {
    pub fn new(answer: &'a FetchedRecords) -> Self {
        let mut begin = answer.aborted.clone();
        begin.sort_by_key(|(_, first)| std::cmp::Reverse(*first));
        Self {
            batches: Batches::new(&answer.records),
            begin,
            aborted: HashSet::new(),
        }
    }
}

impl<'a> Iterator for Committed<'a> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        loop {
            let batch = self.batches.next()?.ok()?;
            while let Some((producer, _)) = self.begin.pop_if(|(_, first)| *first <= batch.last_offset) {
                self.aborted.insert(producer);
            }
            if batch.is_control {
                if batch.is_abort() {
                    self.aborted.remove(&batch.producer);
                }
                return Some(batch);
            }
            if !(batch.is_transactional && self.aborted.contains(&batch.producer)) {
                return Some(batch);
            }
        }
    }
}
