//! Offsets: of the log, and committed ones of consumer groups. In and out: see [`Request`]. Commits only as a
//! client outside of the group, which the coordinator accepts only while the group has no members.

use std::collections::BTreeMap;

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// A topic, and one entry for each of its partitions in a request or an answer.
pub(in crate::kafka) type Topic<T> = (String, Vec<T>);

/// Entries of partitions, each with its topic, as a request takes them.
pub(in crate::kafka) fn by_topic<'a, T>(entries: impl Iterator<Item = (&'a String, T)>) -> Vec<Topic<T>> {
    let mut topics: BTreeMap<&String, Vec<T>> = BTreeMap::new();
    for (topic, entry) in entries {
        topics.entry(topic).or_default().push(entry);
    }
    let owned = |(topic, entries): (&String, Vec<T>)| (topic.clone(), entries);
    topics.into_iter().map(owned).collect()
}

/// Asks the leader of partitions for offsets.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ListOffsets {
    /// The end is then that of the last completed transaction.
    pub read_committed: bool,
    /// Partition and timestamp in milliseconds; -1: the end of the log, -2: its start.
    pub topics: Vec<Topic<(i32, i64)>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ListedOffset {
    pub index: i32,
    pub error: ErrorCode,
    /// Timestamp of the record at the offset; -1: the start or the end was requested.
    pub timestamp: i64,
    /// -1: no record has this timestamp or a later one.
    pub offset: i64,
}

impl Request for ListOffsets {
    const KEY: i16 = 2;
    const NAME: &'static str = "ListOffsets";
    const VERSIONS: &'static [i16] = &[5];
    const FLEXIBLE_FROM: i16 = 6;
    type Answer = Vec<Topic<ListedOffset>>;

    fn write(&self, _version: i16, out: &mut Writer) {
        let replica = -1;
        out.i32(replica);
        out.i8(self.read_committed.into());
        write_topics(out, &self.topics, |out, &(partition, timestamp)| {
            let leader_epoch = -1;
            out.i32(partition);
            out.i32(leader_epoch);
            out.i64(timestamp);
        });
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        read_topics(reader, |reader| {
            let offset = ListedOffset {
                index: reader.i32()?,
                error: ErrorCode(reader.i16()?),
                timestamp: reader.i64()?,
                offset: reader.i64()?,
            };
            let _leader_epoch = reader.i32()?;
            Ok(offset)
        })
    }
}

/// Asks the coordinator for committed offsets: those of completed transactions, while others are open.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct OffsetFetch {
    /// Version 5 has room for the first one only, so the caller sends one at a time.
    pub groups: Vec<OffsetFetchGroup>,
    /// A partition with an offset in an open transaction is then answered with UNSTABLE_OFFSET_COMMIT. Version 5
    /// cannot request that.
    pub require_stable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct OffsetFetchGroup {
    pub group: String,
    /// Without topics, the answer has none.
    pub topics: Vec<Topic<i32>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FetchedOffsets {
    /// Empty in version 5, whose answer does not have it.
    pub group: String,
    pub error: ErrorCode,
    pub topics: Vec<Topic<FetchedOffset>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FetchedOffset {
    pub index: i32,
    /// -1: the group has committed no offset.
    pub offset: i64,
    /// What the commit says beside the offset; empty: nothing.
    pub metadata: String,
    pub error: ErrorCode,
}

/// The first version of OffsetFetch with several groups.
const FETCH_GROUPS_FROM: i16 = 8;

impl Request for OffsetFetch {
    const KEY: i16 = 9;
    const NAME: &'static str = "OffsetFetch";
    /// 8 has several groups (Kafka 3.0).
    const VERSIONS: &'static [i16] = &[5, FETCH_GROUPS_FROM];
    const FLEXIBLE_FROM: i16 = 6;
    type Answer = Vec<FetchedOffsets>;

    fn write(&self, version: i16, out: &mut Writer) {
        let write_partition = |out: &mut Writer, partition: &i32| out.i32(*partition);
        if version < FETCH_GROUPS_FROM {
            let first = self.groups.first();
            out.string(first.map_or("", |first| &first.group));
            write_topics(out, first.map_or(&[], |first| &first.topics), write_partition);
            return;
        }
        out.array(&self.groups, |out, group| {
            out.string(&group.group);
            write_topics(out, &group.topics, write_partition);
            out.end_of_struct();
        });
        out.bool(self.require_stable);
    }

    fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        if version < FETCH_GROUPS_FROM {
            let topics = read_topics(reader, fetched_offset)?;
            return Ok(vec![FetchedOffsets {
                group: String::new(),
                error: ErrorCode(reader.i16()?),
                topics,
            }]);
        }
        reader.array(|reader| {
            let group = reader.string()?;
            let topics = read_topics(reader, fetched_offset)?;
            let error = ErrorCode(reader.i16()?);
            reader.end_of_struct()?;
            Ok(FetchedOffsets { group, error, topics })
        })
    }
}

fn fetched_offset(reader: &mut Reader<'_>) -> Result<FetchedOffset, Malformed> {
    let index = reader.i32()?;
    let offset = reader.i64()?;
    let _leader_epoch = reader.i32()?;
    let metadata = reader.nullable_string()?.unwrap_or_default();
    let error = ErrorCode(reader.i16()?);
    reader.end_of_struct()?;
    Ok(FetchedOffset {
        index,
        offset,
        metadata,
        error,
    })
}

/// Commits offsets.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct OffsetCommit {
    pub group: String,
    /// Partition and offset.
    pub topics: Vec<Topic<(i32, i64)>>,
}

impl Request for OffsetCommit {
    const KEY: i16 = 8;
    const NAME: &'static str = "OffsetCommit";
    const VERSIONS: &'static [i16] = &[7];
    const FLEXIBLE_FROM: i16 = 8;
    type Answer = Vec<Topic<(i32, ErrorCode)>>;

    fn write(&self, _version: i16, out: &mut Writer) {
        let (no_generation, no_member, no_instance) = (-1, "", None);
        out.string(&self.group);
        out.i32(no_generation);
        out.string(no_member);
        out.nullable_string(no_instance);
        write_topics(out, &self.topics, |out, &(partition, offset)| {
            let (leader_epoch, metadata) = (-1, "");
            out.i32(partition);
            out.i64(offset);
            out.i32(leader_epoch);
            out.nullable_string(Some(metadata));
        });
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        read_topics(reader, |reader| Ok((reader.i32()?, ErrorCode(reader.i16()?))))
    }
}

pub(super) fn write_topics<T>(out: &mut Writer, topics: &[Topic<T>], mut entry: impl FnMut(&mut Writer, &T)) {
    out.array(topics, |out, (topic, entries)| {
        out.string(topic);
        out.array(entries, &mut entry);
        out.end_of_struct();
    });
}

pub(super) fn read_topics<'a, T>(
    reader: &mut Reader<'a>,
    mut entry: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<Topic<T>>, Malformed> {
    reader.array(|reader| {
        let topic = (reader.string()?, reader.array(&mut entry)?);
        reader.end_of_struct()?;
        Ok(topic)
    })
}
