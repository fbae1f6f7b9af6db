//! Fetch: for the times of records, where what follows the header of a batch is not read, and for the records of one
//! partition, as bytes. In and out: see [`Request`].

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
        let limits = (self.max_bytes, self.partition_max_bytes);
        write_fetch(out, false, limits, &self.topics);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let partition = |reader: &mut Reader<'_>| {
            let (index, error, _, records) = read_partition(reader)?;
            let batches = batches(records);
            Ok(FetchedPartition {
                index,
                error,
                batches,
            })
        };
        let (_, error, mut topics) = read_fetch(reader, partition)?;
        if !error.is_ok() {
            let partitions = topics.iter_mut().flat_map(|(_, partitions)| partitions);
            partitions.for_each(|partition| partition.error = error);
        }
        Ok(topics)
    }
}

/// Asks the leader of a partition for its committed records, which it returns at once or not at all.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FetchRecords {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Limit of the records in bytes. A longer first batch comes whole nevertheless.
    pub max_bytes: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FetchedRecords {
    /// THROTTLING_QUOTA_EXCEEDED: the quota of the user is used up, and the broker has sent nothing.
    pub error: ErrorCode,
    /// Milliseconds in which the broker reads no further request of this connection.
    pub throttle: i32,
    /// First offset that the broker still has; -1: unknown.
    pub log_start: i64,
    /// End of the committed records, as far as the broker knows them; -1: unknown.
    pub last_stable: i64,
    /// Producer and first offset of each aborted transaction that touches the records.
    pub aborted: Vec<(i64, i64)>,
    /// Whole batches, and the beginning of one more.
    pub records: Vec<u8>,
}

impl Request for FetchRecords {
    const KEY: i16 = Fetch::KEY;
    const NAME: &'static str = Fetch::NAME;
    const VERSIONS: &'static [i16] = Fetch::VERSIONS;
    const FLEXIBLE_FROM: i16 = Fetch::FLEXIBLE_FROM;
    type Answer = FetchedRecords;

    fn write(&self, _version: i16, out: &mut Writer) {
        let topics = [(self.topic.clone(), vec![(self.partition, self.offset)])];
        write_fetch(out, true, (self.max_bytes, self.max_bytes), &topics);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let partition = |reader: &mut Reader<'_>| {
            let (_, error, log, records) = read_partition(reader)?;
            Ok(FetchedRecords {
                error,
                throttle: 0,
                log_start: log.start,
                last_stable: log.last_stable,
                aborted: log.aborted,
                records: records.to_vec(),
            })
        };
        let (throttle, error, topics) = read_fetch(reader, partition)?;
        let nothing = |error| FetchedRecords {
            error,
            throttle,
            log_start: -1,
            last_stable: -1,
            aborted: Vec::new(),
            records: Vec::new(),
        };
        let only = topics.into_iter().flat_map(|(_, partitions)| partitions).next();
        match only {
            _ if !error.is_ok() => Ok(nothing(error)),
            Some(only) => Ok(FetchedRecords { throttle, ..only }),
            // Brokers that slow a client down answer at once and without partitions, and without an error.
            None if throttle > 0 => Ok(nothing(ErrorCode::THROTTLING_QUOTA_EXCEEDED)),
            None => Err(Malformed("the answer has no partition".into())),
        }
    }
}

/// The limits are those of the answer and of each partition, in bytes.
fn write_fetch(
    out: &mut Writer,
    read_committed: bool,
    (max_bytes, partition_max_bytes): (i32, i32),
    topics: &[Topic<(i32, i64)>],
) {
    let (replica, wait, min_bytes) = (-1, 0, 0);
    out.i32(replica);
    out.i32(wait);
    out.i32(min_bytes);
    out.i32(max_bytes);
    out.i8(read_committed.into());
    let (no_session, final_epoch) = (0, -1);
    out.i32(no_session);
    out.i32(final_epoch);
    write_topics(out, topics, |out, &(partition, offset)| {
        let (leader_epoch, log_start) = (-1, -1);
        out.i32(partition);
        out.i32(leader_epoch);
        out.i64(offset);
        out.i64(log_start);
        out.i32(partition_max_bytes);
    });
    let (forgotten, rack): (&[Topic<i32>], _) = (&[], "");
    write_topics(out, forgotten, |out, partition| out.i32(*partition));
    out.string(rack);
}

/// Throttle time in milliseconds, the error of the whole answer, and its partitions.
fn read_fetch<'a, T>(
    reader: &mut Reader<'a>,
    partition: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<(i32, ErrorCode, Vec<Topic<T>>), Malformed> {
    let throttle = reader.i32()?;
    let error = ErrorCode(reader.i16()?);
    let _session = reader.i32()?;
    Ok((throttle, error, read_topics(reader, partition)?))
}

/// What a broker says about the log of a partition.
struct Log {
    start: i64,
    last_stable: i64,
    aborted: Vec<(i64, i64)>,
}

/// Index, error, log, records.
type ReadPartition<'a> = (i32, ErrorCode, Log, &'a [u8]);

fn read_partition<'a>(reader: &mut Reader<'a>) -> Result<ReadPartition<'a>, Malformed> {
    let (index, error) = (reader.i32()?, ErrorCode(reader.i16()?));
    let _high_watermark = reader.i64()?;
    let (last_stable, start) = (reader.i64()?, reader.i64()?);
    let aborted = reader.nullable_array(|reader| Ok((reader.i64()?, reader.i64()?)))?;
    let _preferred_replica = reader.i32()?;
    let records = reader.nullable_bytes()?.unwrap_or_default();
    let log = Log {
        start,
        last_stable,
        aborted: aborted.unwrap_or_default(),
    };
    Ok((index, error, log, records))
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
