//! Fetch, with batches of records as clients write them.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::super::fetch::*;
use super::super::offsets::Topic;
use super::*;

/// One batch: its first offset and time, the number of its records, and whether its times are those of appends.
type TheirBatch = (i64, i64, u8, bool, bool);

fn their_batches() -> impl Strategy<Value = Vec<TheirBatch>> {
    few((
        0..1_i64 << 40,
        0..1_i64 << 50,
        1..5_u8,
        any::<bool>(),
        any::<bool>(),
    ))
}

fn encoded(batches: &[TheirBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(offset, time, count, log_append, control) in batches {
        let record = |index: u8| Record {
            transactional: false,
            control,
            delete_horizon: false,
            partition_leader_epoch: 3,
            producer_id: 7,
            producer_epoch: 1,
            timestamp_type: if log_append {
                TimestampType::LogAppend
            } else {
                TimestampType::Creation
            },
            offset: offset + i64::from(index),
            sequence: index.into(),
            timestamp: if log_append { time } else { time + i64::from(index) },
            key: None,
            value: Some(vec![b'x'; index.into()].into()),
            headers: Default::default(),
        };
        let records: Vec<Record> = (0..count).map(record).collect();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    }
    bytes
}

fn expected(&(offset, time, count, _, control): &TheirBatch) -> Batch {
    Batch {
        last_offset: offset + i64::from(count) - 1,
        first_timestamp: time,
        is_control: control,
    }
}

type TheirPartition = (i32, i16, Vec<TheirBatch>, Option<u8>, bool);

fn topics() -> impl Strategy<Value = Vec<Topic<TheirPartition>>> {
    let partition = (
        any::<i32>(),
        any::<i16>(),
        their_batches(),
        proptest::option::of(0..3_u8),
        any::<bool>(),
    );
    few((texts(), vec(partition, 0..3)))
}

fn data((index, error, batches, aborted, cut): &TheirPartition) -> PartitionData {
    let mut records = encoded(batches);
    if *cut {
        // Brokers cut the last batch.
        records.extend(&encoded(&[(5, 5, 1, false, false)])[..40]);
    }
    let aborted = aborted.map(|count| (0..count).map(|_| AbortedTransaction::default()).collect());
    PartitionData::default()
        .with_partition_index(*index)
        .with_error_code(*error)
        .with_aborted_transactions(aborted)
        .with_records((!records.is_empty()).then(|| records.into()))
}

proptest! {
    #[test]
    fn fetch(
        max_bytes: i32,
        partition_max_bytes: i32,
        wanted in few((texts(), vec(any::<(i32, i64)>(), 0..3))),
        answer in topics(),
    ) {
        let partition = |(index, offset): &(i32, i64)| {
            FetchPartition::default()
                .with_partition(*index)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*offset)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(partition_max_bytes)
        };
        let topic = |(name, partitions): &Topic<(i32, i64)>| {
            FetchTopic::default()
                .with_topic(topic_name(name))
                .with_partitions(partitions.iter().map(partition).collect())
        };
        let expected_request = theirs::FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(max_bytes)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(wanted.iter().map(topic).collect());
        let request: theirs::FetchRequest =
            written(&Fetch { max_bytes, partition_max_bytes, topics: wanted }, 11);
        prop_assert_eq!(request, expected_request);

        let their_topic = |(name, partitions): &Topic<TheirPartition>| {
            FetchableTopicResponse::default()
                .with_topic(topic_name(name))
                .with_partitions(partitions.iter().map(data).collect())
        };
        let theirs = theirs::FetchResponse::default().with_responses(answer.iter().map(their_topic).collect());
        let our_topic = |(name, partitions): &Topic<TheirPartition>| {
            let partition = |(index, error, batches, ..): &TheirPartition| FetchedPartition {
                index: *index,
                error: ErrorCode(*error),
                batches: batches.iter().map(expected).collect(),
            };
            (name.clone(), partitions.iter().map(partition).collect::<Vec<_>>())
        };
        let ours: Vec<_> = answer.iter().map(our_topic).collect();
        prop_assert_eq!(read_back::<Fetch, _>(&theirs, 11), ours);
    }

    #[test]
    fn batches_of_any_bytes_are_read_or_left_out(records in vec(any::<u8>(), 0..200), version in 0..3_u8) {
        let mut records = records;
        if let Some(magic) = records.get_mut(16) {
            *magic = version;
        }
        let data = PartitionData::default().with_records(Some(records.into()));
        let topic = FetchableTopicResponse::default().with_topic(topic_name("orders")).with_partitions(vec![data]);
        let theirs = theirs::FetchResponse::default().with_responses(vec![topic]);
        let answer = read_back::<Fetch, _>(&theirs, 11);
        // Batches of the formats v0 and v1 have no time here.
        prop_assert!(version == 2 || answer[0].1[0].batches.is_empty());
    }
}

#[test]
fn an_error_of_the_whole_answer_is_one_of_every_partition() {
    let topic = FetchableTopicResponse::default().with_partitions(vec![PartitionData::default()]);
    let theirs = theirs::FetchResponse::default()
        .with_error_code(70)
        .with_responses(vec![topic]);
    let answer = read_back::<Fetch, _>(&theirs, 11);
    assert_eq!(answer[0].1[0].error, ErrorCode(70));
}

#[test]
fn a_quota_and_the_end_of_the_committed_records_are_read() {
    let throttled = theirs::FetchResponse::default().with_throttle_time_ms(1500);
    let read = read_back::<FetchRecords, _>(&throttled, 11);
    assert_eq!(
        (read.error, read.throttle),
        (ErrorCode::THROTTLING_QUOTA_EXCEEDED, 1500)
    );
    let mut empty = CORRELATION.to_be_bytes().to_vec();
    theirs::FetchResponse::default().encode(&mut empty, 11).unwrap();
    assert!(answer::<FetchRecords>(11, &empty).is_err());
    let data = PartitionData::default()
        .with_high_watermark(9)
        .with_last_stable_offset(7)
        .with_log_start_offset(2);
    let topic = FetchableTopicResponse::default().with_partitions(vec![data]);
    let read = read_back::<FetchRecords, _>(&throttled.with_responses(vec![topic]), 11);
    assert_eq!((read.error, read.throttle), (ErrorCode::NONE, 1500));
    assert_eq!((read.last_stable, read.log_start), (7, 2));
}
