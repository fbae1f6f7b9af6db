//! The records of one Fetch answer. In: bytes of a broker, offsets, aborted transactions. Out: how far the bytes
//! reach, and entries, the newest first. Pure, except that decompressing takes memory: one answer at a time does.

use std::collections::{HashSet, VecDeque};

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
    /// Where the next batch begins cannot be found; the offset is the last one before, if there is one.
    Damaged(Option<i64>),
}

pub(super) fn reach(records: &[u8]) -> Reach {
    let mut batches = Batches::new(records);
    let mut last = None;
    for batch in batches.by_ref() {
        match batch {
            Ok(batch) => last = last.max(Some(batch.last_offset)),
            Err(_) => return Reach::Damaged(last),
        }
    }
    match last {
        Some(last) => Reach::To(last, batches.is_cut()),
        None if batches.is_cut() => Reach::Cut,
        None => Reach::Empty,
    }
}

/// Bytes of the batches that begin below `end`. An answer reaches beyond it, into what was read before.
pub(super) fn size_below(records: &[u8], end: i64) -> usize {
    let mut batches = Batches::new(records);
    let mut left = records.len();
    while let Some(Ok(batch)) = batches.next()
        && batch.base_offset < end
    {
        left = batches.left();
    }
    records.len() - left
}

/// What an answer has.
#[derive(Debug)]
pub(super) struct Decoded<T> {
    /// The newest first, at most as many as wanted.
    pub entries: VecDeque<Entry<T>>,
    /// There were more of them.
    pub dropped: bool,
    /// First offset of the first batch.
    pub first: Option<i64>,
    pub looked: usize,
    /// Larger one of compressed and decompressed bytes.
    pub bytes: usize,
}

/// The records that are wanted: of a partition, from `start` on and below `end`, the newest ones up to `limit`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub partition: i32,
    pub start: i64,
    pub end: i64,
    pub limit: usize,
}

/// Decodes the records that are wanted.
pub(super) async fn decode<T: Send + 'static>(
    answer: FetchedRecords,
    wanted: Wanted,
    take: Take<T>,
) -> Decoded<T> {
    // The semaphore is never closed.
    let slot = DECODING.acquire().await.ok();
    let decoded = tokio::task::spawn_blocking(move || {
        // Kept to the end, also if the request is gone meanwhile.
        let _slot = slot;
        decode_now(&answer, wanted, &*take)
    });
    let decoded = decoded.await;
    decoded.unwrap_or_else(|error| Decoded {
        entries: VecDeque::from([unreadable(
            wanted.partition,
            wanted.start,
            wanted.end - 1,
            -1,
            format!("it cannot be decoded: {error}"),
        )]),
        dropped: false,
        first: None,
        looked: 0,
        bytes: 0,
    })
}

pub(super) fn decode_now<T>(
    answer: &FetchedRecords,
    wanted: Wanted,
    take: &dyn Fn(i32, &Record<'_>) -> Option<T>,
) -> Decoded<T> {
    let Wanted {
        partition,
        start,
        end,
        limit,
    } = wanted;
    let mut decoded = Decoded {
        entries: VecDeque::new(),
        dropped: false,
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
        // A batch may have millions of records: more than those that are wanted are never kept.
        let mut found = VecDeque::new();
        let (mut looked, mut dropped) = (0, false);
        let read = batch.bytes(LARGEST).and_then(|bytes| {
            decoded.bytes += bytes.len();
            batch.records(&bytes, |record| {
                if (start..end).contains(&record.offset) {
                    looked += 1;
                    if let Some(kept) = take(partition, &record) {
                        found.push_back(Entry {
                            partition,
                            offset: record.offset,
                            timestamp: record.timestamp,
                            shown: Shown::Record(kept),
                        });
                        dropped |= keep_newest(&mut found, limit);
                    }
                }
            })
        });
        match read {
            Ok(()) => {
                decoded.entries.extend(found);
                decoded.looked += looked;
                decoded.dropped |= dropped;
            }
            // Records before the damage would be shown again with the rest of the batch.
            Err(why) => {
                let (first, last) = (batch.base_offset.max(start), batch.last_offset.min(end - 1));
                let time = batch.max_timestamp;
                decoded
                    .entries
                    .push_back(unreadable(partition, first, last, time, why));
            }
        }
        decoded.dropped |= keep_newest(&mut decoded.entries, limit);
    }
    decoded.bytes = decoded.bytes.max(answer.records.len());
    decoded.entries.make_contiguous().reverse();
    decoded
}

/// Removes the first of the entries, which are the oldest. True: there were more than `limit`.
fn keep_newest<T>(entries: &mut VecDeque<Entry<T>>, limit: usize) -> bool {
    let more = entries.len().saturating_sub(limit);
    entries.drain(..more);
    more > 0
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
