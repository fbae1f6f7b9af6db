//! Records that the broker has rejected inside a transaction. The broker rejects whole record batches,
//! including valid records in them, and the rejection fails the transaction, so nothing more can be found out
//! inside it. The writer stores the suspects here. After the abort, each suspect is sent alone, in a
//! transaction that is aborted as well. When the worker reads the records again, the writer finds here which
//! ones to reject, and what the dead letter topic refuses of which dead letter. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use crate::sync;
use crate::{
    kafka::producer::{ProduceRecord, Refusal, SendError},
    record::{Offset, Record, TopicPartition, batch::OutputRecord},
};

/// An output: the record that it was made from, and its number.
type OutputKey = (TopicPartition, Offset, u32);

/// Maximum number of remembered outputs. Beyond it, all are forgotten and have to be found out again.
const MOST: usize = 100_000;

/// A record whose dead letter is meant.
type DeadLetterKey = (TopicPartition, Offset);

/// What a suspect is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SuspectId {
    Output(OutputKey),
    DeadLetter(DeadLetterKey),
}

/// A record to be sent alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    id: SuspectId,
    topic: String,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Suspect {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.value)
    }

    pub fn record(&self) -> ProduceRecord<'_> {
        ProduceRecord {
            topic: &self.topic,
            partition: None,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (&**name, value.as_deref()))
                .collect(),
        }
    }
}

/// Suspects and confirmed rejections, shared by the writer and the transactor.
#[derive(Debug, Default)]
pub struct RejectedRecords(Mutex<KnownRejections>);

#[derive(Debug, Default)]
struct KnownRejections {
    suspects: Vec<Suspect>,
    rejected: HashMap<OutputKey, String>,
    /// What the topic has refused of each dead letter, in this order.
    refusals: HashMap<DeadLetterKey, Vec<Refusal>>,
}

impl RejectedRecords {
    /// Why the broker rejects this output, if that is known.
    pub(crate) fn of(&self, output: &OutputRecord<'_>) -> Option<String> {
        let state = self.state();
        if state.rejected.is_empty() {
            return None;
        }
        state.rejected.get(&id(output)).cloned()
    }

    /// What the dead letter topic has refused of the record's dead letter so far, in this order. It stays known
    /// while the record may be read again, because every abort repeats the record with all others.
    pub(crate) fn refusals(&self, record: &Record<'_>) -> Vec<Refusal> {
        let state = self.state();
        if state.refusals.is_empty() {
            return Vec::new();
        }
        let refusals = state.refusals.get(&dead_letter_id(record));
        refusals.cloned().unwrap_or_default()
    }

    /// The topic refuses the dead letter in the form that follows from the earlier refusals.
    pub(crate) fn refused(&self, record: &Record<'_>, refusal: Refusal) {
        self.add_refusal(dead_letter_id(record), refusal);
    }

    /// Forgets the refusals, so that the topic is asked again.
    pub(crate) fn forget_refusals(&self, record: &Record<'_>) {
        self.state().refusals.remove(&dead_letter_id(record));
    }

    fn add_refusal(&self, id: DeadLetterKey, refusal: Refusal) {
        let mut state = self.state();
        if state.refusals.len() >= MOST && !state.refusals.contains_key(&id) {
            state.refusals.clear();
        }
        state.refusals.entry(id).or_default().push(refusal);
    }

    /// The broker rejected this dead letter together with others.
    pub(crate) fn suspect_dead_letter(&self, of: &Record<'_>, record: &ProduceRecord<'_>) {
        self.add_suspect(SuspectId::DeadLetter(dead_letter_id(of)), record);
    }

    /// The broker rejected this output together with others.
    pub(crate) fn suspect(&self, output: &OutputRecord<'_>, record: &ProduceRecord<'_>) {
        self.add_suspect(SuspectId::Output(id(output)), record);
    }

    fn add_suspect(&self, id: SuspectId, record: &ProduceRecord<'_>) {
        let suspect = Suspect {
            id,
            topic: record.topic.into(),
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        };
        self.state().suspects.push(suspect);
    }

    pub(super) fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut self.state().suspects)
    }

    /// The broker rejected the suspect alone.
    pub(super) fn confirm(&self, suspect: &Suspect, error: SendError) {
        match &suspect.id {
            SuspectId::Output(id) => self.remember(id.clone(), error.message),
            SuspectId::DeadLetter(id) => {
                self.add_refusal(id.clone(), error.refusal.unwrap_or(Refusal::Record));
            }
        }
    }

    /// The broker rejects this output whatever it is sent with.
    pub(crate) fn reject(&self, output: &OutputRecord<'_>, why: String) {
        self.remember(id(output), why);
    }

    fn remember(&self, id: OutputKey, why: String) {
        let mut state = self.state();
        if state.rejected.len() >= MOST {
            state.rejected.clear();
        }
        state.rejected.insert(id, why);
    }

    /// Forgets the rejection, so that the broker is asked again.
    pub(crate) fn forget(&self, output: &OutputRecord<'_>) {
        self.state().rejected.remove(&id(output));
    }

    /// Everything below `offset` is committed and is not read again.
    pub(crate) fn forget_below(&self, partition: &TopicPartition, offset: Offset) {
        let mut state = self.state();
        if !state.rejected.is_empty() {
            state
                .rejected
                .retain(|(of, at, _), _| of != partition || *at >= offset);
        }
        if !state.refusals.is_empty() {
            state
                .refusals
                .retain(|(of, at), _| of != partition || *at >= offset);
        }
    }

    fn state(&self) -> MutexGuard<'_, KnownRejections> {
        sync::lock(&self.0)
    }
}

fn dead_letter_id(record: &Record<'_>) -> DeadLetterKey {
    (record.partition().clone(), record.offset)
}

fn id(output: &OutputRecord<'_>) -> OutputKey {
    (output.record.partition().clone(), output.offset(), output.index)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, batch::Batch, failure::FailureClass};

    fn error(message: &str, refusal: Refusal) -> SendError {
        SendError {
            class: FailureClass::Record,
            message: message.into(),
            in_doubt: false,
            refusal: Some(refusal),
            fatal: false,
        }
    }

    #[test]
    fn what_a_topic_refuses_of_a_dead_letter_is_known_until_its_record_is_committed() {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        chunk.push(7, 0, None, Some(b"v"), []);
        chunk.push(8, 0, None, Some(b"v"), []);
        let (first, second) = (chunk.record(0), chunk.record(1));
        let known = RejectedRecords::default();
        known.suspect_dead_letter(&first, &ProduceRecord::default());
        known.suspect_dead_letter(&second, &ProduceRecord::default());
        let suspects = known.take_suspects();
        assert!(known.refusals(&first).is_empty());
        // The reason is that of the dead letter alone, and another abort does not change it.
        known.confirm(&suspects[0], error("no key", Refusal::Record));
        known.refused(&first, Refusal::TooLarge);
        for _ in 0..2 {
            assert_eq!(known.refusals(&first), [Refusal::Record, Refusal::TooLarge]);
        }
        assert!(known.refusals(&second).is_empty());
        known.forget_below(&TopicPartition::new("t", 0), 7);
        assert_eq!(known.refusals(&first).len(), 2);
        known.forget_below(&TopicPartition::new("t", 0), 8);
        assert!(known.refusals(&first).is_empty());
        known.refused(&second, Refusal::Timestamp);
        known.forget_refusals(&second);
        assert!(known.refusals(&second).is_empty());
    }

    #[test]
    fn a_suspect_is_sent_unchanged_and_a_confirmed_rejection_is_kept_until_it_is_committed() {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        chunk.push(7, 0, Some(b"k"), None, []);
        chunk.push(8, 0, None, Some(b"v"), []);
        let batch = Batch::identity(Arc::new(chunk));
        let (first, second) = (batch.output(0), batch.output(1));
        let record = ProduceRecord {
            topic: "out",
            timestamp: Some(5),
            key: Some(b"k"),
            headers: vec![(b"h", None), (b"h", Some(b"x"))],
            ..Default::default()
        };
        let rejected_records = RejectedRecords::default();
        rejected_records.suspect(&first, &record);
        assert_eq!(rejected_records.of(&first), None);
        let suspects = rejected_records.take_suspects();
        assert_eq!(format!("{:?}", suspects[0].record()), format!("{record:?}"));
        assert!(rejected_records.take_suspects().is_empty());
        rejected_records.confirm(&suspects[0], error("too large", Refusal::TooLarge));
        assert_eq!(
            (
                rejected_records.of(&first).as_deref(),
                rejected_records.of(&second)
            ),
            (Some("too large"), None)
        );
        rejected_records.forget_below(&TopicPartition::new("t", 1), 100);
        rejected_records.forget_below(&TopicPartition::new("t", 0), 7);
        assert!(rejected_records.of(&first).is_some());
        rejected_records.forget_below(&TopicPartition::new("t", 0), 8);
        assert!(rejected_records.of(&first).is_none());
        rejected_records.reject(&second, "no key".into());
        rejected_records.forget(&second);
        assert!(rejected_records.of(&second).is_none());
    }
}
