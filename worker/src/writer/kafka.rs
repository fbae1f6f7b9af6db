//! Produces to a topic of the same cluster. Keeps key, value, headers and timestamp; the key determines the
//! partition. Delivery is at least once. If the broker does not confirm part of a batch, the writer remembers
//! the confirmed part, so that the next call with the same records sends only the rest. After a crash in
//! between, records are written twice.
//!
//! Inside transactions the writer remembers no confirmed part, because everything is written again. It
//! remembers only records that the broker is known to reject ([`RejectedRecords`]).

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;

use super::{
    Rejected, WriteBatch, WriteError, Writer,
    partial_writes::{OutputId, PartialWrites, id},
};
use crate::{
    kafka::producer::{ProduceRecord, Producer, SendError, timestamp_of},
    record::{batch::OutputRecord, failure::FailureClass},
    seeded_bugs::{impatient, now_and_then, seeded_bug},
    transaction::RejectedRecords,
};

/// Writes to one topic.
pub struct KafkaWriter {
    topic: String,
    producer: Producer,
    partial_writes: PartialWrites,
    /// Set with a transactional producer.
    rejected_records: Option<Arc<RejectedRecords>>,
}

impl KafkaWriter {
    /// Writes to `topic` through the worker's producer.
    pub fn new(topic: &str, producer: Producer) -> Self {
        Self {
            topic: topic.into(),
            producer,
            partial_writes: PartialWrites::default(),
            rejected_records: None,
        }
    }

    /// Writes to `topic` inside transactions.
    pub fn transactional(topic: &str, producer: Producer, rejected_records: Arc<RejectedRecords>) -> Self {
        Self {
            rejected_records: Some(rejected_records),
            ..Self::new(topic, producer)
        }
    }

    /// Writes all outputs of a record or none, because a single write cannot be undone.
    async fn produce_in_transaction(
        &self,
        batch: WriteBatch<'_>,
        rejected_records: &RejectedRecords,
    ) -> Result<Vec<Rejected>, WriteError> {
        let all: Vec<OutputRecord<'_>> = batch.records().collect();
        if batch.is_after_a_wait() {
            all.iter().for_each(|output| rejected_records.forget(output));
        }
        let mut rejected: Vec<Rejected> = all
            .iter()
            .enumerate()
            .filter_map(|(position, output)| Some(rejection(position, rejected_records.of(output)?)))
            .collect();
        let failed: HashSet<usize> = rejected.iter().map(|known| all[known.position].source).collect();
        let positions: Vec<usize> = (0..all.len())
            .filter(|position| !failed.contains(&all[*position].source))
            .collect();
        let mut records: Vec<ProduceRecord<'_>> = positions
            .iter()
            .map(|position| to_produce(&self.topic, &all[*position]))
            .collect();
        apply_seeded_bugs(&mut records);
        let results = self.producer.send_in(batch.transaction(), &records).await;
        let alone = |position: usize| {
            let source = |other: usize| all.get(other).map(|output| output.source);
            let same = |other: usize| source(other) == source(position);
            !(same(position + 1) || position > 0 && same(position - 1))
        };
        let mut worst: Option<&SendError> = None;
        for ((result, position), record) in results.iter().zip(&positions).zip(&records) {
            let Err(error) = result else { continue };
            let output = &all[*position];
            if error.class == FailureClass::Record && !error.in_doubt {
                if alone(*position) {
                    rejected.push(rejection(*position, error.message.clone()));
                    continue;
                }
                // The record's other outputs may be in the transaction already: the batch has to be written
                // again without this record.
                rejected_records.reject(output, error.message.clone());
            }
            if error.in_doubt {
                rejected_records.suspect(output, record);
            }
            if worst.is_none_or(|worst| worst.class == FailureClass::Transient) {
                worst = Some(error);
            }
        }
        let Some(error) = worst else { return Ok(rejected) };
        Err(WriteError::new(error.class, error.message.clone()))
    }

    async fn produce(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let skip = self.partial_writes.take(&batch);
        let mut positions = Vec::with_capacity(batch.len());
        let mut records = Vec::with_capacity(batch.len());
        for (position, record) in batch.records().enumerate() {
            if !skip.contains(&id(&record)) {
                positions.push(position);
                records.push(to_produce(&self.topic, &record));
            }
        }
        apply_seeded_bugs(&mut records);
        let send = self.producer.send(&records);
        let results = if seeded_bug("write-not-awaited") {
            impatient(send, || vec![Ok(()); records.len()]).await
        } else {
            send.await
        };
        let mut rejected = Vec::new();
        let mut worst: Option<&SendError> = None;
        for (result, position) in results.iter().zip(&positions) {
            match result {
                Err(error) if error.class == FailureClass::Record => {
                    rejected.push(rejection(*position, error.message.clone()));
                }
                Err(error) if worst.is_none_or(|worst| worst.class != FailureClass::Systemic) => {
                    worst = Some(error)
                }
                _ => {}
            }
        }
        let Some(error) = worst else { return Ok(rejected) };
        self.partial_writes
            .remember(&batch, written(&batch, skip, &positions, &records, &results));
        Err(WriteError::new(error.class, error.message.clone()))
    }
}

fn rejection(position: usize, message: String) -> Rejected {
    Rejected {
        position,
        message,
        retryable: false,
        in_doubt: false,
    }
}

/// Seeded bugs, to test the checker.
fn apply_seeded_bugs(records: &mut Vec<ProduceRecord<'_>>) {
    if seeded_bug("ignore-writer-error") && now_and_then(20) {
        // As if the last record had failed unnoticed.
        records.pop();
    }
    if seeded_bug("duplicate-write") && now_and_then(20) {
        records.extend_from_within(..);
    }
    if seeded_bug("reorder-within-batch") {
        records.reverse();
    }
    if seeded_bug("swap-keys")
        && let [first, .., last] = &mut records[..]
    {
        std::mem::swap(&mut first.key, &mut last.key);
    }
    for record in records {
        if seeded_bug("corrupt-value") && now_and_then(50) {
            record.value = Some(b"{}");
        }
        if seeded_bug("wrong-key") && now_and_then(50) {
            record.key = Some(b"0-0");
        }
        if seeded_bug("timestamp-of-now") {
            record.timestamp = None;
        }
    }
}

/// The outputs of a failed batch that are written. A record behind an unwritten one with the same key does
/// not count: it has to come after it, so it is written again.
fn written(
    batch: &WriteBatch<'_>,
    before: HashSet<OutputId>,
    positions: &[usize],
    records: &[ProduceRecord<'_>],
    results: &[Result<(), SendError>],
) -> HashSet<OutputId> {
    let outputs: Vec<OutputId> = batch.records().map(|record| id(&record)).collect();
    let mut written = before;
    let mut late = HashSet::new();
    for ((position, record), result) in positions.iter().zip(records).zip(results) {
        match result {
            Ok(()) if record.key.is_none_or(|key| !late.contains(key)) => {
                written.insert(outputs[*position]);
            }
            // Rejected permanently: the next call reports it again.
            Err(error) if error.class == FailureClass::Record => {}
            _ => late.extend(record.key),
        }
    }
    written
}

fn to_produce<'a>(topic: &'a str, record: &OutputRecord<'a>) -> ProduceRecord<'a> {
    ProduceRecord {
        topic,
        partition: None,
        timestamp: timestamp_of(record.record.timestamp),
        key: record.key,
        value: record.value,
        headers: record.record.headers().collect(),
    }
}

impl Writer for KafkaWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        match &self.rejected_records {
            Some(rejected_records) => Box::pin(self.produce_in_transaction(batch, rejected_records)),
            None => Box::pin(self.produce(batch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, TopicPartition, batch::Batch};

    #[test]
    fn a_record_behind_an_unwritten_one_of_its_key_is_written_again() {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, key) in [b"a", b"b", b"a", b"c"].iter().enumerate() {
            chunk.push(offset as i64, 7, Some(key.as_slice()), None, []);
        }
        let batch = Batch::identity(Arc::new(chunk));
        let batch = WriteBatch::new(&batch, &[0, 1, 2, 3]);
        let records: Vec<ProduceRecord<'_>> =
            Vec::from_iter(batch.records().map(|record| to_produce("u", &record)));
        assert_eq!(
            (records[0].timestamp, records[0].partition, records[0].value),
            (Some(7), None, None)
        );
        let error = |class| {
            Err(SendError {
                message: String::new(),
                class,
                refusal: None,
                fatal: false,
                in_doubt: false,
            })
        };
        let results = [
            error(FailureClass::Transient),
            Ok(()),
            Ok(()),
            error(FailureClass::Record),
        ];
        let written = written(&batch, HashSet::new(), &[0, 1, 2, 3], &records, &results);
        assert_eq!(written, HashSet::from([(1, 0)]));
    }
}
