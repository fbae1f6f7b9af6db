//! Where the next page of dead letters begins, as a text. In: a topic and an offset per partition. Out: the cursor,
//! and back. A cursor of another topic, or one that was changed, is refused. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Longest cursor: the first line and headers of a request have 32 KiB.
const LONGEST: usize = 16 * 1024;

/// None: it would be too long.
pub fn cursor(topic: &str, below: &BTreeMap<i32, i64>) -> Option<String> {
    let offsets: Vec<String> = below
        .iter()
        .map(|(partition, offset)| format!("{partition}:{offset}"))
        .collect();
    let text = BASE64_URL_SAFE_NO_PAD.encode(format!("1/{topic}/{}", offsets.join(",")));
    (text.len() <= LONGEST).then_some(text)
}

/// The offsets of a cursor, or what is wrong with it.
pub fn offsets(cursor: &str, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
    let invalid = || "it is not a nextCursor of this route".to_string();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (of, offsets) = text
        .strip_prefix("1/")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(invalid)?;
    if of != topic {
        return Err(format!("it belongs to another topic than {topic}"));
    }
    let pair = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
        (partition >= 0 && offset >= 0).then_some((partition, offset))
    };
    let offsets: Option<BTreeMap<i32, i64>> = offsets.split(',').map(pair).collect();
    offsets.ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back(
            topic in "[a-zA-Z0-9._-]{1,30}",
            below in proptest::collection::btree_map(0..i32::MAX, 0..i64::MAX, 1..40),
        ) {
            let text = cursor(&topic, &below).unwrap();
            prop_assert_eq!(offsets(&text, &topic), Ok(below));
            prop_assert!(offsets(&text, "another topic").is_err());
        }

        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,60}", topic in "[a-z]{1,3}") {
            let _ = offsets(&text, &topic);
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(format!("1/{topic}/{text}"));
            let _ = offsets(&encoded, &topic);
        }
    }

    #[test]
    fn a_cursor_of_too_many_partitions_is_none() {
        let below = (0..10_000).map(|partition| (partition, 1)).collect();
        assert_eq!(cursor("orders.dlq", &below), None);
    }
}
