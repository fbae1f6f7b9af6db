//! The Kafka client against librdkafka's mock cluster over TCP.

use std::time::Instant;

use crds::spec::{Consumer, GroupProtocol, IsolationLevel, StartPositionType};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::model::{CommitMetadata, ProvisionAction, ResetPosition, StartOutcome};
use super::*;

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock(topics: &[(&str, i32)]) -> (Mock, Kafka) {
    let mock = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        mock.create_topic(topic, *partitions, 1).unwrap();
    }
    let kafka = kafka_at(&mock.bootstrap_servers());
    (mock, kafka)
}

fn kafka_at(bootstrap: &str) -> Kafka {
    serde_yaml::from_str(&format!("bootstrapServers: ['{bootstrap}']")).unwrap()
}

fn clients() -> KafkaClients {
    KafkaClients::new(Duration::from_secs(3600))
}

fn query(topics: &[&str]) -> FactsQuery {
    FactsQuery {
        group_id: "g".into(),
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
        outputs: Vec::new(),
        isolation: IsolationLevel::ReadCommitted,
        protocol: GroupProtocol::Classic,
    }
}

fn key(name: &str) -> GroupKey {
    GroupKey::new("shop", name)
}

/// Reads the facts now.
async fn facts(
    clients: &KafkaClients,
    kafka: &Kafka,
    query: &FactsQuery,
) -> Result<KafkaFacts, KafkaProblem> {
    let credentials = KafkaCredentials::default();
    clients
        .facts(&key("g"), kafka, &credentials, query, Duration::ZERO)
        .await
}

fn produce(mock: &Mock, topic: &str, partition: i32, records: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .create()
        .unwrap();
    for _ in 0..records {
        producer
            .send(BaseRecord::<(), str>::to(topic).partition(partition).payload("x"))
            .unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn start(kind: StartPositionType) -> StartPosition {
    StartPosition {
        kind,
        timestamp: None,
    }
}

#[tokio::test]
async fn facts_of_a_new_group_count_from_the_log_start() {
    let (mock, kafka) = mock(&[("orders", 3)]);
    produce(&mock, "orders", 1, 7);
    let facts = facts(&clients(), &kafka, &query(&["orders"])).await.unwrap();
    assert_eq!(facts.topics["orders"], Some(3));
    let lag = facts.lag.unwrap();
    assert_eq!((lag.total, lag.max_partition.as_deref()), (7, Some("orders-1")));
    assert_eq!(facts.group, None);
}

#[tokio::test]
async fn a_missing_topic_is_reported_not_created_and_makes_the_lag_unknown() {
    let (_mock, kafka) = mock(&[("orders", 3)]);
    let clients = clients();
    for _ in 0..2 {
        let facts = facts(&clients, &kafka, &query(&["orders", "missing"]))
            .await
            .unwrap();
        assert_eq!(facts.topics["missing"], None);
        assert_eq!(facts.lag, None);
    }
}

#[tokio::test]
async fn missing_outputs_are_reported_and_affect_nothing_else() {
    let (mock, kafka) = mock(&[("orders", 3), ("clean", 1)]);
    produce(&mock, "orders", 0, 2);
    let query = FactsQuery {
        outputs: ["clean", "orders.dlq"].map(String::from).into(),
        ..query(&["orders"])
    };
    let clients = clients();
    // Twice: the first read must not have created it.
    for _ in 0..2 {
        let facts = facts(&clients, &kafka, &query).await.unwrap();
        assert_eq!(facts.missing_outputs, ["orders.dlq"]);
        assert_eq!(facts.topics.len(), 1);
        assert_eq!(facts.lag.unwrap().total, 2);
    }
}

#[test]
fn a_group_joins_by_either_protocol_with_our_properties() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let (mock, kafka) = mock(&[("orders", 3)]);
        let settings = Consumer {
            group_protocol: protocol,
            ..Consumer::default()
        };
        let properties = client_config::consumer(&kafka, &KafkaCredentials::default(), "g", &settings);
        let consumer: BaseConsumer = ClientConfig::from_iter(properties).create().unwrap();
        consumer.subscribe(&["orders"]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while consumer.assignment().unwrap().count() < 3 {
            assert!(Instant::now() < deadline, "{protocol:?}: not assigned");
            if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
                panic!("{protocol:?}: {error}");
            }
        }
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        assert!(cooperative, "{protocol:?}: the worker assigns incrementally");
        drop(mock);
    }
}

#[tokio::test]
async fn start_positions_are_committed_once_and_only_where_nothing_is_committed() {
    let (mock, kafka) = mock(&[("orders", 2)]);
    produce(&mock, "orders", 0, 5);
    let clients = clients();
    let credentials = KafkaCredentials::default();
    let latest = start(StartPositionType::Latest);
    let query = query(&["orders"]);
    let committed = clients
        .commit_start_positions(&kafka, &credentials, &query, &latest)
        .await;
    assert_eq!(committed, Ok(StartOutcome::Committed(2)));
    let read = facts(&clients, &kafka, &query).await.unwrap();
    assert_eq!(read.lag.unwrap().total, 0);
    produce(&mock, "orders", 0, 3);
    let committed = clients
        .commit_start_positions(&kafka, &credentials, &query, &latest)
        .await;
    assert_eq!(committed, Ok(StartOutcome::Committed(0)));
    let lag = facts(&clients, &kafka, &query).await.unwrap().lag.unwrap();
    assert_eq!(lag.per_partition[&("orders".to_string(), 0)], 3);
}

#[tokio::test]
async fn earliest_is_committed_as_the_log_start() {
    let (mock, kafka) = mock(&[("orders", 1)]);
    produce(&mock, "orders", 0, 4);
    let clients = clients();
    let earliest = start(StartPositionType::Earliest);
    let query = query(&["orders"]);
    let committed = clients
        .commit_start_positions(&kafka, &KafkaCredentials::default(), &query, &earliest)
        .await;
    assert_eq!(committed, Ok(StartOutcome::Committed(1)));
    let read = facts(&clients, &kafka, &query).await.unwrap();
    assert_eq!(read.lag.unwrap().total, 4);
}

fn orders(index: i32) -> Partition {
    ("orders".into(), index)
}

fn reset_query(topics: &[(&str, &[i32])]) -> ResetQuery {
    let topics = topics
        .iter()
        .map(|(topic, partitions)| (topic.to_string(), partitions.to_vec()));
    ResetQuery {
        group_id: "g".into(),
        topics: topics.collect(),
        isolation: IsolationLevel::ReadCommitted,
        protocol: GroupProtocol::Classic,
        at: None,
        stable: true,
    }
}

#[tokio::test]
async fn a_reset_reads_positions_and_commits_offsets() {
    let (mock, kafka) = mock(&[("orders", 3)]);
    produce(&mock, "orders", 1, 7);
    let (clients, credentials) = (clients(), KafkaCredentials::default());
    let read = async |topics: &[(&str, &[i32])]| {
        let query = reset_query(topics);
        let positions = clients.reset_positions(&kafka, &credentials, &query);
        positions.await.unwrap()
    };
    let before = read(&[("orders", &[1, 2, 9]), ("missing", &[])]).await;
    let counts = [("missing".to_string(), None), ("orders".to_string(), Some(3))];
    assert_eq!(before.topics, counts.into());
    let position = |committed, end| ResetPosition {
        committed,
        metadata: CommitMetadata::default(),
        log_start: 0,
        end,
        at: None,
    };
    let expected = [(orders(1), position(None, 7)), (orders(2), position(None, 0))];
    assert_eq!(before.partitions, expected.into());
    assert!(before.members.is_empty());
    // The second time changes nothing.
    for _ in 0..2 {
        let offsets = [(orders(1), 4), (orders(2), 0)].into();
        let committed = clients
            .commit_reset(&kafka, &credentials, "g", &offsets, None)
            .await;
        assert_eq!(committed, Ok(ResetOutcome::Committed));
        let after = read(&[("orders", &[])]).await;
        assert_eq!(after.partitions[&orders(0)].committed, None);
        assert_eq!(after.partitions[&orders(1)], position(Some(4), 7));
        assert_eq!(after.partitions[&orders(2)].committed, Some(0));
    }
}

#[tokio::test]
async fn offsets_that_are_refused_are_distinguished_from_committed_ones() {
    let (_mock, kafka) = mock(&[("orders", 1)]);
    let (clients, credentials) = (clients(), KafkaCredentials::default());
    let offsets = [(orders(0), 1), (orders(7), 2)].into();
    let committed = clients
        .commit_reset(&kafka, &credentials, "g", &offsets, None)
        .await;
    let Ok(ResetOutcome::Partly(partly)) = committed else {
        panic!("{committed:?}")
    };
    assert_eq!(partly.committed, [orders(0)]);
    assert_eq!(partly.failed.keys().collect::<Vec<_>>(), [&orders(7)]);
    let message = partly.to_string();
    for part in ["1 of 2 partitions", "orders-7", "UNKNOWN_TOPIC_OR_PARTITION"] {
        assert!(message.contains(part), "{message}");
    }
    let only = [(orders(7), 2)].into();
    let problem = clients
        .commit_reset(&kafka, &credentials, "g", &only, None)
        .await
        .unwrap_err();
    assert!(
        problem.to_string().contains("UNKNOWN_TOPIC_OR_PARTITION"),
        "{problem}"
    );
}

#[tokio::test]
async fn offsets_of_a_group_with_members_are_not_set() {
    let (mock, kafka) = mock(&[("orders", 1)]);
    let (clients, credentials) = (clients(), KafkaCredentials::default());
    let properties = client_config::consumer(&kafka, &credentials, "g", &Consumer::default());
    let consumer: BaseConsumer = ClientConfig::from_iter(properties).create().unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while consumer.assignment().unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "not assigned");
        drop(consumer.poll(Duration::from_millis(100)));
    }
    let offsets = [(orders(0), 0)].into();
    let refused = clients
        .commit_reset(&kafka, &credentials, "g", &offsets, None)
        .await;
    // This broker cannot name them.
    assert_eq!(refused, Ok(ResetOutcome::Members(Vec::new())));
    drop(mock);
}

#[tokio::test]
async fn nobody_is_removed_where_the_broker_cannot_describe_groups() {
    let (_mock, kafka) = mock(&[("orders", 1)]);
    let clients = clients();
    let credentials = KafkaCredentials::default();
    facts(&clients, &kafka, &query(&["orders"])).await.unwrap();
    let dead = [DeadProcess::before("orders-worker-abc", i64::MAX)];
    let classic = GroupProtocol::Classic;
    let removed = clients.remove_members(&kafka, &credentials, "g", classic, &dead);
    assert_eq!(removed.await, Ok(Vec::new()));
}

#[tokio::test]
async fn brokers_that_do_not_listen_are_reported_as_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let kafka = kafka_at(&format!("127.0.0.1:{port}"));
    let problem = facts(&clients(), &kafka, &query(&["orders"])).await.unwrap_err();
    assert_eq!(problem.reason(), "KafkaUnreachable");
    let message = problem.to_string();
    for part in ["refused", "spec.kafka.bootstrapServers", &port.to_string()] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn one_client_serves_all_groups_of_a_cluster() {
    let (_mock, kafka) = mock(&[("orders", 1)]);
    let clients = clients();
    let credentials = KafkaCredentials::default();
    let read = async |group: &str, credentials: &KafkaCredentials| {
        let query = FactsQuery {
            group_id: group.into(),
            ..query(&["orders"])
        };
        let key = key(group);
        let read = clients.facts(&key, &kafka, credentials, &query, Duration::ZERO);
        read.await.unwrap();
    };
    for group in ["a", "b", "c"] {
        read(group, &credentials).await;
    }
    assert_eq!(clients.count(), 1);
    let other = KafkaCredentials {
        username: Some("bob".into()),
        ..Default::default()
    };
    read("a", &other).await;
    assert_eq!(clients.count(), 1, "unused credentials create no separate client");
}

#[tokio::test]
async fn a_recent_answer_is_used_again_and_an_old_one_is_not() {
    let (mock, kafka) = mock(&[("orders", 1)]);
    let clients = clients();
    let credentials = KafkaCredentials::default();
    let query = query(&["orders"]);
    let lag = async |max_age| {
        let key = key("g");
        let facts = clients.facts(&key, &kafka, &credentials, &query, max_age);
        facts.await.unwrap().lag.unwrap().total
    };
    assert_eq!(lag(Duration::ZERO).await, 0);
    produce(&mock, "orders", 0, 2);
    assert_eq!(lag(Duration::from_secs(3600)).await, 0);
    assert_eq!(lag(Duration::ZERO).await, 2);
    produce(&mock, "orders", 0, 2);
    clients.invalidate(&key("g"));
    assert_eq!(lag(Duration::from_secs(3600)).await, 4);
}

#[tokio::test]
async fn a_group_is_announced_when_its_facts_change_and_only_then() {
    let (mock, kafka) = mock(&[("orders", 1), ("payments", 1)]);
    let clients = KafkaClients::new(Duration::from_millis(100));
    let credentials = KafkaCredentials::default();
    let mut changes = clients.changes();
    for topic in ["orders", "payments"] {
        let (key, query) = (key(topic), query(&[topic]));
        let facts = clients.facts(&key, &kafka, &credentials, &query, Duration::ZERO);
        facts.await.unwrap();
    }
    produce(&mock, "payments", 0, 1);
    let changed = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
    assert_eq!(changed.unwrap(), Some(key("payments")));
    clients.forget(&key("payments"));
    produce(&mock, "payments", 0, 1);
    produce(&mock, "orders", 0, 1);
    let changed = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
    assert_eq!(changed.unwrap(), Some(key("orders")));
}

#[tokio::test]
async fn provisioning_does_not_change_an_existing_topic() {
    let (_mock, kafka) = mock(&[("orders", 3)]);
    let wanted = WantedTopic {
        name: "orders".into(),
        partitions: 2,
        replication_factor: None,
        config: Default::default(),
        accepts: Vec::new(),
    };
    let done = clients()
        .provision(&kafka, &KafkaCredentials::default(), &[wanted])
        .await
        .unwrap();
    assert_eq!(done[0].action, ProvisionAction::Unchanged);
}
