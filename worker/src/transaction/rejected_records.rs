//! Records that the broker has rejected inside a transaction. The broker rejects whole record batches,
//! including valid records in them, and the rejection fails the transaction, so nothing more can be found out
//! inside it. The writer stores the suspects here. After the abort, each suspect is sent alone, in a
//! transaction that is aborted as well. When the worker reads the records again, the writer finds here which
//! ones to reject. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use crate::sync;
use crate::{
    kafka::producer::ProduceRecord,
    record::{Offset, Record, TopicPartition, batch::OutputRecord},
};

/// An output: the record that it was made from, and its number.
type OutputKey = (TopicPartition, Offset, u32);

/// Maximum number of remembered outputs. Beyond it, all are forgotten and have to be found out again.
const MOST: usize = 100_000;

/// A record to be sent alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    id: OutputKey,
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

    /// Whether the broker is known to reject the dead letter of this record. Forgets the answer, because the
    /// next dead letter of the record is another one.
    pub(crate) fn take_dead_letter(&self, record: &Record<'_>) -> bool {
        let mut state = self.state();
        !state.rejected.is_empty() && state.rejected.remove(&dead_letter_id(record)).is_some()
    }

    /// The broker rejected this dead letter together with others.
    pub(crate) fn suspect_dead_letter(&self, of: &Record<'_>, record: &ProduceRecord<'_>) {
        self.add_suspect(dead_letter_id(of), record);
    }

    /// The broker rejected this output together with others.
    pub(crate) fn suspect(&self, output: &OutputRecord<'_>, record: &ProduceRecord<'_>) {
        self.add_suspect(id(output), record);
    }

    fn add_suspect(&self, id: OutputKey, record: &ProduceRecord<'_>) {
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
    pub(super) fn confirm(&self, suspect: &Suspect, why: String) {
        self.remember(suspect.id.clone(), why);
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
    }

    fn state(&self) -> MutexGuard<'_, KnownRejections> {
        sync::lock(&self.0)
    }
}

/// No transform makes this many outputs of a record.
fn dead_letter_id(record: &Record<'_>) -> OutputKey {
    (record.partition().clone(), record.offset, u32::MAX)
}

fn id(output: &OutputRecord<'_>) -> OutputKey {
    (output.record.partition().clone(), output.offset(), output.index)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, batch::Batch};

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
        rejected_records.confirm(&suspects[0], "too large".into());
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
