//! The dead letter topic: the record byte for byte, with headers that say where it came from and why it is there. A
//! record counts as finished only after the broker has confirmed the copy; while the topic does not take records, the
//! partition waits.

use std::{sync::Arc, time::Duration};

use crate::{
    batch::Failure,
    planted::{impatient, now_and_then, planted},
    producer::{ProduceRecord, Producer},
    progress::{Progress, truncate},
    record::Record,
    retry::RetryPolicy,
    snapshot::PausedReason,
};

/// Prefix of all headers we add; headers with it are replaced when a record is dead-lettered again, so that redriven
/// records do not grow.
pub const HEADER_PREFIX: &str = "kafka-consumer.dev/";

/// After this long without a confirmation the partition counts as held back.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(5);

/// Where failed records go.
pub struct DeadLetters {
    producer: Producer,
    topic: String,
    group: String,
    worker: String,
}

/// A failure to be dead-lettered.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What is wrong and with which record of the chunk.
    pub failure: Failure,
    /// Attempts it took.
    pub attempts: u32,
}

impl DeadLetters {
    /// Sends to `topic` with `producer`; `group` and `worker` go into the headers.
    pub fn new(producer: Producer, topic: String, group: String, worker: String) -> Self {
        Self {
            producer,
            topic,
            group,
            worker,
        }
    }

    /// Writes all letters, in order, and returns when every one of them is confirmed: after minutes or hours if need
    /// be.
    pub async fn write(&self, letters: &[(Record<'_>, &Letter)], retry: &RetryPolicy, progress: &Progress) {
        let mut todo: Vec<usize> = (0..letters.len()).collect();
        if planted("drop-dead-letter") && now_and_then(5) {
            todo.clear();
        }
        if planted("dead-letter-twice") {
            todo.extend(0..letters.len());
        }
        let mut failures = 0;
        let started = tokio::time::Instant::now();
        while !todo.is_empty() {
            // Unknown for now: the key decides; whether the topic is there, the send itself tells.
            let partitions = self.producer.partition_count(&self.topic).await.ok();
            let texts: Vec<Headers> = todo
                .iter()
                .map(|at| self.headers(&letters[*at].0, letters[*at].1))
                .collect();
            let records: Vec<ProduceRecord<'_>> = todo
                .iter()
                .zip(&texts)
                .map(|(at, headers)| self.copy(&letters[*at].0, headers, partitions))
                .collect();
            let send = self.producer.send(&records);
            let results = if planted("dead-letter-not-awaited") {
                impatient(send, || vec![Ok(()); records.len()]).await
            } else {
                send.await
            };
            let mut error = None;
            let mut results = results.into_iter();
            todo.retain(|_| match results.next() {
                Some(Ok(())) => false,
                Some(Err(failed)) => {
                    error.get_or_insert(failed.to_string());
                    true
                }
                None => true,
            });
            let Some(error) = error else { continue };
            failures += 1;
            let message = format!("dead letter topic {}: {error}", self.topic);
            if u32::is_power_of_two(failures) {
                tracing::warn!(topic = %self.topic, attempt = failures, "{message}; nothing is committed past these records");
            }
            progress.failing(failures, &message);
            if started.elapsed() >= UNAVAILABLE_AFTER {
                progress.hold(PausedReason::DeadLetterUnavailable);
            }
            tokio::time::sleep(retry.random_backoff(failures)).await;
        }
        progress.recovered();
    }

    fn copy<'a>(
        &'a self,
        record: &Record<'a>,
        headers: &'a Headers,
        partitions: Option<i32>,
    ) -> ProduceRecord<'a> {
        // The same partition keeps the order of a key's dead letters; without it, the key decides.
        let source = record.partition().partition;
        let partition = partitions.filter(|count| source < *count).map(|_| source);
        let original = record
            .headers()
            .filter(|(name, _)| !name.starts_with(HEADER_PREFIX.as_bytes()));
        let ours = headers
            .0
            .iter()
            .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        ProduceRecord {
            topic: &self.topic,
            partition,
            timestamp: (record.timestamp >= 0).then_some(record.timestamp),
            key: record.key,
            value: record.value,
            headers: if planted("dead-letter-without-headers") {
                ours.collect()
            } else {
                original.chain(ours).collect()
            },
        }
    }

    fn headers(&self, record: &Record<'_>, letter: &Letter) -> Headers {
        let partition = record.partition();
        let header = |name: &str, value: String| (format!("{HEADER_PREFIX}{name}"), value);
        let class = match letter.failure.stage.as_str() {
            "write" => "Rejected",
            "decode" => "Undecodable",
            _ => "TransformFailed",
        };
        Headers(vec![
            header("topic", partition.topic.to_string()),
            header("partition", partition.partition.to_string()),
            header("offset", record.offset.to_string()),
            header("timestamp", record.timestamp.to_string()),
            header("group", self.group.clone()),
            header("worker", self.worker.clone()),
            header("stage", letter.failure.stage.as_str().to_owned()),
            header("component", letter.failure.component.to_string()),
            header("attempts", letter.attempts.to_string()),
            header("error-class", class.to_owned()),
            header("error-message", truncate(&letter.failure.message)),
        ])
    }
}

/// Names and values of the headers we add, all text.
struct Headers(Vec<(String, String)>);

/// What happens to a record that cannot be processed.
#[derive(Clone)]
pub enum FailurePolicy {
    /// Write it to the dead letter topic.
    DeadLetter(Arc<DeadLetters>),
    /// Wait at it.
    Stop,
    /// Drop and count it.
    Skip,
}
