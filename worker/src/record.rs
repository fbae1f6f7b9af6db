//! Records as they were read: a [`Chunk`] holds a run of records of one partition in one arena, so that the hot path
//! allocates per chunk and never per record. Null keys, tombstones (null values), headers and timestamps are kept as
//! they are. No rdkafka types here.

pub mod batch;
pub mod failure;

use std::{fmt, sync::Arc};

/// A Kafka offset.
pub type Offset = i64;

/// A partition of a topic; the name is shared, so clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
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

/// Records of one partition in the order of their offsets.
#[derive(Debug)]
pub struct Chunk {
    /// Where the records come from.
    pub partition: TopicPartition,
    /// The assignment they were read under; completions of an older epoch are discarded.
    pub epoch: u64,
    /// Timestamps are the brokers' (`message.timestamp.type` LogAppendTime) and not the producers'. A setting of the
    /// topic, so one for the chunk.
    pub log_append_time: bool,
    arena: Vec<u8>,
    headers: Vec<(Span, Span)>,
    entries: Vec<RecordEntry>,
}

impl Chunk {
    /// An empty chunk.
    pub fn new(partition: TopicPartition, epoch: u64) -> Self {
        Self {
            partition,
            epoch,
            log_append_time: false,
            arena: Vec::new(),
            headers: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Copies a record in. `timestamp` is in milliseconds since 1970, -1 when there is none.
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

    /// An empty chunk of the same partition, with room for as much as is in this one.
    pub fn empty_like(&self) -> Self {
        Self {
            partition: self.partition.clone(),
            epoch: self.epoch,
            log_append_time: self.log_append_time,
            arena: Vec::with_capacity(self.arena.len()),
            headers: Vec::with_capacity(self.headers.len()),
            entries: Vec::with_capacity(self.entries.len()),
        }
    }

    /// The offsets of the records.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = Offset> {
        self.entries.iter().map(|entry| entry.offset)
    }

    /// A chunk of nothing but the record at `index`.
    pub fn single(&self, index: usize) -> Chunk {
        self.select(&[index])
    }

    /// A chunk of the records at these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Chunk {
        let mut chunk = Chunk::new(self.partition.clone(), self.epoch);
        chunk.log_append_time = self.log_append_time;
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

    /// True when it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The record at `index`, which must be below [`Chunk::len`].
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

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.record(index))
    }
}

/// One record, borrowed from its chunk.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    chunk: &'a Chunk,
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970, -1 when there is none.
    pub timestamp: i64,
    /// Its key; None is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Its value; None is Kafka's null, a tombstone.
    pub value: Option<&'a [u8]>,
    headers: (u32, u32),
}

impl<'a> Record<'a> {
    /// Topic and partition it was read from.
    pub fn partition(&self) -> &'a TopicPartition {
        &self.chunk.partition
    }

    /// True when the timestamp is the broker's and not the producer's.
    pub fn log_append_time(&self) -> bool {
        self.chunk.log_append_time
    }

    /// Headers in order, names may repeat; a None value is Kafka's null.
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
    /// Where the record is, never what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_gives_back_nulls_headers_and_bytes_as_they_were() {
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
