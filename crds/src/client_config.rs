//! The librdkafka properties of a group, as a plain map. Operator and worker compute them here, so that both
//! connect to the same cluster in the same way. Pure: secrets are passed in as values and are never logged.

use std::collections::BTreeMap;

use crate::spec::{
    Compression, Consumer, GroupProtocol, IsolationLevel, Kafka, SaslMechanism, ServerVerification,
};

/// A map of librdkafka properties.
pub type Properties = BTreeMap<String, String>;

/// The values that the references of `spec.kafka` resolve to. Debug never shows them.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct KafkaCredentials {
    /// PEM bundle of certificate authorities.
    pub ca_pem: Option<String>,
    /// Client certificate chain, PEM.
    pub certificate_pem: Option<String>,
    /// Client private key, PEM.
    pub key_pem: Option<String>,
    /// SASL user name.
    pub username: Option<String>,
    /// SASL password.
    pub password: Option<String>,
}

impl std::fmt::Debug for KafkaCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaCredentials").finish_non_exhaustive()
    }
}

/// Properties of every client of the group: brokers, the user's properties, then security.
pub fn connection(kafka: &Kafka, credentials: &KafkaCredentials) -> Properties {
    let mut properties = Properties::new();
    let mut set = |key: &str, value: &str| properties.insert(key.to_string(), value.to_string());
    set("bootstrap.servers", &kafka.bootstrap_servers.join(","));
    set(
        "security.protocol",
        match (kafka.tls.is_some(), kafka.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        },
    );
    // Brokers restart often in Kubernetes. With the default of up to 10 s between attempts, clients recover
    // too slowly.
    set("reconnect.backoff.ms", "100");
    set("reconnect.backoff.max.ms", "2000");
    set("socket.keepalive.enable", "true");
    set("allow.auto.create.topics", "false");
    for (key, value) in &kafka.client_config {
        set(key, &value.0);
    }
    if let Some(tls) = &kafka.tls {
        if tls.server_verification == ServerVerification::Disabled {
            set("enable.ssl.certificate.verification", "false");
        }
        for (key, pem) in [
            ("ssl.ca.pem", &credentials.ca_pem),
            ("ssl.certificate.pem", &credentials.certificate_pem),
            ("ssl.key.pem", &credentials.key_pem),
        ] {
            if let Some(pem) = pem {
                set(key, pem);
            }
        }
    }
    if let Some(sasl) = &kafka.sasl {
        set("sasl.mechanism", SaslMechanism::as_str(sasl.mechanism));
        set(
            "sasl.username",
            credentials.username.as_deref().unwrap_or_default(),
        );
        set(
            "sasl.password",
            credentials.password.as_deref().unwrap_or_default(),
        );
    }
    properties
}

/// Properties of the worker's consumer.
pub fn consumer(
    kafka: &Kafka,
    credentials: &KafkaCredentials,
    group_id: &str,
    consumer: &Consumer,
) -> Properties {
    let connection = connection(kafka, credentials);
    let mut properties = Properties::new();
    let mut set = |key: &str, value: &str| properties.insert(key.to_string(), value.to_string());
    // librdkafka waits this long after a full queue before the next fetch. Its default of 1 s reduces
    // throughput to a quarter.
    set("fetch.queue.backoff.ms", "20");
    // The consumer must find new partitions soon; the default is 5 minutes.
    set("topic.metadata.refresh.interval.ms", "10000");
    if consumer.group_protocol == GroupProtocol::Classic {
        // Members learn of a rebalance by their next heartbeat, and moving a partition takes two rebalances.
        // With the default of 3 s, the partitions of a stopped worker were idle for 5 s.
        set("heartbeat.interval.ms", "1000");
    }
    for (key, value) in &connection {
        set(key, value);
    }
    set("group.id", group_id);
    match consumer.group_protocol {
        GroupProtocol::Classic => set("partition.assignment.strategy", "cooperative-sticky"),
        GroupProtocol::Consumer => set("group.protocol", "consumer"),
    };
    // The worker commits offsets itself, of finished records only.
    set("enable.auto.commit", "false");
    set("enable.auto.offset.store", "false");
    // Applies to partitions without a committed offset. The operator commits the start positions of the
    // partitions that exist when the group is created, so only new partitions are left, and they start at
    // their first record.
    set("auto.offset.reset", "earliest");
    // If enabled, the batch call of librdkafka 2.12 moves the position past a record that was not read yet.
    set("enable.partition.eof", "false");
    set("isolation.level", isolation_level(consumer.isolation_level));
    properties.retain(|key, _| !PRODUCER_ONLY.contains(&key.as_str()));
    properties
}

/// Properties of the worker's producer, for the Kafka writer and for dead letters.
pub fn producer(kafka: &Kafka, credentials: &KafkaCredentials, compression: Compression) -> Properties {
    let mut properties = Properties::new();
    let mut set = |key: &str, value: &str| properties.insert(key.to_string(), value.to_string());
    set("linger.ms", "1");
    set("batch.size", "1048576");
    // Brokers and topics limit the size of records, not the client: the worker can write and dead-letter
    // every record that it could read.
    set("message.max.bytes", "104857600");
    // The producer finds a topic that is created late soon (default 5 minutes), and reports a missing topic
    // after 5 s (default 30 s).
    set("topic.metadata.refresh.interval.ms", "10000");
    set("topic.metadata.propagation.max.ms", "5000");
    for (key, value) in connection(kafka, credentials) {
        if !CONSUMER_ONLY.contains(&key.as_str()) {
            set(&key, &value);
        }
    }
    set("enable.idempotence", "true");
    set("acks", "all");
    // Murmur2 like the Java client, so that a key goes to the same partition as with other producers.
    set("partitioner", "murmur2_random");
    // librdkafka fails a message after 5 minutes; the worker's own retry then produces it again.
    set("message.timeout.ms", "300000");
    set(
        "compression.type",
        match compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        },
    );
    properties
}

/// The `transactional.id`s of a worker's two producers with ExactlyOnce: while one commits, the other writes.
/// They stay the same when a worker restarts, so that the broker aborts its open transactions at once.
pub fn transactional_ids(group_id: &str, worker: &str) -> [String; 2] {
    let first = format!("{group_id}.{worker}");
    let second = format!("{first}.second");
    [first, second]
}

/// Properties of one of the worker's producers with ExactlyOnce: `transactional_id` is one of
/// [`transactional_ids`].
pub fn transactional_producer(
    kafka: &Kafka,
    credentials: &KafkaCredentials,
    compression: Compression,
    transactional_id: &str,
    commit_interval_milliseconds: i32,
) -> Properties {
    let mut properties = producer(kafka, credentials, compression);
    let mut set = |key: &str, value: String| properties.insert(key.to_string(), value);
    set("transactional.id", transactional_id.to_string());
    // A transaction lasts for a commit interval, plus the time for its last records and the commit. The
    // broker aborts the transaction of a dead worker after this time; until then read_committed consumers
    // wait behind it.
    let timeout = commit_interval_milliseconds + TRANSACTION_ALLOWANCE_MILLISECONDS;
    set("transaction.timeout.ms", timeout.to_string());
    // A record that no broker confirms in time aborts the transaction, and the worker retries it as a whole.
    set("message.timeout.ms", MESSAGE_TIMEOUT_MILLISECONDS.to_string());
    // Consumers see the records after the commit, so waiting for larger requests costs them nothing.
    if !kafka.client_config.contains_key("linger.ms") {
        set("linger.ms", "5".into());
    }
    // Each partition has to be added to the transaction before its first record, and gets a marker at the
    // end. So in short transactions, records without a key go to few partitions, and not to another one every
    // 10 ms as by default.
    let sticky = (commit_interval_milliseconds / 2).clamp(10, 100);
    set("sticky.partitioning.linger.ms", sticky.to_string());
    properties
}

/// Longer than a leader election takes, which is a few seconds.
const MESSAGE_TIMEOUT_MILLISECONDS: i32 = 10_000;

/// Time for the last record of a transaction, and the same time again for the commit.
const TRANSACTION_ALLOWANCE_MILLISECONDS: i32 = 2 * MESSAGE_TIMEOUT_MILLISECONDS;

const PRODUCER_ONLY: &[&str] = &["linger.ms"];

const CONSUMER_ONLY: &[&str] = &[
    "check.crcs",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// Kafka's spelling of the isolation level.
pub fn isolation_level(isolation: IsolationLevel) -> &'static str {
    match isolation {
        IsolationLevel::ReadCommitted => "read_committed",
        IsolationLevel::ReadUncommitted => "read_uncommitted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::spec::CLASSIC_ONLY_CLIENT_CONFIG;
    fn kafka(yaml: &str) -> Kafka {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn tls_and_sasl_choose_the_protocol_and_carry_the_secrets() {
        let kafka = kafka(
            "{bootstrapServers: ['a:1', 'b:2'], tls: {}, sasl: {mechanism: SCRAM-SHA-512, credentials: {secretName: s}}}",
        );
        let credentials = KafkaCredentials {
            ca_pem: Some("CA".into()),
            username: Some("alice".into()),
            password: Some("secret".into()),
            ..Default::default()
        };
        let properties = connection(&kafka, &credentials);
        assert_eq!(properties["bootstrap.servers"], "a:1,b:2");
        assert_eq!(properties["security.protocol"], "sasl_ssl");
        assert_eq!(properties["sasl.mechanism"], "SCRAM-SHA-512");
        assert_eq!(properties["sasl.password"], "secret");
        assert_eq!(properties["ssl.ca.pem"], "CA");
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn users_tune_fetching_but_cannot_touch_offsets() {
        let kafka = kafka("{bootstrapServers: ['a:1'], clientConfig: {fetch.queue.backoff.ms: '50'}}");
        let properties = consumer(&kafka, &KafkaCredentials::default(), "g", &Consumer::default());
        assert_eq!(properties["fetch.queue.backoff.ms"], "50");
        assert_eq!(properties["enable.auto.offset.store"], "false");
        assert_eq!(properties["auto.offset.reset"], "earliest");
        let properties = producer(&kafka, &KafkaCredentials::default(), Compression::Lz4);
        assert!(!properties.contains_key("fetch.queue.backoff.ms"));
    }

    #[test]
    fn a_record_times_out_before_its_transaction() {
        let kafka = kafka("{bootstrapServers: ['a:1']}");
        let credentials = KafkaCredentials::default();
        let properties =
            transactional_producer(&kafka, &credentials, Compression::None, "shop.orders.w-1", 60_000);
        assert_eq!(properties["transactional.id"], "shop.orders.w-1");
        let number = |key: &str| properties[key].parse::<i32>().unwrap();
        assert!(number("message.timeout.ms") < number("transaction.timeout.ms") - 60_000);
        assert_eq!(number("sticky.partitioning.linger.ms"), 100);
        assert_eq!(properties["enable.idempotence"], "true");
    }

    #[test]
    fn the_group_protocol_decides_who_computes_the_assignment() {
        let kafka = kafka("{bootstrapServers: ['a:1']}");
        let properties = |group_protocol| {
            let settings = Consumer {
                group_protocol,
                ..Consumer::default()
            };
            consumer(&kafka, &KafkaCredentials::default(), "g", &settings)
        };
        let classic = properties(GroupProtocol::Classic);
        assert_eq!(classic["partition.assignment.strategy"], "cooperative-sticky");
        assert_eq!(classic["heartbeat.interval.ms"], "1000");
        assert!(!classic.contains_key("group.protocol"));
        let new = properties(GroupProtocol::Consumer);
        assert_eq!(new["group.protocol"], "consumer");
        for key in CLASSIC_ONLY_CLIENT_CONFIG
            .iter()
            .chain(&["partition.assignment.strategy", "group.protocol.type"])
        {
            assert!(!new.contains_key(*key), "{key} is rejected with the new protocol");
        }
    }
}
