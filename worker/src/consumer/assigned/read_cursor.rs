//! How far a partition is read: which record is new, which one was read or finished before, and where to seek
//! when librdkafka's position cannot be trusted. Pure.

use std::{collections::VecDeque, ops::Range};

use crate::record::{Offset, TopicPartition};

/// How many records the cursor remembers to recognize one that librdkafka returns twice. Every rebalance
/// pauses all partitions. If that happens after librdkafka 2.12 has taken records out of its queue and before
/// it has stored the position behind them, it continues from before these records. They are one batch of
/// reads at most.
const RECENT: usize = 4096;

/// What to do with a record that librdkafka returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Process it.
    New,
    /// An earlier owner has finished it.
    Finished,
    /// It was read before, or a seek is pending.
    Ignored,
}

/// The read position of one partition.
pub struct ReadCursor {
    /// Ranges that an earlier owner has finished and that the cursor has not passed.
    finished: VecDeque<Range<Offset>>,
    /// Everything below was read.
    read_to: Offset,
    /// Read again from here. Records that arrive before the seek is done are ignored.
    pending_seek: Option<Offset>,
    /// The last records that were read: offset and timestamp, ascending.
    recent: VecDeque<(Offset, i64)>,
}

impl ReadCursor {
    /// A cursor before the first record. `finished` holds ranges of offsets, ascending.
    pub fn new(finished: Vec<Range<Offset>>) -> Self {
        Self {
            finished: finished.into(),
            read_to: 0,
            pending_seek: None,
            recent: VecDeque::new(),
        }
    }

    /// Takes the next record that librdkafka returns.
    pub fn advance(&mut self, partition: &TopicPartition, offset: Offset, timestamp: i64) -> ReadVerdict {
        if self.pending_seek.is_some() {
            return ReadVerdict::Ignored;
        }
        if offset < self.read_to {
            if !self.was_read(partition, offset, timestamp) {
                // librdkafka's position does not follow; the consumer has to seek.
                self.read_to = offset;
                self.seek_to(offset);
            }
            return ReadVerdict::Ignored;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((offset, timestamp));
        self.read_to = offset + 1;
        if self.was_finished(offset) {
            ReadVerdict::Finished
        } else {
            ReadVerdict::New
        }
    }

    /// True for a record that was read before. Otherwise the offsets have started again from a lower one,
    /// because the topic was emptied or created again.
    fn was_read(&mut self, partition: &TopicPartition, offset: Offset, timestamp: i64) -> bool {
        let found = self.recent.binary_search_by_key(&offset, |(offset, _)| *offset);
        let again = found.is_ok_and(|at| self.recent[at].1 == timestamp);
        tracing::debug!(%partition, offset, again, "record below the read position");
        if !again {
            self.recent.clear();
        }
        again
    }

    fn was_finished(&mut self, offset: Offset) -> bool {
        while self.finished.front().is_some_and(|range| range.end <= offset) {
            self.finished.pop_front();
        }
        self.finished.front().is_some_and(|range| range.contains(&offset))
    }

    /// Everything below `offset` was read or does not exist.
    pub fn pass(&mut self, offset: Offset) {
        self.read_to = self.read_to.max(offset);
    }

    /// True if the cursor has read nothing, or has read a record at or above `offset`.
    pub fn is_new_or_above(&self, offset: Offset) -> bool {
        self.read_to == 0 || offset < self.read_to
    }

    /// Requests a seek. If several are requested, the lowest offset wins.
    pub fn seek_to(&mut self, offset: Offset) {
        let target = self.pending_seek.map_or(offset, |target| target.min(offset));
        self.pending_seek = Some(target);
    }

    /// Where to seek, until the seek is done.
    pub fn pending_seek(&self) -> Option<Offset> {
        self.pending_seek
    }

    /// The consumer reads from there now.
    pub fn seek_done(&mut self) {
        self.pending_seek = None;
    }

    /// The parts of the ranges finished by an earlier owner that the cursor has not passed.
    pub fn unread_finished(&self) -> impl Iterator<Item = Range<Offset>> {
        self.finished
            .iter()
            .map(|range| range.start.max(self.read_to)..range.end)
            .filter(|unread| !unread.is_empty())
    }
}
