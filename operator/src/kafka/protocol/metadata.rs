//! Metadata: the brokers of the cluster, and topics with the leaders of their partitions. In and out: see
//! [`Request`]. Never asks for all topics and never lets the broker create one.

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// The first version with topic ids.
const TOPIC_IDS_FROM: i16 = 10;

/// Asks for the brokers and for these topics.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct Metadata {
    /// Empty: only the brokers.
    pub topics: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct MetadataAnswer {
    pub brokers: Vec<BrokerMetadata>,
    pub cluster_id: Option<String>,
    /// A broker that accepts changes of topics; -1: unknown.
    pub controller: i32,
    /// One entry for each requested topic.
    pub topics: Vec<TopicMetadata>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct BrokerMetadata {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct TopicMetadata {
    pub error: ErrorCode,
    pub name: String,
    /// None: the version of the answer or of the broker has no topic ids, or the topic does not exist.
    pub id: Option<TopicId>,
    pub partitions: Vec<PartitionMetadata>,
}

/// Differs between a topic and a later one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kafka) struct TopicId(pub [u8; 16]);

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct PartitionMetadata {
    pub error: ErrorCode,
    pub index: i32,
    /// -1: no leader.
    pub leader: i32,
    /// -1: unknown.
    pub leader_epoch: i32,
}

impl Request for Metadata {
    const KEY: i16 = 3;
    const NAME: &'static str = "Metadata";
    /// 12 has topic ids (Kafka 3.1), and 9 is the newest version of Kafka 2.4.
    const VERSIONS: &'static [i16] = &[9, 12];
    const FLEXIBLE_FROM: i16 = 9;
    type Answer = MetadataAnswer;

    fn write(&self, version: i16, out: &mut Writer) {
        out.array(&self.topics, |out, topic| {
            if version >= TOPIC_IDS_FROM {
                out.uuid([0; 16]);
            }
            out.nullable_string(Some(topic));
            out.end_of_struct();
        });
        let create_missing_topics = false;
        let authorized_operations = false;
        out.bool(create_missing_topics);
        if has_cluster_operations(version) {
            out.bool(authorized_operations);
        }
        out.bool(authorized_operations);
    }

    fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        let answer = MetadataAnswer {
            brokers: reader.array(broker)?,
            cluster_id: reader.nullable_string()?,
            controller: reader.i32()?,
            topics: reader.array(|reader| topic(version, reader))?,
        };
        if has_cluster_operations(version) {
            reader.i32()?;
        }
        Ok(answer)
    }
}

/// Versions 8 to 10 have the authorized operations of the cluster in the request and in the answer.
fn has_cluster_operations(version: i16) -> bool {
    (8..=10).contains(&version)
}

fn broker(reader: &mut Reader<'_>) -> Result<BrokerMetadata, Malformed> {
    let broker = BrokerMetadata {
        id: reader.i32()?,
        host: reader.string()?,
        port: reader.i32()?,
        rack: reader.nullable_string()?,
    };
    reader.end_of_struct()?;
    Ok(broker)
}

fn topic(version: i16, reader: &mut Reader<'_>) -> Result<TopicMetadata, Malformed> {
    let error = ErrorCode(reader.i16()?);
    // Null only for topics that were requested by id.
    let name = reader.string()?;
    let id = match version >= TOPIC_IDS_FROM {
        true => Some(reader.uuid()?).filter(|id| *id != [0; 16]).map(TopicId),
        false => None,
    };
    let _is_internal = reader.bool()?;
    let partitions = reader.array(partition)?;
    let _authorized_operations = reader.i32()?;
    reader.end_of_struct()?;
    Ok(TopicMetadata {
        error,
        name,
        id,
        partitions,
    })
}

fn partition(reader: &mut Reader<'_>) -> Result<PartitionMetadata, Malformed> {
    let partition = PartitionMetadata {
        error: ErrorCode(reader.i16()?),
        index: reader.i32()?,
        leader: reader.i32()?,
        leader_epoch: reader.i32()?,
    };
    let _replicas = reader.array(Reader::i32)?;
    let _in_sync_replicas = reader.array(Reader::i32)?;
    let _offline_replicas = reader.array(Reader::i32)?;
    reader.end_of_struct()?;
    Ok(partition)
}
