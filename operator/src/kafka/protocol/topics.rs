//! Changes of topics: creation and more partitions. In and out: see [`Request`]. Never deletes a topic and
//! never assigns replicas to brokers.

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Asks the controller to create topics.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct CreateTopics {
    pub topics: Vec<NewTopic>,
    /// How long the broker waits for the creation before it answers REQUEST_TIMED_OUT.
    pub timeout_milliseconds: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct NewTopic {
    pub name: String,
    /// -1: the broker's default.
    pub partitions: i32,
    /// -1: the broker's default.
    pub replication_factor: i16,
    /// Names and values.
    pub configs: Vec<(String, String)>,
}

/// What happened to one topic.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct TopicResult {
    pub topic: String,
    pub error: ErrorCode,
    pub message: Option<String>,
}

impl Request for CreateTopics {
    const KEY: i16 = 19;
    const NAME: &'static str = "CreateTopics";
    /// The first version in which -1 stands for the broker's default.
    const VERSIONS: &'static [i16] = &[4];
    const FLEXIBLE_FROM: i16 = 5;
    type Answer = Vec<TopicResult>;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.array(&self.topics, |out, topic| {
            let replica_assignments: [(); 0] = [];
            out.string(&topic.name);
            out.i32(topic.partitions);
            out.i16(topic.replication_factor);
            out.array(&replica_assignments, |_, ()| ());
            out.array(&topic.configs, |out, (name, value)| {
                out.string(name);
                out.nullable_string(Some(value));
            });
        });
        write_end(self.timeout_milliseconds, out);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        read_results(reader)
    }
}

/// Asks the controller to add partitions to topics.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct CreatePartitions {
    /// Topics and the number of partitions that they have afterwards.
    pub topics: Vec<(String, i32)>,
    /// How long the broker waits for the change before it answers REQUEST_TIMED_OUT.
    pub timeout_milliseconds: i32,
}

impl Request for CreatePartitions {
    const KEY: i16 = 37;
    const NAME: &'static str = "CreatePartitions";
    const VERSIONS: &'static [i16] = &[1];
    const FLEXIBLE_FROM: i16 = 2;
    type Answer = Vec<TopicResult>;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.array(&self.topics, |out, (topic, count)| {
            out.string(topic);
            out.i32(*count);
            // No assignments of replicas: the broker chooses.
            out.null_array();
        });
        write_end(self.timeout_milliseconds, out);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        read_results(reader)
    }
}

fn write_end(timeout_milliseconds: i32, out: &mut Writer) {
    let validate_only = false;
    out.i32(timeout_milliseconds);
    out.bool(validate_only);
}

fn read_results(reader: &mut Reader<'_>) -> Result<Vec<TopicResult>, Malformed> {
    let _throttle_time = reader.i32()?;
    reader.array(|reader| {
        Ok(TopicResult {
            topic: reader.string()?,
            error: ErrorCode(reader.i16()?),
            message: reader.nullable_string()?,
        })
    })
}
