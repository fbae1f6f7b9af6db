//! The chunk that is being filled, and how long it waits for more records.

use std::time::{Duration, Instant};

use crate::record::{Chunk, TopicPartition, topic_id::TopicId};

/// How long a chunk that is not full waits while its partition has others in flight, if the user has not set
/// how long every chunk waits. Without any in flight it does not wait: under load, chunks fill up anyway
/// while the ones before them are in flight.
const LINGER: Duration = Duration::from_millis(50);
/// With two chunks in flight, a chunk that is not full waits this much longer: the lanes are busy, and full
/// chunks cost less. The wait is bounded, because the work in flight may be a single record that waits for a
/// retry.
const BUSY_LINGER: Duration = Duration::from_millis(100);
/// While a chunk waits for others in flight, the loop checks this often whether they are finished:
/// completions do not end its wait for records.
const COMPLETION_TICK: Duration = Duration::from_millis(2);

pub(super) struct OpenChunk {
    chunk: Chunk,
    /// When it got its first record.
    since: Option<Instant>,
}

impl OpenChunk {
    pub fn new(partition: TopicPartition, task_epoch: u64) -> Self {
        Self {
            chunk: Chunk::new(partition, task_epoch),
            since: None,
        }
    }

    /// To read it.
    pub fn get(&self) -> &Chunk {
        &self.chunk
    }

    /// To add a record at `now`.
    pub fn fill(&mut self, now: impl FnOnce() -> Instant) -> &mut Chunk {
        self.since.get_or_insert_with(now);
        &mut self.chunk
    }

    /// The topic that its records, and those of the chunks after it, belong to.
    pub fn set_topic_id(&mut self, topic_id: Option<&TopicId>) {
        self.chunk.topic_id = topic_id.cloned();
    }

    /// Takes the records. None if there are none.
    pub fn take(&mut self) -> Option<Chunk> {
        if self.chunk.is_empty() {
            return None;
        }
        self.since = None;
        let next = self.chunk.empty_like();
        Some(std::mem::replace(&mut self.chunk, next))
    }

    /// True if it has waited long enough, with this many chunks of its partition in flight. `linger` is how
    /// long the user wants every chunk to wait.
    pub fn is_due(&self, linger: Option<Duration>, in_flight: usize, now: Instant) -> bool {
        self.due_in(linger, in_flight, now) == Some(Duration::ZERO)
    }

    /// How long [`OpenChunk::is_due`] stays false for sure. None: until the next record.
    pub fn waits_for(&self, linger: Option<Duration>, in_flight: usize, now: Instant) -> Option<Duration> {
        let due = self.due_in(linger, in_flight, now)?;
        Some(if in_flight > 0 {
            due.min(COMPLETION_TICK)
        } else {
            due
        })
    }

    fn due_in(&self, linger: Option<Duration>, in_flight: usize, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since?);
        let linger = linger.unwrap_or(if in_flight > 0 { LINGER } else { Duration::ZERO });
        let limit = if in_flight < 2 {
            linger
        } else {
            linger + BUSY_LINGER
        };
        Some(limit.saturating_sub(waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(at: Instant) -> OpenChunk {
        let mut open = OpenChunk::new(TopicPartition::new("t", 0), 1);
        open.fill(|| at).push(0, 0, None, None, []);
        open
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_empty_chunk_is_never_due() {
        let mut open = OpenChunk::new(TopicPartition::new("t", 0), 1);
        let now = Instant::now();
        assert!(!open.is_due(None, 0, now) && open.waits_for(None, 0, now).is_none());
        assert!(open.take().is_none());
        let mut open = filled(now);
        assert_eq!(open.take().map(|chunk| chunk.len()), Some(1));
        assert!(open.take().is_none() && !open.is_due(None, 0, now + LINGER));
    }

    #[test]
    fn a_record_waits_only_while_its_partition_has_chunks_in_flight() {
        let start = Instant::now();
        let open = filled(start);
        assert!(open.is_due(None, 0, start));
        for (in_flight, limit) in [(1, LINGER), (2, LINGER + BUSY_LINGER), (9, LINGER + BUSY_LINGER)] {
            assert!(!open.is_due(None, in_flight, start + limit - millis(1)));
            assert!(open.is_due(None, in_flight, start + limit));
            assert_eq!(open.waits_for(None, in_flight, start), Some(COMPLETION_TICK));
            let last = start + limit - millis(1);
            assert_eq!(open.waits_for(None, in_flight, last), Some(millis(1)));
        }
    }

    #[test]
    fn with_a_linger_every_chunk_waits() {
        let start = Instant::now();
        let open = filled(start);
        let linger = Some(millis(200));
        for in_flight in [0, 1] {
            assert!(!open.is_due(linger, in_flight, start + millis(199)));
            assert!(open.is_due(linger, in_flight, start + millis(200)));
        }
        assert_eq!(open.waits_for(linger, 0, start + millis(50)), Some(millis(150)));
        assert!(open.is_due(Some(Duration::ZERO), 1, start));
        assert!(!open.is_due(Some(Duration::ZERO), 2, start));
    }
}
