//! ListOffsets, OffsetFetch and OffsetCommit.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::super::offsets::*;
use super::*;

fn topics_of<S: Strategy>(entries: S) -> impl Strategy<Value = Vec<Topic<S::Value>>> {
    few((texts(), vec(entries, 0..4)))
}

/// Topics as kafka-protocol has them, from a constructor of a topic and one of an entry.
fn each<T, E, P>(topics: &[Topic<T>], topic: fn(&str, Vec<P>) -> E, entry: fn(&T) -> P) -> Vec<E> {
    topics
        .iter()
        .map(|(name, entries)| topic(name, entries.iter().map(entry).collect()))
        .collect()
}

fn listed_offsets() -> impl Strategy<Value = ListedOffset> {
    any::<(i32, i16, i64, i64)>().prop_map(|(index, error, timestamp, offset)| ListedOffset {
        index,
        error: ErrorCode(error),
        timestamp,
        offset,
    })
}

fn fetched_offsets() -> impl Strategy<Value = FetchedOffset> {
    (any::<(i32, i64, i16)>(), texts()).prop_map(|((index, offset, error), metadata)| FetchedOffset {
        index,
        offset,
        metadata,
        error: ErrorCode(error),
    })
}

fn fetched_groups() -> impl Strategy<Value = FetchedOffsets> {
    (texts(), error_codes(), topics_of(fetched_offsets())).prop_map(|(group, error, topics)| FetchedOffsets {
        group,
        error,
        topics,
    })
}

fn requested_groups() -> impl Strategy<Value = OffsetFetchGroup> {
    (texts(), topics_of(any::<i32>())).prop_map(|(group, topics)| OffsetFetchGroup { group, topics })
}

proptest! {
    #[test]
    fn list_offsets(
        read_committed: bool,
        topics in topics_of(any::<(i32, i64)>()),
        answer in topics_of(listed_offsets()),
    ) {
        let expected = theirs::ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(read_committed.into())
            .with_topics(each(
                &topics,
                |name, partitions| {
                    ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
                },
                |(partition, timestamp)| {
                    ListOffsetsPartition::default()
                        .with_partition_index(*partition)
                        .with_timestamp(*timestamp)
                },
            ));
        let request: theirs::ListOffsetsRequest = written(&ListOffsets { read_committed, topics }, 5);
        prop_assert_eq!(request, expected);

        let theirs = theirs::ListOffsetsResponse::default().with_topics(each(
            &answer,
            |name, partitions| {
                ListOffsetsTopicResponse::default().with_name(topic_name(name)).with_partitions(partitions)
            },
            |offset| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(offset.index)
                    .with_error_code(offset.error.0)
                    .with_timestamp(offset.timestamp)
                    .with_offset(offset.offset)
                    .with_leader_epoch(7)
            },
        ));
        prop_assert_eq!(read_back::<ListOffsets, _>(&theirs, 5), answer);
    }

    #[test]
    fn offset_fetch_of_one_group(group in requested_groups(), mut answer in fetched_groups()) {
        let expected = theirs::OffsetFetchRequest::default()
            .with_group_id(group_id(&group.group))
            .with_topics(Some(each(
                &group.topics,
                |name, partitions| {
                    OffsetFetchRequestTopic::default()
                        .with_name(topic_name(name))
                        .with_partition_indexes(partitions)
                },
                |partition| *partition,
            )));
        let request: theirs::OffsetFetchRequest = written(&OffsetFetch { groups: vec![group], require_stable: true }, 5);
        prop_assert_eq!(request, expected);

        let theirs = theirs::OffsetFetchResponse::default()
            .with_error_code(answer.error.0)
            .with_topics(each(
                &answer.topics,
                |name, partitions| {
                    OffsetFetchResponseTopic::default()
                        .with_name(topic_name(name))
                        .with_partitions(partitions)
                },
                |offset| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(offset.index)
                        .with_committed_offset(offset.offset)
                        .with_committed_leader_epoch(3)
                        .with_metadata(Some(text(&offset.metadata)))
                        .with_error_code(offset.error.0)
                },
            ));
        answer.group.clear();
        prop_assert_eq!(read_back::<OffsetFetch, _>(&theirs, 5), vec![answer]);
    }

    #[test]
    fn offset_fetch_of_several_groups(
        require_stable: bool,
        groups in few(requested_groups()),
        answer in few(fetched_groups()),
    ) {
        let group = |group: &OffsetFetchGroup| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(&group.group))
                .with_topics(Some(each(
                    &group.topics,
                    |name, partitions| {
                        OffsetFetchRequestTopics::default()
                            .with_name(topic_name(name))
                            .with_partition_indexes(partitions)
                    },
                    |partition| *partition,
                )))
        };
        let expected =
            theirs::OffsetFetchRequest::default()
                .with_groups(groups.iter().map(group).collect())
                .with_require_stable(require_stable);
        let request: theirs::OffsetFetchRequest = written(&OffsetFetch { groups, require_stable }, 8);
        prop_assert_eq!(request, expected);

        let group = |group: &FetchedOffsets| {
            OffsetFetchResponseGroup::default()
                .with_group_id(group_id(&group.group))
                .with_error_code(group.error.0)
                .with_topics(each(
                    &group.topics,
                    |name, partitions| {
                        OffsetFetchResponseTopics::default()
                            .with_name(topic_name(name))
                            .with_partitions(partitions)
                    },
                    |offset| {
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(offset.index)
                            .with_committed_offset(offset.offset)
                            .with_metadata((!offset.metadata.is_empty()).then(|| text(&offset.metadata)))
                            .with_error_code(offset.error.0)
                            .with_unknown_tagged_field(1, vec![1, 2, 3].into())
                    },
                ))
        };
        let theirs =
            theirs::OffsetFetchResponse::default().with_groups(answer.iter().map(group).collect());
        prop_assert_eq!(read_back::<OffsetFetch, _>(&theirs, 8), answer);
    }

    #[test]
    fn offset_commit(
        group in texts(),
        topics in topics_of(any::<(i32, i64)>()),
        answer in topics_of((any::<i32>(), error_codes())),
    ) {
        let expected = theirs::OffsetCommitRequest::default()
            .with_group_id(group_id(&group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(each(
                &topics,
                |name, partitions| {
                    OffsetCommitRequestTopic::default()
                        .with_name(topic_name(name))
                        .with_partitions(partitions)
                },
                |(partition, offset)| {
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(*partition)
                        .with_committed_offset(*offset)
                        .with_committed_leader_epoch(-1)
                        .with_committed_metadata(Some(text("")))
                },
            ));
        let request: theirs::OffsetCommitRequest = written(&OffsetCommit { group, topics }, 7);
        prop_assert_eq!(request, expected);

        let theirs = theirs::OffsetCommitResponse::default().with_topics(each(
            &answer,
            |name, partitions| {
                OffsetCommitResponseTopic::default().with_name(topic_name(name)).with_partitions(partitions)
            },
            |(partition, error)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(*partition)
                    .with_error_code(error.0)
            },
        ));
        prop_assert_eq!(read_back::<OffsetCommit, _>(&theirs, 7), answer);
    }
}

#[test]
fn an_offset_fetch_without_groups_is_still_a_valid_request() {
    let request: theirs::OffsetFetchRequest = written(
        &OffsetFetch {
            groups: Vec::new(),
            require_stable: false,
        },
        5,
    );
    assert_eq!(request, theirs::OffsetFetchRequest::default());
}
