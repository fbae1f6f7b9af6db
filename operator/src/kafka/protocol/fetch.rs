//! Fetch, for the times of records: what follows the header of a batch is not read. In and out: see
//! [`Request`].

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;
use super::offsets::{Topic, read_topics, write_topics};

/// Asks the leader of partitions for records, which it returns at once or not at all.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct Fetch {
    /// Limit of the answer in bytes. The first partition gets a whole batch nevertheless.
    pub max_bytes: i32,
    /// The same for each partition. One whose first batch is longer gets nothing.
    pub partition_max_bytes: i32,
    /// Partition and offset.
    pub topics: Vec<Topic<(i32, i64)>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FetchedPartition {
    pub index: i32,
    pub error: ErrorCode,
    /// Batches of format v2 whose header is complete, from the one that contains the requested offset.
    pub batches: Vec<Batch>,
}

/// The header of a batch of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct Batch {
    /// Offset of its last record.
    pub last_offset: i64,
    /// Time of its first record, in Unix milliseconds; negative: none.
    pub first_timestamp: i64,
    /// Markers of transactions instead of records.
    pub is_control: bool,
}

impl Request for Fetch {
    const KEY: i16 = 1;
    const NAME: &'static str = "Fetch";
    /// Later versions have topic ids instead of names.
    const VERSIONS: &'static [i16] = &[11];
    const FLEXIBLE_FROM: i16 = 12;
    type Answer = Vec<Topic<FetchedPartition>>;

    fn write(&self, _version: i16, out: &mut Writer) {
        let (replica, wait, min_bytes, read_uncommitted) = (-1, 0, 0, 0);
        out.i32(replica);
        out.i32(wait);
        out.i32(min_bytes);
        out.i32(self.max_bytes);
        out.i8(read_uncommitted);
        let (no_session, final_epoch) = (0, -1);
        out.i32(no_session);
        out.i32(final_epoch);
        write_topics(out, &self.topics, |out, &(partition, offset)| {
            let (leader_epoch, log_start) = (-1, -1);
            out.i32(partition);
            out.i32(leader_epoch);
            out.i64(offset);
            out.i64(log_start);
            out.i32(self.partition_max_bytes);
        });
        let (forgotten, rack): (&[Topic<i32>], _) = (&[], "");
        write_topics(out, forgotten, |out, partition| out.i32(*partition));
        out.string(rack);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        let error = ErrorCode(reader.i16()?);
        let _session = reader.i32()?;
        let mut topics = read_topics(reader, |reader| {
            let (index, error) = (reader.i32()?, ErrorCode(reader.i16()?));
            let _high_watermark = reader.i64()?;
            let _last_stable_offset = reader.i64()?;
            let _log_start = reader.i64()?;
            let _aborted = reader.nullable_array(|reader| {
                let _producer = reader.i64()?;
                reader.i64()
            })?;
            let _preferred_replica = reader.i32()?;
            let records = reader.nullable_bytes()?.unwrap_or_default();
            Ok(FetchedPartition {
                index,
                error,
                batches: batches(records),
            })
        })?;
        if !error.is_ok() {
            let partitions = topics.iter_mut().flat_map(|(_, partitions)| partitions);
            partitions.for_each(|partition| partition.error = error);
        }
        Ok(topics)
    }
}

/// Bytes before the length of a batch and the length itself.
const PREFIX: usize = 12;
/// Format v2, since Kafka 0.11.
const MAGIC: i8 = 2;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;

/// The headers up to the first batch that is cut off or has another format. Brokers cut the last batch.
fn batches(records: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut rest = records;
    while let Ok((batch, length)) = header(rest) {
        batches.push(batch);
        let Some(next) = rest.get(length..) else { break };
        rest = next;
    }
    batches
}

/// A header and the length of its batch in bytes.
fn header(bytes: &[u8]) -> Result<(Batch, usize), Malformed> {
    let mut reader = Reader::new(bytes, false);
    let base_offset = reader.i64()?;
    let length = reader.i32()?;
    let _leader_epoch = reader.i32()?;
    let magic = reader.i8()?;
    if magic != MAGIC {
        return Err(Malformed(format!(
            "batches of format {magic} have no such header"
        )));
    }
    let _checksum = reader.i32()?;
    let attributes = reader.i16()?;
    let last_offset_delta = reader.i32()?;
    let (first, last) = (reader.i64()?, reader.i64()?);
    let _producer = (reader.i64()?, reader.i16()?, reader.i32()?);
    let _count = reader.i32()?;
    let length = usize::try_from(length).map_err(|_| Malformed("a batch has a negative length".into()))?;
    let batch = Batch {
        last_offset: base_offset.saturating_add(last_offset_delta.into()),
        // With LogAppendTime, all records have the time of the append.
        first_timestamp: if attributes & LOG_APPEND_TIME == 0 {
            first
        } else {
            last
        },
        is_control: attributes & CONTROL != 0,
    };
    Ok((batch, length.saturating_add(PREFIX)))
}
