//! The identity of a topic: one that is deleted and created again has the same name and another id.

use std::{fmt, sync::Arc};

/// The id of a topic and a checksum of the id of its cluster, as text: `ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2`. A
/// mirrored topic has the same name in another cluster, and is no topic that was created again. Clones share
/// the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(Arc<str>);

/// Number of characters of the topic's id: 16 bytes in base64.
const ID: usize = 22;
/// Number of hexadecimal digits of the checksum.
const CLUSTER: usize = 8;

impl TopicId {
    /// Number of characters of the text.
    pub const LENGTH: usize = ID + 1 + CLUSTER;

    /// The topic with this id, in either alphabet of base64, of the cluster with that id. None: `id` is none.
    pub fn new(id: &str, cluster: &str) -> Option<Self> {
        let id = id.replace('+', "-").replace('/', "_");
        Self::parse(&format!("{id}.{:08x}", checksum(cluster.as_bytes())))
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, cluster) = text.split_once('.')?;
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let valid = id.len() == ID
            && id.bytes().all(is_base64)
            && cluster.len() == CLUSTER
            && cluster.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the topic alone, as Kafka prints it.
    pub fn topic(&self) -> &str {
        &self.0[..ID]
    }

    /// True if both topics are in the same cluster.
    pub fn shares_cluster(&self, other: &TopicId) -> bool {
        self.0[ID..] == other.0[ID..]
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a, 32 bits. Part of what is stored: it must never change.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_topic_and_a_checksum_of_the_cluster() {
        let id = TopicId::new("ZD6b+7i9QUO1dW/byS9QNg", "a").unwrap();
        // The checksum of "a" is a published test vector of FNV-1a.
        assert_eq!(id.as_str(), "ZD6b-7i9QUO1dW_byS9QNg.e40c292c");
        assert_eq!(id.as_str().len(), TopicId::LENGTH);
        assert_eq!(id.topic(), "ZD6b-7i9QUO1dW_byS9QNg");
        assert_eq!(TopicId::parse(id.as_str()), Some(id.clone()));
        let other = TopicId::new("pSwp9nH_SBuNVFtWXg-ZcA", "a").unwrap();
        let elsewhere = TopicId::new("ZD6b+7i9QUO1dW/byS9QNg", "b").unwrap();
        assert!(id.shares_cluster(&other) && id != other);
        assert!(!id.shares_cluster(&elsewhere) && id != elsewhere);
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "ZD6b-7i9QUO1dW_byS9QNg",
            "ZD6b-7i9QUO1dW_byS9QN.e40c292c",
            "ZD6b-7i9QUO1dW_byS9QNg.e40c292",
            "ZD6b-7i9QUO1dW_byS9QNg.e40c292z",
            "ZD6b 7i9QUO1dW_byS9QNg.e40c292c",
        ] {
            assert_eq!(TopicId::parse(text), None, "{text}");
        }
        assert_eq!(TopicId::new("short", "a"), None);
    }
}
