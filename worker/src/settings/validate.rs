//! Checks the values of a configuration document. The operator renders only what the API server has accepted,
//! so these messages address users who write or change the document by hand. Pure.

mod fields;
mod outputs;
mod until;

use std::{collections::HashSet, fmt, ops::RangeInclusive};

use crds::{
    WorkerConfig,
    spec::{
        ALLOWED_CLIENT_CONFIG, CLASSIC_ONLY_CLIENT_CONFIG, DeliveryGuarantee, GROUP_PROTOCOL_MESSAGE,
        GroupProtocol, IsolationLevel, OnExhausted, Ordering, StartPositionType, WriterType, bounds,
    },
};

/// A field, what is wrong with it, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path in the document.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[derive(Default)]
struct Check(Vec<FieldError>);

impl Check {
    fn fail(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError {
            field: field.into(),
            message: message.into(),
        });
    }

    fn range(&mut self, field: &str, value: impl Into<i64>, allowed: RangeInclusive<i64>) {
        let value = value.into();
        if !allowed.contains(&value) {
            let message = format!(
                "{value} is out of range; write a number from {} to {}",
                allowed.start(),
                allowed.end()
            );
            self.fail(field, message);
        }
    }

    fn unique<'a>(&mut self, field: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashSet::new();
        for name in names {
            if name.is_empty() {
                self.fail(field, "a name is empty; give every entry a name");
            } else if !seen.insert(name) {
                self.fail(field, format!("{name:?} occurs twice; use each name once"));
            }
        }
    }
}

/// All errors of the document.
pub(super) fn check(config: &WorkerConfig) -> Vec<FieldError> {
    let mut check = Check::default();
    if config.group_id.is_empty() {
        check.fail("groupId", "is empty; write the consumer group's id");
    }
    if config.topics.is_empty() {
        check.fail("topics", "is empty; write at least one topic");
    }
    if config.writers.is_empty() {
        check.fail(
            "writers",
            "is empty; write at least one, for example {\"name\": \"out\", \"type\": \"Stdout\"}",
        );
    }
    check.unique("topics", config.topics.iter().map(String::as_str));
    check.unique(
        "transforms",
        config.transforms.iter().map(|transform| &*transform.name),
    );
    check.unique("writers", config.writers.iter().map(|writer| &*writer.name));
    check.range("drainSeconds", config.drain_seconds, 1..=86_400);
    fields::check(config, &mut check);
    until::check(config, &mut check);
    connection(config, &mut check);
    processing(config, &mut check);
    failures(config, &mut check);
    check.0
}

fn connection(config: &WorkerConfig, check: &mut Check) {
    if config.kafka.bootstrap_servers.is_empty() {
        check.fail(
            "kafka.bootstrapServers",
            "is empty; write at least one \"host:port\"",
        );
    }
    for key in config.kafka.client_config.keys() {
        if !ALLOWED_CLIENT_CONFIG.contains(&key.as_str()) {
            let message =
                format!("{key:?} is not allowed; remove it, or use the field of the resource that sets it");
            check.fail("kafka.clientConfig", message);
        }
    }
    let broker_decides = config.consumer.group_protocol == GroupProtocol::Consumer;
    let set = |key: &&str| config.kafka.client_config.contains_key(*key);
    if broker_decides && CLASSIC_ONLY_CLIENT_CONFIG.iter().any(set) {
        check.fail("kafka.clientConfig", GROUP_PROTOCOL_MESSAGE);
    }
    let start = &config.consumer.start_position;
    if (start.kind == StartPositionType::Timestamp) != start.timestamp.is_some() {
        check.fail(
            "consumer.startPosition",
            "timestamp must be set if type is Timestamp, and only then; set it, or change the type",
        );
    }
}

fn processing(config: &WorkerConfig, check: &mut Check) {
    let processing = &config.processing;
    if let Some(concurrency) = processing.concurrency {
        check.range("processing.concurrency", concurrency, bounds::CONCURRENCY);
    }
    check.range(
        "processing.commitIntervalMilliseconds",
        processing.commit_interval_milliseconds,
        bounds::COMMIT_INTERVAL_MILLISECONDS,
    );
    if let Some(limit) = processing.records_per_second {
        check.range("processing.recordsPerSecond", limit, bounds::RECORDS_PER_SECOND);
    }
    check.range(
        "processing.batch.maxRecords",
        processing.batch.max_records,
        bounds::BATCH_MAX_RECORDS,
    );
    check.range(
        "processing.batch.maxBytes",
        processing.batch.max_bytes,
        bounds::BATCH_MAX_BYTES,
    );
    if let Some(linger) = processing.batch.linger_milliseconds {
        check.range(
            "processing.batch.lingerMilliseconds",
            linger,
            bounds::BATCH_LINGER_MILLISECONDS,
        );
    }
    if processing.delivery_guarantee == DeliveryGuarantee::ExactlyOnce {
        exactly_once(config, check);
    }
}

fn exactly_once(config: &WorkerConfig, check: &mut Check) {
    let transactional =
        |writer: &crds::spec::Writer| matches!(writer.kind, WriterType::Kafka | WriterType::Postgres);
    if !matches!(&config.writers[..], [writer] if transactional(writer)) {
        check.fail(
            "processing.deliveryGuarantee",
            "ExactlyOnce needs exactly one writer, of type Kafka or Postgres, because only these can store records and \
             offsets in one transaction; use one such writer, or AtLeastOnce",
        );
    }
    if config.processing.ordering == Ordering::Unordered {
        check.fail(
            "processing.ordering",
            "Unordered cannot be combined with ExactlyOnce; use PerPartition or PerKey, or AtLeastOnce",
        );
    }
    if config.consumer.isolation_level != IsolationLevel::ReadCommitted {
        check.fail(
            "consumer.isolationLevel",
            "ReadUncommitted cannot be combined with ExactlyOnce; use ReadCommitted, or AtLeastOnce",
        );
    }
}

fn failures(config: &WorkerConfig, check: &mut Check) {
    let retry = &config.error_handling.retry;
    check.range(
        "errorHandling.retry.maxAttempts",
        retry.max_attempts,
        bounds::RETRY_MAX_ATTEMPTS,
    );
    check.range(
        "errorHandling.retry.initialBackoffMilliseconds",
        retry.initial_backoff_milliseconds,
        bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS,
    );
    check.range(
        "errorHandling.retry.maxBackoffSeconds",
        retry.max_backoff_seconds,
        bounds::RETRY_MAX_BACKOFF_SECONDS,
    );
    check.range(
        "errorHandling.retry.jitterPercent",
        retry.jitter_percent,
        bounds::RETRY_JITTER_PERCENT,
    );
    if i64::from(retry.max_backoff_seconds) * 1000 < i64::from(retry.initial_backoff_milliseconds) {
        check.fail(
            "errorHandling.retry.maxBackoffSeconds",
            "is shorter than initialBackoffMilliseconds; raise it, or start with a shorter wait",
        );
    }
    check.range(
        "errorHandling.transformTimeoutSeconds",
        config.error_handling.transform_timeout_seconds,
        bounds::TRANSFORM_TIMEOUT_SECONDS,
    );
    check.range(
        "errorHandling.stalledAfterSeconds",
        config.error_handling.stalled_after_seconds,
        bounds::STALLED_AFTER_SECONDS,
    );
    if let Some(breaker) = config
        .error_handling
        .dead_letter
        .as_ref()
        .and_then(|dead_letter| dead_letter.breaker.as_ref())
    {
        check.range(
            "errorHandling.deadLetter.breaker.maxConsecutive",
            breaker.max_consecutive,
            bounds::BREAKER_MAX_CONSECUTIVE,
        );
        check.range(
            "errorHandling.deadLetter.breaker.maxRatioPercent",
            breaker.max_ratio_percent,
            bounds::BREAKER_MAX_RATIO_PERCENT,
        );
        if config.error_handling.policy() != OnExhausted::DeadLetter {
            check.fail(
                "errorHandling.deadLetter.breaker",
                "works only with onExhausted DeadLetter; remove the breaker, or set onExhausted DeadLetter",
            );
        }
    }
    outputs::check(config, check);
}
