//! The producer and the Kafka writer against librdkafka's mock cluster: real sockets, no Kafka needed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use crds::{
    client_config::{self, transactional_ids},
    spec,
};
use kafka_consumer_worker::{
    Batch, Chunk, WriteBatch, WriteError, Writer,
    kafka::producer::{ProduceRecord, Producer, SendError, TransactionalClient},
    record::TopicPartition,
    record::failure::FailureClass,
    writer::kafka::KafkaWriter,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    bindings::rd_kafka_resp_err_t::{self, *},
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::RDKafkaApiKey,
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

fn producer(cluster: &Cluster, overrides: &[(&str, &str)]) -> Producer {
    Producer::new(&properties(cluster, overrides)).unwrap()
}

fn transactional(cluster: &Cluster, overrides: &[(&str, &str)]) -> Producer {
    let mut properties = properties(cluster, overrides);
    properties.insert("message.timeout.ms".into(), "10000".into());
    let turns = transactional_ids("group", "worker").map(|id| {
        let mut properties = properties.clone();
        properties.insert("transactional.id".into(), id);
        properties
    });
    Producer::transactional(turns).unwrap()
}

fn properties(cluster: &Cluster, overrides: &[(&str, &str)]) -> client_config::Properties {
    let servers: Vec<String> = cluster
        .bootstrap_servers()
        .split(',')
        .map(str::to_string)
        .collect();
    let kafka: spec::Kafka =
        serde_json::from_value(serde_json::json!({"bootstrapServers": servers})).unwrap();
    let mut properties = client_config::producer(
        &kafka,
        &client_config::KafkaCredentials::default(),
        spec::Compression::Lz4,
    );
    for (key, value) in overrides {
        properties.insert(key.to_string(), value.to_string());
    }
    properties
}

/// The messages of a partition, at most `count`.
fn read(cluster: &Cluster, topic: &str, partition: i32, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        match consumer.poll(Duration::from_secs(20)) {
            Some(Ok(message)) => messages.push(message.detach()),
            Some(Err(error)) => panic!("{error}"),
            None => break,
        }
    }
    messages
}

fn value<'a>(topic: &'a str, value: &'a [u8]) -> ProduceRecord<'a> {
    ProduceRecord {
        topic,
        partition: Some(0),
        value: Some(value),
        ..Default::default()
    }
}

fn class(result: &Result<(), SendError>) -> Option<FailureClass> {
    result.as_ref().err().map(|error| error.class)
}

#[tokio::test]
async fn records_arrive_byte_identical_with_nulls_repeated_headers_and_timestamp() {
    let cluster = cluster(&[("t", 3)]);
    let producer = producer(&cluster, &[]);
    let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
        (b"h", Some(b"1")),
        (b"h", None),
        (b"h", Some(b"")),
        ("\u{e4}".as_bytes(), Some(&[0xff, 0x00])),
        (b"", Some(b"x")),
    ];
    let record = |key, value, headers| ProduceRecord {
        topic: "t",
        partition: Some(2),
        timestamp: Some(1_700_000_000_123),
        key,
        value,
        headers,
    };
    let records = [
        record(Some(&[0xfe, 0x00][..]), Some(&[0xff, 0x00][..]), headers.clone()),
        record(None, None, vec![]),
        record(Some(&[][..]), Some(&[][..]), vec![]),
    ];
    assert!(producer.send(&records).await.iter().all(Result::is_ok));

    let messages = read(&cluster, "t", 2, 3);
    assert_eq!(messages[0].key(), Some([0xfe, 0x00].as_slice()));
    assert_eq!(messages[0].payload(), Some([0xff, 0x00].as_slice()));
    assert_eq!(messages[0].timestamp().to_millis(), Some(1_700_000_000_123));
    let found = messages[0].headers().unwrap();
    let found: Vec<(&[u8], Option<&[u8]>)> = found
        .iter()
        .map(|header| (header.key.as_bytes(), header.value))
        .collect();
    assert_eq!(found, headers);
    assert_eq!((messages[1].key(), messages[1].payload()), (None, None));
    assert_eq!(
        (messages[2].key(), messages[2].payload()),
        (Some([].as_slice()), Some([].as_slice()))
    );
}

#[tokio::test]
async fn a_record_that_is_too_large_fails_alone() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("message.max.bytes", "2000")]);
    let large = vec![b'x'; 5000];
    let results = producer
        .send(&[value("t", b"a"), value("t", &large), value("t", b"b")])
        .await;
    assert_eq!(
        results.iter().map(class).collect::<Vec<_>>(),
        [None, Some(FailureClass::Record), None]
    );
    assert!(
        results[1]
            .as_ref()
            .unwrap_err()
            .message
            .contains("max.message.bytes")
    );
    assert_eq!(read(&cluster, "t", 0, 2).len(), 2);
}

#[tokio::test]
async fn a_batch_that_the_broker_refuses_is_sent_again_one_by_one_in_order() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("linger.ms", "100")]);
    // The broker refuses the whole batch, then the first record by itself: only that record is invalid.
    refuse(
        &cluster,
        &[RD_KAFKA_RESP_ERR_INVALID_RECORD, RD_KAFKA_RESP_ERR_INVALID_RECORD],
    );
    let results = producer
        .send(&[value("t", b"bad"), value("t", b"a"), value("t", b"b")])
        .await;
    assert_eq!(
        results.iter().map(class).collect::<Vec<_>>(),
        [Some(FailureClass::Record), None, None]
    );
    let messages = read(&cluster, "t", 0, 2);
    assert_eq!(messages[0].payload(), Some(b"a".as_slice()));
    assert_eq!(messages[1].payload(), Some(b"b".as_slice()));
}

fn refuse(cluster: &Cluster, errors: &[rd_kafka_resp_err_t]) {
    cluster.request_errors(RDKafkaApiKey::Produce, errors);
}

#[tokio::test]
async fn a_missing_topic_is_systemic_until_it_is_created() {
    let cluster = cluster(&[("other", 1)]);
    let producer = producer(&cluster, &[("topic.metadata.propagation.max.ms", "100")]);
    let results = producer.send(&[value("missing", b"a")]).await;
    assert_eq!(class(&results[0]), Some(FailureClass::Systemic), "{results:?}");
    let message = &results[0].as_ref().unwrap_err().message;
    assert!(
        message.contains("\"missing\"") && message.contains("create it"),
        "{message}"
    );
    assert_eq!(
        class(&producer.partition_count("missing").await.map(drop)),
        Some(FailureClass::Systemic)
    );

    cluster.create_topic("missing", 2, 1).unwrap();
    while producer.send(&[value("missing", b"a")]).await[0].is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(producer.partition_count("missing").await, Ok(2));
}

#[tokio::test]
async fn partitions_are_counted() {
    let cluster = cluster(&[("t", 7)]);
    let producer = producer(&cluster, &[]);
    assert_eq!(producer.partition_count("t").await, Ok(7));
    assert_eq!(producer.partition_count("t").await, Ok(7));
}

#[tokio::test]
async fn each_batch_without_keys_goes_to_one_partition_and_keys_go_where_other_clients_put_them() {
    let cluster = cluster(&[("t", 4)]);
    let producer = producer(&cluster, &[]);
    producer.partition_count("t").await.unwrap();
    let large = vec![b'x'; 100 * 1024];
    let free = ProduceRecord {
        topic: "t",
        value: Some(&large),
        ..Default::default()
    };
    let keyed = ProduceRecord {
        key: Some(b"21"),
        ..free.clone()
    };
    let batches = [(); 4].map(|()| vec![free.clone(); 3]);
    let sent = futures::future::join_all(batches.iter().map(|batch| producer.send(batch))).await;
    assert!(sent.iter().flatten().all(Result::is_ok), "{sent:?}");
    assert_eq!(producer.send(&[keyed]).await, [Ok(())]);
    // Murmur2 of "21" is -973932308 in Kafka's own tests, and 1173551340 without its sign.
    let home = 1_173_551_340 % 4;
    for partition in 0..4 {
        let expected = if partition == home { 4 } else { 3 };
        let found = read(&cluster, "t", partition, expected).len();
        assert_eq!(found, expected, "{partition}");
    }
}

#[tokio::test]
async fn records_wait_for_a_broker_that_is_down() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[]);
    producer.send(&[value("t", b"first")]).await[0].as_ref().unwrap();
    cluster.broker_down(1).unwrap();
    let records = [value("t", b"second")];
    let sending = producer.send(&records);
    tokio::pin!(sending);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut sending)
            .await
            .is_err()
    );
    assert!(producer.problem().is_some());
    cluster.broker_up(1).unwrap();
    assert_eq!(sending.await, [Ok(())]);
    assert_eq!(read(&cluster, "t", 0, 2).len(), 2);
    // librdkafka may report the failed connection after the success.
    while producer.problem().is_some() {
        assert_eq!(producer.send(&[value("t", b"third")]).await, [Ok(())]);
    }
}

#[tokio::test]
async fn records_that_no_broker_confirms_in_time_are_transient() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("message.timeout.ms", "300")]);
    cluster.broker_down(1).unwrap();
    let results = producer.send(&[value("t", b"a"), value("t", b"b")]).await;
    assert!(
        results
            .iter()
            .all(|result| class(result) == Some(FailureClass::Transient)),
        "{results:?}"
    );
}

#[tokio::test]
async fn a_full_queue_makes_the_sender_wait_and_loses_nothing() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("queue.buffering.max.messages", "10")]);
    let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|text| value("t", text.as_bytes())).collect();
    assert!(producer.send(&records).await.iter().all(Result::is_ok));
    let found = read(&cluster, "t", 0, 500);
    let found: Vec<_> = found.iter().map(|message| message.payload().unwrap()).collect();
    assert_eq!(found, values.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_fatal_error_is_answered_with_a_new_client() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[]);
    // An idempotent client that cannot get a producer id never works again.
    cluster.request_errors(
        RDKafkaApiKey::InitProducerId,
        &[RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
    );
    let first = producer.send(&[value("t", b"a")]).await;
    let error = first[0].as_ref().unwrap_err();
    assert!(error.fatal, "{error:?}");
    assert_eq!(error.class, FailureClass::Systemic);
    assert_eq!(producer.send(&[value("t", b"a")]).await, [Ok(())]);
}

#[tokio::test]
async fn a_canceled_sender_does_not_affect_other_senders() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("queue.buffering.max.messages", "10")]);
    cluster.broker_down(1).unwrap();
    let many: Vec<_> = (0..50).map(|_| value("t", b"canceled")).collect();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), producer.send(&many))
            .await
            .is_err()
    );
    cluster.broker_up(1).unwrap();
    assert_eq!(producer.send(&[value("t", b"x")]).await, [Ok(())]);
}

#[tokio::test]
async fn closing_waits_for_sent_records_and_then_refuses_new_ones() {
    let cluster = cluster(&[("t", 1)]);
    let producer = producer(&cluster, &[("linger.ms", "5000")]);
    let other = producer.clone();
    let sending = tokio::spawn(async move { other.send(&[value("t", b"a")]).await });
    tokio::task::yield_now().await;
    assert_eq!(producer.close(Duration::from_secs(20)).await, 0);
    assert_eq!(sending.await.unwrap(), [Ok(())]);
    assert_eq!(
        class(&producer.send(&[value("t", b"b")]).await[0]),
        Some(FailureClass::Transient)
    );
}

fn batch(count: i64) -> Batch {
    let mut chunk = Chunk::new(TopicPartition::new("in", 0), 1);
    for offset in 0..count {
        let headers = [(b"trace".as_slice(), Some(b"1".as_slice()))];
        chunk.push(
            offset,
            1_700_000_000_000 + offset,
            Some(b"k"),
            Some(&[offset as u8]),
            headers,
        );
    }
    Batch::identity(Arc::new(chunk))
}

#[tokio::test]
async fn the_kafka_writer_keeps_key_headers_and_timestamp() {
    let cluster = cluster(&[("out", 1)]);
    let writer = KafkaWriter::new("out", producer(&cluster, &[]));
    let batch = batch(3);
    assert_eq!(writer.write(WriteBatch::new(&batch, &[0, 2])).await, Ok(vec![]));
    let messages = read(&cluster, "out", 0, 2);
    assert_eq!(messages[1].key(), Some(b"k".as_slice()));
    assert_eq!(messages[1].payload(), Some([2].as_slice()));
    assert_eq!(messages[1].timestamp().to_millis(), Some(1_700_000_000_002));
    let header = messages[1].headers().unwrap().get(0);
    assert_eq!((header.key, header.value), ("trace", Some(b"1".as_slice())));
}

#[tokio::test]
async fn the_kafka_writer_reports_a_missing_topic() {
    let cluster = cluster(&[("other", 1)]);
    let producer = producer(&cluster, &[("topic.metadata.propagation.max.ms", "100")]);
    let writer = KafkaWriter::new("out", producer);
    let batch = batch(2);
    let result = writer.write(WriteBatch::new(&batch, &[0, 1])).await;
    assert!(
        matches!(&result, Err(WriteError::Systemic(message)) if message.contains("\"out\"")),
        "{result:?}"
    );
}

#[tokio::test]
async fn the_kafka_writer_rejects_only_the_record_that_is_too_large() {
    let cluster = cluster(&[("out", 1)]);
    let writer = KafkaWriter::new("out", producer(&cluster, &[("message.max.bytes", "1000")]));
    let mut chunk = Chunk::new(TopicPartition::new("in", 0), 1);
    for value in [&b"a"[..], &[b'x'; 3000], b"b"] {
        chunk.push(0, -1, None, Some(value), []);
    }
    let batch = Batch::identity(Arc::new(chunk));
    let rejected = writer.write(WriteBatch::new(&batch, &[0, 1, 2])).await.unwrap();
    assert_eq!(
        rejected
            .iter()
            .map(|rejected| (rejected.position, rejected.retryable))
            .collect::<Vec<_>>(),
        [(1, false)]
    );
    assert_eq!(read(&cluster, "out", 0, 2).len(), 2);
}

/// Two records. The first became two outputs, and the second of these is too large for the client.
fn with_a_large_second_output() -> Batch {
    let mut chunk = Chunk::new(TopicPartition::new("in", 0), 1);
    chunk.push(10, 0, Some(b"a"), Some(b"first"), []);
    chunk.push(11, 0, Some(b"b"), Some(b"second"), []);
    let input = Batch::identity(Arc::new(chunk));
    let mut builder = input.next();
    builder.emit(
        0,
        kafka_consumer_worker::Payload::Keep,
        kafka_consumer_worker::Payload::Keep,
    );
    builder.emit(
        0,
        kafka_consumer_worker::Payload::Keep,
        kafka_consumer_worker::Payload::New(&[b'x'; 5000]),
    );
    builder.emit(
        1,
        kafka_consumer_worker::Payload::Keep,
        kafka_consumer_worker::Payload::Keep,
    );
    builder.finish().0
}

#[tokio::test]
async fn in_a_transaction_a_record_is_written_with_all_of_its_outputs_or_with_none() {
    let cluster = cluster(&[("out", 1)]);
    let producer = transactional(&cluster, &[("message.max.bytes", "2000")]);
    let writer = KafkaWriter::transactional("out", producer.clone(), Arc::default());
    let [turn, _] = producer.transactional_clients();
    let calls = turn.clone();
    let begin = move || calls.initialize().and_then(|()| calls.begin()).unwrap();
    tokio::task::spawn_blocking(begin).await.unwrap();
    let batch = with_a_large_second_output();
    let all = WriteBatch::new(&batch, &[0, 1, 2]);
    let error = writer.write(all).await.unwrap_err();
    assert!(matches!(error, WriteError::Refused(_)), "{error}");

    // The writer knows the refused record now and writes the rest of the batch without it.
    let calls = turn.clone();
    let again = move || calls.abort().and_then(|()| calls.begin()).unwrap();
    tokio::task::spawn_blocking(again).await.unwrap();
    let rejected = writer.write(all).await.unwrap();
    let positions: Vec<usize> = rejected.iter().map(|rejected| rejected.position).collect();
    assert_eq!(positions, [1]);
    assert!(
        rejected[0].message.contains("message.max.bytes"),
        "{}",
        rejected[0].message
    );
    tokio::task::spawn_blocking(move || turn.commit().unwrap())
        .await
        .unwrap();
    // The mock cluster returns aborted records, too: those of the first attempt, and one of the second.
    let values: Vec<_> = read(&cluster, "out", 0, 3)
        .iter()
        .map(|message| message.payload().unwrap_or_default().to_vec())
        .collect();
    assert_eq!(values.last().unwrap(), b"second");
    let firsts = values.iter().filter(|value| **value == b"first").count();
    assert!(firsts <= 1, "{values:?}");
}

#[tokio::test]
async fn records_sent_while_a_transaction_commits_belong_to_the_next_one() {
    let cluster = cluster(&[("out", 1)]);
    let producer = transactional(&cluster, &[]);
    let [first, second] = producer.transactional_clients();
    let record = |value: &'static [u8]| ProduceRecord {
        topic: "out",
        partition: Some(0),
        value: Some(value),
        ..Default::default()
    };
    let begin = |turn: TransactionalClient| {
        let begin = move || turn.initialize().and_then(|()| turn.begin()).unwrap();
        tokio::task::spawn_blocking(begin)
    };
    begin(first.clone()).await.unwrap();
    begin(second.clone()).await.unwrap();

    assert_eq!(producer.send_in(0, &[record(b"one")]).await, [Ok(())]);
    assert_eq!(producer.send_in(1, &[record(b"two")]).await, [Ok(())]);
    let commit = move || {
        first.commit().unwrap();
        first.begin().unwrap();
        second.commit().unwrap();
    };
    tokio::task::spawn_blocking(commit).await.unwrap();
    assert_eq!(producer.send_in(2, &[record(b"three")]).await, [Ok(())]);
    let values: Vec<_> = read(&cluster, "out", 0, 3)
        .iter()
        .map(|message| message.payload().unwrap_or_default().to_vec())
        .collect();
    assert_eq!(values, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    let [first, _] = producer.transactional_clients();
    tokio::task::spawn_blocking(move || first.commit().unwrap())
        .await
        .unwrap();
}
