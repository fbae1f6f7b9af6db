//! Consumer groups: their coordinator, state, members and assignments. In and out: see [`Request`]. Only
//! reads.

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Asks any broker for the coordinator of groups.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct FindCoordinator {
    /// Version 1 has room for the first one only, so the caller sends one at a time.
    pub groups: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct Coordinator {
    /// Empty in version 1, whose answer does not have it.
    pub group: String,
    pub error: ErrorCode,
    pub message: Option<String>,
    /// Id of the broker; -1 with an error.
    pub node: i32,
    pub host: String,
    pub port: i32,
}

/// The first version of FindCoordinator with several groups.
const FIND_GROUPS_FROM: i16 = 4;

impl Request for FindCoordinator {
    const KEY: i16 = 10;
    const NAME: &'static str = "FindCoordinator";
    /// 4 has several groups (Kafka 3.0).
    const VERSIONS: &'static [i16] = &[1, FIND_GROUPS_FROM];
    const FLEXIBLE_FROM: i16 = 3;
    type Answer = Vec<Coordinator>;

    fn write(&self, version: i16, out: &mut Writer) {
        let consumer_groups = 0;
        if version < FIND_GROUPS_FROM {
            out.string(self.groups.first().map_or("", |group| group));
            out.i8(consumer_groups);
        } else {
            out.i8(consumer_groups);
            out.array(&self.groups, |out, group| out.string(group));
        }
    }

    fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        if version >= FIND_GROUPS_FROM {
            return reader.array(coordinator);
        }
        Ok(vec![Coordinator {
            group: String::new(),
            error: ErrorCode(reader.i16()?),
            message: reader.nullable_string()?,
            node: reader.i32()?,
            host: reader.string()?,
            port: reader.i32()?,
        }])
    }
}

fn coordinator(reader: &mut Reader<'_>) -> Result<Coordinator, Malformed> {
    let group = reader.string()?;
    let node = reader.i32()?;
    let host = reader.string()?;
    let port = reader.i32()?;
    let error = ErrorCode(reader.i16()?);
    let message = reader.nullable_string()?;
    reader.end_of_struct()?;
    Ok(Coordinator {
        group,
        error,
        message,
        node,
        host,
        port,
    })
}

/// A group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct DescribedGroup {
    pub error: ErrorCode,
    /// None in the answer to [`DescribeGroups`], which has no messages.
    pub message: Option<String>,
    pub group: String,
    /// Dead if the coordinator of [`DescribeGroups`] does not know the group.
    pub state: String,
    /// [`CONSUMER`], another type such as "connect", or empty in an empty group.
    pub protocol_type: String,
    /// The assignor that the members, or the broker, use; empty during a rebalance.
    pub assignor: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// Topics and partitions; None: not readable, for example because the group is not one of consumers.
    pub assignment: Option<Vec<(String, Vec<i32>)>>,
}

/// [`DescribedGroup::protocol_type`] of consumers.
pub(in crate::kafka) const CONSUMER: &str = "consumer";

/// Asks the coordinator for groups whose members compute the assignment ("classic" protocol).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct DescribeGroups {
    pub groups: Vec<String>,
}

impl Request for DescribeGroups {
    const KEY: i16 = 15;
    const NAME: &'static str = "DescribeGroups";
    const VERSIONS: &'static [i16] = &[4];
    const FLEXIBLE_FROM: i16 = 5;
    type Answer = Vec<DescribedGroup>;

    fn write(&self, _version: i16, out: &mut Writer) {
        write_groups(&self.groups, out);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        reader.array(|reader| {
            let error = ErrorCode(reader.i16()?);
            let group = reader.string()?;
            let state = reader.string()?;
            let protocol_type = reader.string()?;
            let assignor = reader.string()?;
            let members = reader.array(|reader| classic_member(&protocol_type, reader))?;
            let _authorized_operations = reader.i32()?;
            Ok(DescribedGroup {
                error,
                message: None,
                group,
                state,
                protocol_type,
                assignor,
                members,
            })
        })
    }
}

fn classic_member(protocol_type: &str, reader: &mut Reader<'_>) -> Result<DescribedMember, Malformed> {
    let member_id = reader.string()?;
    let instance_id = reader.nullable_string()?;
    let client_id = reader.string()?;
    let host = reader.string()?;
    let _subscription = reader.bytes()?;
    let assignment = reader.bytes()?;
    Ok(DescribedMember {
        member_id,
        instance_id,
        client_id,
        host,
        assignment: match protocol_type {
            CONSUMER => classic_assignment(assignment).ok(),
            _ => None,
        },
    })
}

/// The assignment as a member of the group wrote it (ConsumerProtocolAssignment); empty during a rebalance.
/// Newer versions only append fields. The user data of the assignor follows and is ignored.
fn classic_assignment(bytes: &[u8]) -> Result<Vec<(String, Vec<i32>)>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes, false);
    match reader.i16()? {
        version @ ..0 => Err(Malformed(format!("an assignment has version {version}"))),
        _ => reader.array(|reader| Ok((reader.string()?, reader.array(Reader::i32)?))),
    }
}

/// Asks the coordinator for groups whose assignment it computes ("consumer" protocol, Kafka 3.7 or later).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ConsumerGroupDescribe {
    pub groups: Vec<String>,
}

impl Request for ConsumerGroupDescribe {
    const KEY: i16 = 69;
    const NAME: &'static str = "ConsumerGroupDescribe";
    const VERSIONS: &'static [i16] = &[0];
    const FLEXIBLE_FROM: i16 = 0;
    type Answer = Vec<DescribedGroup>;

    fn write(&self, _version: i16, out: &mut Writer) {
        write_groups(&self.groups, out);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        reader.array(|reader| {
            let error = ErrorCode(reader.i16()?);
            let message = reader.nullable_string()?;
            let group = reader.string()?;
            let state = reader.string()?;
            let _group_epoch = reader.i32()?;
            let _assignment_epoch = reader.i32()?;
            let assignor = reader.string()?;
            let members = reader.array(consumer_member)?;
            let _authorized_operations = reader.i32()?;
            reader.end_of_struct()?;
            Ok(DescribedGroup {
                error,
                message,
                group,
                state,
                protocol_type: CONSUMER.to_owned(),
                assignor,
                members,
            })
        })
    }
}

fn write_groups(groups: &[String], out: &mut Writer) {
    let authorized_operations = false;
    out.array(groups, |out, group| out.string(group));
    out.bool(authorized_operations);
}

fn consumer_member(reader: &mut Reader<'_>) -> Result<DescribedMember, Malformed> {
    let member_id = reader.string()?;
    let instance_id = reader.nullable_string()?;
    let _rack = reader.nullable_string()?;
    let _member_epoch = reader.i32()?;
    let client_id = reader.string()?;
    let host = reader.string()?;
    let _subscribed_topics = reader.array(Reader::string)?;
    let _subscribed_regex = reader.nullable_string()?;
    let assignment = consumer_assignment(reader)?;
    let _target_assignment = consumer_assignment(reader)?;
    reader.end_of_struct()?;
    Ok(DescribedMember {
        member_id,
        instance_id,
        client_id,
        host,
        assignment: Some(assignment),
    })
}

fn consumer_assignment(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<i32>)>, Malformed> {
    let assignment = reader.array(|reader| {
        let _topic_id = reader.uuid()?;
        let topic = (reader.string()?, reader.array(Reader::i32)?);
        reader.end_of_struct()?;
        Ok(topic)
    })?;
    reader.end_of_struct()?;
    Ok(assignment)
}
