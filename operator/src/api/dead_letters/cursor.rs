//! Where the next page of dead letters begins, as a text. In: a topic, its id, the partition that is read first, an
//! offset per partition. Out: the cursor, and back. A cursor of another topic, or one that was changed, is refused. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Longest cursor: the first line and headers of a request have 32 KiB.
const LONGEST: usize = 16 * 1024;

/// Version of the format.
const VERSION: &str = "2/";

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// None: the brokers have no topic ids.
    pub topic_id: Option<String>,
    /// The partition that is read first.
    pub begin: i32,
    /// Records below these offsets.
    pub below: BTreeMap<i32, i64>,
}

impl Cursor {
    /// None: it would be too long.
    pub fn write(&self, topic: &str) -> Option<String> {
        let offsets: Vec<String> = (self.below.iter())
            .map(|(partition, offset)| format!("{partition}:{offset}"))
            .collect();
        let (id, begin) = (self.topic_id.as_deref().unwrap_or_default(), self.begin);
        let text = format!("{VERSION}{topic}/{id}/{begin}/{}", offsets.join(","));
        let text = BASE64_URL_SAFE_NO_PAD.encode(text);
        (text.len() <= LONGEST).then_some(text)
    }

    /// The cursor of a text, or what is wrong with it.
    pub fn read(text: &str, topic: &str) -> Result<Self, String> {
        let invalid = || "it is not a nextCursor of this route".to_string();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let parts: Option<Vec<&str>> = text.strip_prefix(VERSION).map(|rest| rest.split('/').collect());
        let Some([of, id, begin, offsets]) = parts.as_deref() else {
            return Err(invalid());
        };
        if *of != topic {
            return Err(format!("it belongs to another topic than {topic}"));
        }
        let pair = |pair: &str| {
            let (partition, offset) = pair.split_once(':')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some((partition, offset))
        };
        let below: Option<BTreeMap<i32, i64>> = offsets.split(',').map(pair).collect();
        Ok(Self {
            topic_id: Some(id.to_string()).filter(|id| !id.is_empty()),
            begin: begin.parse().map_err(|_| invalid())?,
            below: below.ok_or_else(invalid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back(
            topic in "[a-zA-Z0-9._-]{1,30}",
            topic_id in proptest::option::of("[a-zA-Z0-9_-]{22}"),
            begin in 0..=i32::MAX,
            below in proptest::collection::btree_map(0..i32::MAX, 0..i64::MAX, 1..40),
        ) {
            let cursor = Cursor { topic_id, begin, below };
            let text = cursor.write(&topic).unwrap();
            prop_assert_eq!(Cursor::read(&text, &topic), Ok(cursor));
            prop_assert!(Cursor::read(&text, "another topic").is_err());
        }

        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,60}", topic in "[a-z]{1,3}") {
            let _ = Cursor::read(&text, &topic);
            for before in ["", "/0/", "//", "/x/"] {
                let encoded = BASE64_URL_SAFE_NO_PAD.encode(format!("2/{topic}{before}{text}"));
                let _ = Cursor::read(&encoded, &topic);
            }
        }
    }

    #[test]
    fn a_cursor_of_too_many_partitions_is_none() {
        let below = (0..10_000).map(|partition| (partition, 1)).collect();
        let cursor = Cursor {
            below,
            ..Cursor::default()
        };
        assert_eq!(cursor.write("orders.dlq"), None);
    }
}
