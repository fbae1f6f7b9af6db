//! Configuration of topics: reading it. In and out: see [`Request`].

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Asks any broker for the configuration of topics.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct DescribeConfigs {
    pub topics: Vec<String>,
    /// Names of the entries to return.
    pub names: Vec<String>,
}

/// The configuration of one topic.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct TopicConfig {
    pub topic: String,
    pub error: ErrorCode,
    pub entries: Vec<ConfigEntry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ConfigEntry {
    pub name: String,
    /// None: secret, or not set.
    pub value: Option<String>,
    /// True if the topic sets it; false if it is the broker's.
    pub of_topic: bool,
}

/// "Resource type" of a topic.
const TOPIC: i8 = 2;
/// "Config source" of an entry that the topic sets.
const SET_BY_TOPIC: i8 = 1;

impl Request for DescribeConfigs {
    const KEY: i16 = 32;
    const NAME: &'static str = "DescribeConfigs";
    /// The only version before the flexible ones that Kafka 4 accepts and that names sources.
    const VERSIONS: &'static [i16] = &[1];
    const FLEXIBLE_FROM: i16 = 4;
    type Answer = Vec<TopicConfig>;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.array(&self.topics, |out, topic| {
            out.i8(TOPIC);
            out.string(topic);
            out.array(&self.names, |out, name| out.string(name));
        });
        let include_synonyms = false;
        out.bool(include_synonyms);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        reader.array(|reader| {
            let error = ErrorCode(reader.i16()?);
            let _message = reader.nullable_string()?;
            let _resource_type = reader.i8()?;
            Ok(TopicConfig {
                topic: reader.string()?,
                error,
                entries: reader.array(entry)?,
            })
        })
    }
}

fn entry(reader: &mut Reader<'_>) -> Result<ConfigEntry, Malformed> {
    let name = reader.string()?;
    let value = reader.nullable_string()?;
    let _read_only = reader.bool()?;
    let source = reader.i8()?;
    let _sensitive = reader.bool()?;
    reader.array(|reader| {
        let _synonym = (reader.string()?, reader.nullable_string()?, reader.i8()?);
        Ok(())
    })?;
    Ok(ConfigEntry {
        name,
        value,
        of_topic: source == SET_BY_TOPIC,
    })
}
