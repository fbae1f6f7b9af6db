//! Records to produce, in the worker's form and in librdkafka's. Pure.

use std::collections::HashSet;

use rdkafka::{
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};

/// A record to produce, borrowed. Headers keep their order, may repeat, and may have null values.
#[derive(Clone, Debug, Default)]
pub struct ProduceRecord<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; `None` leaves it to the hash of the key, as in the Java client.
    pub partition: Option<i32>,
    /// Milliseconds since 1970, see [`timestamp_of`]; `None` means now.
    pub timestamp: Option<i64>,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Header names and values.
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// What to produce as the timestamp of a record that was read with `timestamp`: the same, and the present for
/// -1, which means that the record has none. Clients refuse to write other negative timestamps.
///
/// librdkafka takes 0 for "now", in every call that produces, so 1970-01-01T00:00:00.000Z becomes the next
/// millisecond.
pub fn timestamp_of(timestamp: i64) -> Option<i64> {
    (timestamp >= 0).then_some(timestamp.max(1))
}

/// The positions of `suspects` and of later records with the same topic and key, in order.
pub(super) fn with_later_records_of_their_keys(
    records: &[ProduceRecord<'_>],
    suspects: &[usize],
) -> Vec<usize> {
    let mut keys: HashSet<(&str, &[u8])> = HashSet::new();
    let mut next = suspects.iter().peekable();
    (0..records.len())
        .filter(|position| {
            let record = &records[*position];
            let key = record.key.map(|key| (record.topic, key));
            let suspect = next.next_if_eq(&position).is_some();
            if suspect {
                keys.extend(key);
            }
            suspect || key.is_some_and(|key| keys.contains(&key))
        })
        .collect()
}

pub(super) fn native<'a>(
    record: &ProduceRecord<'a>,
    partition: Option<i32>,
    opaque: usize,
) -> Result<BaseRecord<'a, [u8], [u8], usize>, RDKafkaErrorCode> {
    let mut native = BaseRecord::with_opaque_to(record.topic, opaque);
    native.partition = partition;
    native.timestamp = record.timestamp;
    native.key = record.key;
    native.payload = record.value;
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            // Header names are UTF-8 by protocol. A name that is not UTF-8 would be changed, so the record
            // fails.
            let key = std::str::from_utf8(name).map_err(|_| RDKafkaErrorCode::KeySerialization)?;
            headers = headers.insert(Header { key, value: *value });
        }
        native.headers = Some(headers);
    }
    Ok(native)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_records_with_the_key_of_a_suspect_are_sent_again() {
        let keys: [Option<&[u8]>; 6] = [Some(b"a"), Some(b"b"), None, Some(b"a"), None, Some(b"b")];
        let records: Vec<ProduceRecord<'_>> = keys
            .iter()
            .map(|key| ProduceRecord {
                topic: "t",
                key: *key,
                ..Default::default()
            })
            .collect();
        assert_eq!(with_later_records_of_their_keys(&records, &[2]), [2]);
        assert_eq!(with_later_records_of_their_keys(&records, &[0]), [0, 3]);
        assert_eq!(with_later_records_of_their_keys(&records, &[1, 3]), [1, 3, 5]);
    }

    #[test]
    fn a_timestamp_is_never_replaced_by_the_present() {
        for (read, produced) in [
            (-1, None),
            (i64::MIN, None),
            (0, Some(1)),
            (1, Some(1)),
            (1_700_000_000_000, Some(1_700_000_000_000)),
            (i64::MAX, Some(i64::MAX)),
        ] {
            assert_eq!(timestamp_of(read), produced);
        }
    }

    #[test]
    fn a_header_name_that_is_not_utf8_is_rejected_and_not_changed() {
        let record = ProduceRecord {
            topic: "t",
            headers: vec![(&[0xff], None)],
            ..Default::default()
        };
        assert_eq!(
            native(&record, None, 0).err(),
            Some(RDKafkaErrorCode::KeySerialization)
        );
    }
}
