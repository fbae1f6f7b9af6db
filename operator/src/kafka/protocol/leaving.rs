//! Takes a member out of its group, for each group protocol. In and out: see [`Request`]. Decides nothing:
//! the caller says which member.

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Takes members out of a group whose members compute the assignment ("classic" protocol), as if they left.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct LeaveGroup {
    pub group: String,
    pub members: Vec<String>,
    /// For the broker's log; versions before 5 do not have it.
    pub reason: String,
}

/// The answer to [`LeaveGroup`].
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct Left {
    /// Concerns the whole request.
    pub error: ErrorCode,
    /// Each member id with its own error.
    pub members: Vec<(String, ErrorCode)>,
}

/// The first version of LeaveGroup with a reason.
const REASON_FROM: i16 = 5;

impl Request for LeaveGroup {
    const KEY: i16 = 13;
    const NAME: &'static str = "LeaveGroup";
    /// 3 has several members (Kafka 2.4), 5 the reason (Kafka 3.2).
    const VERSIONS: &'static [i16] = &[3, REASON_FROM];
    const FLEXIBLE_FROM: i16 = 4;
    type Answer = Left;

    fn write(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        out.array(&self.members, |out, member| {
            let instance_id = None;
            out.string(member);
            out.nullable_string(instance_id);
            if version >= REASON_FROM {
                out.string(&self.reason);
            }
            out.end_of_struct();
        });
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        let error = ErrorCode(reader.i16()?);
        let members = reader.array(|reader| {
            let member = reader.string()?;
            let _instance_id = reader.nullable_string()?;
            let error = ErrorCode(reader.i16()?);
            reader.end_of_struct()?;
            Ok((member, error))
        })?;
        Ok(Left { error, members })
    }
}

/// The last heartbeat of a member of a group whose assignment the broker computes ("consumer" protocol):
/// takes it out of the group. The only kind of this request that the operator sends.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct LeavingHeartbeat {
    pub group: String,
    pub member: String,
}

/// The answer to [`LeavingHeartbeat`].
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct HeartbeatAnswer {
    pub error: ErrorCode,
    pub message: Option<String>,
}

impl Request for LeavingHeartbeat {
    const KEY: i16 = 68;
    const NAME: &'static str = "ConsumerGroupHeartbeat";
    const VERSIONS: &'static [i16] = &[0];
    const FLEXIBLE_FROM: i16 = 0;
    type Answer = HeartbeatAnswer;

    fn write(&self, _version: i16, out: &mut Writer) {
        let leaves = -1;
        let unchanged = -1;
        out.string(&self.group);
        out.string(&self.member);
        out.i32(leaves);
        // Instance id and rack.
        out.nullable_string(None);
        out.nullable_string(None);
        // Rebalance timeout.
        out.i32(unchanged);
        // Subscribed topics.
        out.null_array();
        // Assignor.
        out.nullable_string(None);
        // Owned partitions.
        out.null_array();
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        let error = ErrorCode(reader.i16()?);
        let message = reader.nullable_string()?;
        let _member_id = reader.nullable_string()?;
        let _member_epoch = reader.i32()?;
        let _heartbeat_interval = reader.i32()?;
        // Null for a member that leaves.
        if reader.i8()? >= 0 {
            skip_assignment(reader)?;
        }
        Ok(HeartbeatAnswer { error, message })
    }
}

fn skip_assignment(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let _topics = reader.array(|reader| {
        let _topic_id = reader.uuid()?;
        let _partitions = reader.array(Reader::i32)?;
        reader.end_of_struct()
    })?;
    reader.end_of_struct()
}
