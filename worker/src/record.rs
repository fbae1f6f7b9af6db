//! Records as they were read. A [`Chunk`] holds consecutive records of one partition in one arena, so that
//! the hot path allocates per chunk and never per record. It preserves null keys, tombstones (null values),
//! headers and timestamps. This module uses no rdkafka types.

pub mod batch;
pub mod failure;
pub mod topic_id;

use std::{fmt, sync::Arc};

use self::topic_id::TopicId;

/// A Kafka offset.
pub type Offset = i64;

/// A partition of a topic, shown as `topic-partition`. Clones share the topic name, so they are cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Bytes in an arena, or null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    pub(crate) const NULL: Span = Span {
        start: u32::MAX,
        len: 0,
    };

    /// Copies `bytes` to the end of the arena.
    pub(crate) fn store(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
        let start = arena.len() as u32;
        arena.extend_from_slice(bytes);
        Span {
            start,
            len: bytes.len() as u32,
        }
    }

    pub(crate) fn store_option(arena: &mut Vec<u8>, bytes: Option<&[u8]>) -> Span {
        bytes.map_or(Span::NULL, |bytes| Span::store(arena, bytes))
    }

    pub(crate) fn load(self, arena: &[u8]) -> Option<&[u8]> {
        (self != Span::NULL).then(|| &arena[self.start as usize..(self.start + self.len) as usize])
    }
}

#[derive(Clone, Copy, Debug)]
struct RecordEntry {
    offset: Offset,
    timestamp: i64,
    key: Span,
    value: Span,
    headers: (u32, u32),
}

/// Consecutive records of one partition, in the order of their offsets. Offsets may have gaps, because of
/// compaction and transaction markers.
///
/// Keys, values and headers are stored in one buffer; [`Chunk::record`] borrows from it.
///
/// ```
/// use kafka_consumer_worker::{Chunk, record::TopicPartition};
///
/// let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
/// chunk.push(42, 1_700_000_000_000, Some(b"key"), Some(b"value"), []);
/// chunk.push(44, -1, None, None, [(b"trace".as_slice(), Some(b"a1".as_slice()))]);
/// assert_eq!((chunk.len(), chunk.bytes()), (2, 15));
/// assert_eq!(chunk.record(0).value, Some(b"value".as_slice()));
/// assert_eq!(chunk.record(1).headers().len(), 1);
/// ```
#[derive(Debug)]
pub struct Chunk {
    /// The partition that the records were read from.
    pub partition: TopicPartition,
    /// Number of the partition's task that the records were read for. A partition has a new task, with a
    /// larger number, after each assignment and after an aborted transaction.
    pub task_epoch: u64,
    /// True if the broker set the timestamps (`message.timestamp.type` is LogAppendTime), false if the
    /// producers did. It is a setting of the topic, so all records of a chunk have the same.
    pub log_append_time: bool,
    /// The topic that the records were read from, if the brokers have topic ids.
    pub(crate) topic_id: Option<TopicId>,
    arena: Vec<u8>,
    headers: Vec<(Span, Span)>,
    entries: Vec<RecordEntry>,
}

impl Chunk {
    /// An empty chunk of `partition`, read for the task with this epoch.
    pub fn new(partition: TopicPartition, task_epoch: u64) -> Self {
        Self {
            partition,
            task_epoch,
            log_append_time: false,
            topic_id: None,
            arena: Vec::new(),
            headers: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Appends a copy of a record. Offsets must ascend. `timestamp` is in milliseconds since 1970, -1 if the
    /// record has none. None as `key`, as `value` or as the value of a header is Kafka's null, which is not
    /// the same as empty bytes. A chunk must not hold more than 4 GiB of keys, values and headers.
    pub fn push<'h>(
        &mut self,
        offset: Offset,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let first_header = self.headers.len() as u32;
        for (name, value) in headers {
            let name = Span::store(&mut self.arena, name);
            let value = Span::store_option(&mut self.arena, value);
            self.headers.push((name, value));
        }
        let entry = RecordEntry {
            offset,
            timestamp,
            key: Span::store_option(&mut self.arena, key),
            value: Span::store_option(&mut self.arena, value),
            headers: (first_header, self.headers.len() as u32),
        };
        self.entries.push(entry);
    }

    /// An empty chunk of the same partition and task, with the capacity for as many records and bytes
    /// as this one holds.
    pub fn empty_like(&self) -> Self {
        Self {
            partition: self.partition.clone(),
            task_epoch: self.task_epoch,
            log_append_time: self.log_append_time,
            topic_id: self.topic_id.clone(),
            arena: Vec::with_capacity(self.arena.len()),
            headers: Vec::with_capacity(self.headers.len()),
            entries: Vec::with_capacity(self.entries.len()),
        }
    }

    /// The offsets of the records, ascending.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = Offset> {
        self.entries.iter().map(|entry| entry.offset)
    }

    /// A copy that holds only the record at `index`. Panics if `index` is not below [`Chunk::len`].
    pub fn single(&self, index: usize) -> Chunk {
        self.select(&[index])
    }

    /// A copy that holds the records at these indices, in this order. Panics if an index is not below
    /// [`Chunk::len`].
    pub fn select(&self, indices: &[usize]) -> Chunk {
        let mut chunk = Chunk::new(self.partition.clone(), self.task_epoch);
        chunk.log_append_time = self.log_append_time;
        chunk.topic_id.clone_from(&self.topic_id);
        for record in indices.iter().map(|index| self.record(*index)) {
            chunk.push(
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                record.headers(),
            );
        }
        chunk
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if the chunk holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Total size of keys, values, header names and header values, in bytes.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The record at `index`. Panics if `index` is not below [`Chunk::len`].
    pub fn record(&self, index: usize) -> Record<'_> {
        let entry = &self.entries[index];
        Record {
            chunk: self,
            offset: entry.offset,
            timestamp: entry.timestamp,
            key: entry.key.load(&self.arena),
            value: entry.value.load(&self.arena),
            headers: entry.headers,
        }
    }

    /// All records, in the order of their offsets.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.record(index))
    }
}

/// A record as it was read, borrowed from its [`Chunk`]. Its `Debug` output shows partition and offset, never
/// the payload.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    chunk: &'a Chunk,
    /// Offset of the record in its partition.
    pub offset: Offset,
    /// Timestamp in milliseconds since 1970, -1 if the record has none.
    pub timestamp: i64,
    /// Key of the record; None is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Value of the record; None is Kafka's null, a tombstone.
    pub value: Option<&'a [u8]>,
    headers: (u32, u32),
}

impl<'a> Record<'a> {
    /// Topic and partition that the record was read from.
    pub fn partition(&self) -> &'a TopicPartition {
        &self.chunk.partition
    }

    /// True if the broker set the timestamp, false if the producer did.
    pub fn log_append_time(&self) -> bool {
        self.chunk.log_append_time
    }

    /// Names and values of the headers, in the order of the record. Names may repeat; None as a value is
    /// Kafka's null. The iterator is empty if the worker does not read headers, because no transform, no
    /// writer and no dead letter topic needs them.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let chunk = self.chunk;
        chunk.headers[self.headers.0 as usize..self.headers.1 as usize]
            .iter()
            .map(|(name, value)| {
                (
                    name.load(&chunk.arena).unwrap_or_default(),
                    value.load(&chunk.arena),
                )
            })
    }
}

impl fmt::Debug for Record<'_> {
    /// Shows where the record is, never its payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_preserves_nulls_headers_and_bytes() {
        let mut chunk = Chunk::new(TopicPartition::new("t", 3), 1);
        chunk.push(
            7,
            99,
            None,
            Some(b"v"),
            [(b"h".as_slice(), Some(b"1".as_slice())), (b"h", None)],
        );
        chunk.push(9, -1, Some(b""), None, []);
        chunk.push(
            10,
            5,
            Some(b"k"),
            Some(&[0xff, 0]),
            [(b"x".as_slice(), Some(b"".as_slice()))],
        );

        let first = chunk.record(0);
        assert_eq!(
            (first.offset, first.timestamp, first.key, first.value),
            (7, 99, None, Some(b"v".as_slice()))
        );
        assert_eq!(
            first.headers().collect::<Vec<_>>(),
            [(b"h".as_slice(), Some(b"1".as_slice())), (b"h", None)]
        );
        let second = chunk.record(1);
        assert_eq!(
            (second.key, second.value, second.headers().len()),
            (Some(b"".as_slice()), None, 0)
        );
        let third = chunk.record(2);
        assert_eq!(third.value, Some([0xff, 0].as_slice()));
        assert_eq!(
            third.headers().next(),
            Some((b"x".as_slice(), Some(b"".as_slice())))
        );
        assert_eq!(format!("{third:?}"), "t-3@10");
    }
}
