//! Reading backwards from librdkafka's mock cluster over TCP, and from answers that it does not give.

mod answers;

use std::collections::{BTreeMap, HashSet};

use crds::client_config::KafkaCredentials;
use crds::spec::Kafka;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::kafka::KafkaClients;
use crate::kafka::model::KafkaProblem;

type Mock = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "orders.dlq";

struct Fixture {
    mock: Mock,
    kafka: Kafka,
    clients: KafkaClients,
}

impl Fixture {
    fn new(partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, partitions, 1).unwrap();
        let yaml = format!("bootstrapServers: ['{}']", mock.bootstrap_servers());
        Self {
            kafka: serde_yaml::from_str(&yaml).unwrap(),
            clients: KafkaClients::new(Duration::from_secs(3600)),
            mock,
        }
    }

    /// Writes records: partition and timestamp of each; its value is its number.
    fn produce(&self, codec: &str, records: &[(i32, i64)]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.mock.bootstrap_servers())
            .set("compression.type", codec)
            .set("batch.num.messages", "40")
            .set("linger.ms", "20")
            .create()
            .unwrap();
        for (number, (partition, time)) in records.iter().enumerate() {
            let value = format!("{number:0>50}");
            let record = BaseRecord::<(), str>::to(TOPIC)
                .partition(*partition)
                .payload(&value);
            producer.send(record.timestamp(*time)).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }

    async fn page(&self, query: &NewestFirst, take: Take<i64>) -> Result<Page<i64>, ReadProblem> {
        let credentials = KafkaCredentials::default();
        self.clients
            .newest_first(&self.kafka, &credentials, query, take)
            .await
    }

    async fn one(&self, partition: i32, offset: i64) -> Result<One<i64>, ReadProblem> {
        let credentials = KafkaCredentials::default();
        let at = (partition, offset);
        self.clients
            .record_at(&self.kafka, &credentials, TOPIC, at, all())
            .await
    }

    /// All pages, as partition, offset and what was kept.
    async fn pages(&self, mut query: NewestFirst, take: &Take<i64>) -> Vec<(i32, i64, i64)> {
        let mut all = Vec::new();
        for _ in 0..1000 {
            let page = self.page(&query, Arc::clone(take)).await.unwrap();
            assert!(page.entries.len() <= query.limit && page.problems.is_empty());
            let full = page.entries.len() == query.limit;
            assert!(full || page.partial || page.below.is_empty(), "{page:?}");
            for entry in page.entries {
                let Shown::Record(kept) = entry.shown else {
                    panic!("{entry:?}")
                };
                all.push((entry.partition, entry.offset, kept));
            }
            if page.below.is_empty() {
                return all;
            }
            (query.below, query.look) = (Some(page.below), 0);
            (query.begin, query.topic_id) = (page.begin, page.topic_id);
        }
        panic!("the pages have no end")
    }
}

fn all() -> Take<i64> {
    Arc::new(|_, record| Some(record.timestamp))
}

fn query(limit: usize) -> NewestFirst {
    NewestFirst {
        topic: TOPIC.into(),
        partition: None,
        below: None,
        begin: 0,
        topic_id: None,
        limit,
        look: 0,
    }
}

/// The order in which records have to come: always the partition whose newest record has the latest time.
fn expected(records: &[(i32, i64)]) -> Vec<(i32, i64, i64)> {
    let mut partitions: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for (partition, time) in records {
        let of = partitions.entry(*partition).or_default();
        of.push((i64::try_from(of.len()).unwrap(), *time));
    }
    let mut ordered = Vec::new();
    for _ in records {
        let heads = partitions
            .iter()
            .filter_map(|(index, left)| Some((*index, *left.last()?)));
        let (index, (offset, time)) = heads.rev().max_by_key(|(_, (_, time))| *time).unwrap();
        partitions.get_mut(&index).unwrap().pop();
        ordered.push((index, offset, time));
    }
    ordered
}

/// Times that are not in the order of the offsets, as dead letters have them.
fn records(count: i64) -> Vec<(i32, i64)> {
    (0..count)
        .map(|number| {
            (
                (number % 3) as i32,
                1_000_000 + number * 10 - number * number % 97,
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_records_come_once_and_the_newest_first_in_every_compression() {
    let records = records(600);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let fixture = Fixture::new(4);
        fixture.produce(codec, &records);
        for (limit, look) in [(7, 0), (200, 1000)] {
            let query = NewestFirst { look, ..query(limit) };
            let found = fixture.pages(query, &all()).await;
            assert_eq!(found, expected(&records), "{codec}, {limit} per page");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_matches_seldom_finds_all_matches_and_one_partition_is_enough() {
    let records = records(1500);
    let fixture = Fixture::new(3);
    fixture.produce("lz4", &records);
    let seldom: Take<i64> = Arc::new(|_, record| (record.offset % 100 == 7).then_some(record.timestamp));
    let found = fixture.pages(query(4), &seldom).await;
    let wanted: Vec<_> = expected(&records)
        .into_iter()
        .filter(|(_, offset, _)| offset % 100 == 7)
        .collect();
    let unordered = |found: &[(i32, i64, i64)]| found.iter().copied().collect::<HashSet<_>>();
    assert_eq!(
        (found.len(), unordered(&found)),
        (wanted.len(), unordered(&wanted))
    );
    let one = NewestFirst {
        partition: Some(1),
        ..query(50)
    };
    let found = fixture.pages(one, &all()).await;
    let offsets: Vec<i64> = found
        .iter()
        .map(|(partition, offset, _)| {
            assert_eq!(*partition, 1);
            *offset
        })
        .collect();
    assert_eq!(offsets, (0..500).rev().collect::<Vec<i64>>());
    let counted = NewestFirst {
        look: 1000,
        ..query(50)
    };
    let page = fixture.page(&counted, all()).await.unwrap();
    assert!(page.entries.len() == 50 && page.looked >= 1000, "{}", page.looked);
    let none: Take<i64> = Arc::new(|_, _| None);
    let page = fixture.page(&counted, none).await.unwrap();
    assert!(page.entries.is_empty() && page.looked >= 1000, "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_a_clear_answer() {
    let fixture = Fixture::new(2);
    fixture.produce("none", &[(0, 5), (0, 6)]);
    let of = |topic: &str| NewestFirst {
        topic: topic.into(),
        ..query(5)
    };
    assert_eq!(
        fixture.page(&of("missing"), all()).await,
        Err(ReadProblem::NoTopic)
    );
    let outside = NewestFirst {
        partition: Some(7),
        ..query(5)
    };
    assert_eq!(
        fixture.page(&outside, all()).await,
        Err(ReadProblem::NoPartition(2))
    );
    let other = NewestFirst {
        below: Some([(0, 3)].into()),
        ..query(5)
    };
    assert_eq!(fixture.page(&other, all()).await, Err(ReadProblem::BehindEnd(0)));
    assert_eq!(fixture.one(0, 1).await, Ok(One::Found(6)));
    assert_eq!(fixture.one(0, 2).await, Ok(One::NotYet(2)));
    assert_eq!(fixture.one(7, 0).await, Err(ReadProblem::NoPartition(2)));
    let empty = fixture
        .page(
            &NewestFirst {
                partition: Some(1),
                ..query(5)
            },
            all(),
        )
        .await
        .unwrap();
    assert!(empty.entries.is_empty() && empty.below.is_empty() && !empty.partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_moves_is_found_and_a_refusal_says_why() {
    let fixture = Fixture::new(1);
    fixture.produce("none", &[(0, 5), (0, 6)]);
    let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    fixture.mock.request_errors(RDKafkaApiKey::Fetch, &[moved]);
    let page = fixture.page(&query(5), all()).await.unwrap();
    assert_eq!((page.entries.len(), page.partial), (2, false));
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    fixture.mock.request_errors(RDKafkaApiKey::Fetch, &[denied]);
    match fixture.page(&query(5), all()).await {
        Err(ReadProblem::Kafka(KafkaProblem::AuthorizationFailed(why))) => {
            assert!(why.contains(TOPIC), "{why}")
        }
        other => panic!("{other:?}"),
    }
    fixture.mock.request_errors(RDKafkaApiKey::Fetch, &[moved; 50]);
    match fixture.page(&query(5), all()).await {
        Err(ReadProblem::Kafka(problem)) => assert_eq!(problem.reason(), "KafkaUnreachable"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_records_end_a_page_early_and_removed_ones_are_known_as_such() {
    let fixture = Fixture::new(1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", fixture.mock.bootstrap_servers())
        .create()
        .unwrap();
    let value = vec![b'x'; 900_000];
    for _ in 0..12 {
        producer
            .send(BaseRecord::<(), [u8]>::to(TOPIC).partition(0).payload(&value))
            .unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    }
    // The mock cluster keeps 5 MiB of a partition.
    let found = fixture.pages(query(50), &all()).await;
    assert!((3..12).contains(&found.len()), "{}", found.len());
    assert_eq!(found.first().map(|(_, offset, _)| *offset), Some(11));
    let start = found.last().unwrap().1;
    assert_eq!(fixture.one(0, 0).await, Ok(One::Removed(start)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_records_take_few_pages() {
    let fixture = Fixture::new(1);
    let records: Vec<(i32, i64)> = (0..60_000).map(|number| (0, 1_000_000 + number)).collect();
    fixture.produce("none", &records);
    let none: Take<i64> = Arc::new(|_, _| None);
    let (mut query, mut pages, mut looked) = (query(50), 0, 0);
    loop {
        let page = fixture.page(&query, Arc::clone(&none)).await.unwrap();
        (pages, looked) = (pages + 1, looked + page.looked);
        if page.below.is_empty() {
            break;
        }
        assert!(page.partial && pages < 20, "{pages} pages, {looked} records");
        query.below = Some(page.below);
    }
    assert_eq!(looked, 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_timestamp_does_not_hide_those_behind_it() {
    let fixture = Fixture::new(2);
    fixture.produce("none", &[(0, 900), (1, 100), (1, 200)]);
    fixture.produce("none", &[(0, -1)]);
    let page = fixture.page(&query(2), all()).await.unwrap();
    let found: Vec<_> = page
        .entries
        .iter()
        .map(|it| (it.partition, it.timestamp))
        .collect();
    assert_eq!(found, [(0, -1), (0, 900)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_ends_one_partition_for_this_page_and_says_so() {
    let fixture = Fixture::new(3);
    fixture.produce("none", &[(0, 5), (1, 6), (2, 7)]);
    let quota = RDKafkaRespErr::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED;
    fixture.mock.request_errors(RDKafkaApiKey::Fetch, &[quota]);
    let page = fixture.page(&query(5), all()).await.unwrap();
    assert!(page.partial, "{page:?}");
    let [(partition, why)] = &page.problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{page:?}")
    };
    assert!(why.contains("quota"), "{why}");
    assert!(page.below.contains_key(partition), "the next page tries it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_begins_with_the_partitions_that_the_one_before_did_not_reach() {
    let fixture = Fixture::new(12);
    fixture.produce(
        "none",
        &(0..12).map(|partition| (partition, 5)).collect::<Vec<_>>(),
    );
    for (begin, last) in [(0, 12), (5, 5), (12, 12)] {
        let from = NewestFirst { begin, ..query(50) };
        let page = fixture.page(&from, all()).await.unwrap();
        assert_eq!((page.entries.len(), page.begin), (12, last), "from {begin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_topic_that_was_created_again_is_refused() {
    let fixture = Fixture::new(1);
    fixture.produce("none", &[(0, 5), (0, 6)]);
    let first = fixture.page(&query(1), all()).await.unwrap();
    let id = first.topic_id.clone();
    assert!(id.is_some());
    let next = |topic_id| NewestFirst {
        below: Some(first.below.clone()),
        topic_id,
        ..query(1)
    };
    for known in [id, None] {
        let page = fixture.page(&next(known), all()).await.unwrap();
        assert_eq!(page.entries.first().map(|it| it.offset), Some(0));
    }
    let other = next(Some("AAAAAAAAAAAAAAAAAAAAAQ".into()));
    assert_eq!(fixture.page(&other, all()).await, Err(ReadProblem::OtherTopic));
}
