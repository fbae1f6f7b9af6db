//! What the transforms make of a chunk: a [`Batch`] of outputs. An output refers to the bytes of the chunk
//! unless a transform changed them, so a pipeline without changes copies nothing.

pub mod builder;

use std::sync::Arc;

use crate::record::{Chunk, Offset, Record, Span, failure::Failure};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Source,
    Own(Span),
}

#[derive(Clone, Copy, Debug)]
struct Output {
    source: u32,
    index: u32,
    key: Slot,
    value: Slot,
}

/// The outputs of a chunk's records, in the order of the records, and the records that failed so far. It is
/// the input of each transform and of the writers.
///
/// A transform reads it with [`Batch::outputs`] and writes the next batch with the
/// [`BatchBuilder`](builder::BatchBuilder) that it gets.
///
/// ```
/// use std::sync::Arc;
///
/// use kafka_consumer_worker::{Batch, Chunk, Payload, record::TopicPartition};
///
/// let mut chunk = Chunk::new(TopicPartition::new("orders", 0), 1);
/// chunk.push(7, -1, Some(b"k"), Some(b"a,b"), []);
/// let input = Batch::identity(Arc::new(chunk));
/// let mut output = input.next();
/// for (from, record) in input.outputs().enumerate() {
///     for part in record.value.unwrap_or_default().split(|byte| *byte == b',') {
///         output.emit(from, Payload::Keep, Payload::New(part));
///     }
/// }
/// let (batch, filtered) = output.finish();
/// assert_eq!((batch.len(), filtered), (2, 0));
/// assert_eq!(batch.output(1).value, Some(b"b".as_slice()));
/// assert_eq!(batch.output(1).record_id(), "orders-0-7-1");
/// ```
#[derive(Debug)]
pub struct Batch {
    chunk: Arc<Chunk>,
    arena: Vec<u8>,
    outputs: Vec<Output>,
    failures: Vec<Failure>,
}

impl Batch {
    /// One unchanged output for every record of the chunk, which is the input of the first transform.
    pub fn identity(chunk: Arc<Chunk>) -> Self {
        let outputs = (0..chunk.len() as u32)
            .map(|source| Output {
                source,
                index: 0,
                key: Slot::Source,
                value: Slot::Source,
            })
            .collect();
        Self {
            chunk,
            arena: Vec::new(),
            outputs,
            failures: Vec::new(),
        }
    }

    /// The chunk that the outputs were made from.
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// True if there is no output.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// The records that failed so far; they have no outputs.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The output at `index`. Panics if `index` is not below [`Batch::len`].
    pub fn output(&self, index: usize) -> OutputRecord<'_> {
        let output = &self.outputs[index];
        let source = self.chunk.record(output.source as usize);
        let pick = |slot: Slot, original| match slot {
            Slot::Source => original,
            Slot::Own(span) => span.load(&self.arena),
        };
        OutputRecord {
            source: output.source as usize,
            index: output.index,
            key: pick(output.key, source.key),
            value: pick(output.value, source.value),
            record: source,
        }
    }

    /// Index in the chunk of the record that was the source of the output at `index`.
    pub(crate) fn source(&self, index: u32) -> u32 {
        self.outputs[index as usize].source
    }

    /// All outputs, in the order of their records.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = OutputRecord<'_>> {
        (0..self.len()).map(|index| self.output(index))
    }

    /// A batch that holds only the output at `index`, to run one record of an untransformed batch by itself.
    /// Panics if `index` is not below [`Batch::len`].
    pub fn single(&self, index: usize) -> Batch {
        self.only(&self.outputs[index..=index])
    }

    /// One batch for each record that has outputs, with all of its outputs: to find the record that makes a
    /// transform panic. The outputs of a record stay together because they are numbered together and because
    /// a record fails as a whole.
    pub(crate) fn by_source(&self) -> impl Iterator<Item = Batch> {
        self.outputs
            .chunk_by(|left, right| left.source == right.source)
            .map(|outputs| self.only(outputs))
    }

    fn only(&self, outputs: &[Output]) -> Batch {
        let mut batch = Batch::failed(self.chunk.clone(), Vec::new());
        for output in outputs {
            batch.copy_output(self, *output);
        }
        batch
    }

    /// A batch that holds only these failures.
    pub fn failed(chunk: Arc<Chunk>, failures: Vec<Failure>) -> Batch {
        Batch {
            chunk,
            arena: Vec::new(),
            outputs: Vec::new(),
            failures,
        }
    }

    /// Appends the outputs and failures of `later`, a batch of later records of the same chunk. A record
    /// fails as a whole and once: a record that failed in either batch keeps no output, and a failure that
    /// this batch already has stays.
    pub fn append(&mut self, later: &Batch) {
        let failures = later.failures.iter();
        let failures = failures.filter(|failure| !self.has_failed(failure.source));
        let failures: Vec<Failure> = failures.cloned().collect();
        for output in &later.outputs {
            if !self.has_failed(output.source as usize) {
                self.copy_output(later, *output);
            }
        }
        self.fail(failures);
    }

    fn has_failed(&self, source: usize) -> bool {
        self.failures.iter().any(|failure| failure.source == source)
    }

    fn copy_output(&mut self, from: &Batch, output: Output) {
        let arena = &mut self.arena;
        let mut copy = |slot| match slot {
            Slot::Source => Slot::Source,
            Slot::Own(span) => Slot::Own(Span::store_option(arena, span.load(&from.arena))),
        };
        let (key, value) = (copy(output.key), copy(output.value));
        self.outputs.push(Output { key, value, ..output });
    }

    /// Adds failures and drops the outputs of their records: for checks that change nothing, such as
    /// decoders.
    pub fn fail(&mut self, failures: Vec<Failure>) {
        if failures.is_empty() {
            return;
        }
        let mut failed = vec![false; self.chunk.len()];
        failures.iter().for_each(|failure| failed[failure.source] = true);
        self.outputs.retain(|output| !failed[output.source as usize]);
        self.failures.extend(failures);
    }
}

/// An output as transforms and writers see it: the key and value to process, and the record that they were
/// made from.
#[derive(Clone, Copy, Debug)]
pub struct OutputRecord<'a> {
    /// Index of the source record in the chunk.
    pub source: usize,
    /// Number of the output among those of the same record: 0 for the first, 1 for the second, and so on.
    pub index: u32,
    /// Key of the output; None is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Value of the output; None is Kafka's null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// The source record: partition, offset, timestamp, headers, and the key and value as they were read.
    pub record: Record<'a>,
}

impl OutputRecord<'_> {
    /// Offset of the source record.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// An identity that is the same whenever the record is processed again: `topic-partition-offset` for the
    /// first output of a record and `topic-partition-offset-n` for the output with index n, from 1. Writers
    /// that deduplicate use it.
    pub fn record_id(&self) -> String {
        let partition = self.record.partition();
        match self.index {
            0 => format!("{partition}-{}", self.record.offset),
            n => format!("{partition}-{}-{n}", self.record.offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{builder::Payload, *};
    use crate::record::{TopicPartition, failure::Stage};

    fn chunk(values: &[&str]) -> Arc<Chunk> {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, value) in values.iter().enumerate() {
            chunk.push(offset as i64 + 10, 0, Some(b"k"), Some(value.as_bytes()), []);
        }
        Arc::new(chunk)
    }

    fn values(batch: &Batch) -> Vec<(String, &[u8])> {
        batch
            .outputs()
            .map(|output| (output.record_id(), output.value.unwrap_or(b"null")))
            .collect()
    }

    #[test]
    fn one_record_can_become_none_one_or_several() {
        let input = Batch::identity(chunk(&["a", "b", "c"]));
        let mut builder = input.next();
        builder.emit(0, Payload::Keep, Payload::New(b"a1"));
        builder.emit(0, Payload::Keep, Payload::New(b"a2"));
        builder.filter();
        builder.emit(2, Payload::Null, Payload::Keep);
        let (batch, filtered) = builder.finish();
        assert_eq!(filtered, 1);
        assert_eq!(
            values(&batch),
            [
                ("t-0-10".into(), b"a1".as_slice()),
                ("t-0-10-1".into(), b"a2"),
                ("t-0-12".into(), b"c")
            ]
        );
        assert_eq!(batch.output(2).key, None);
    }

    #[test]
    fn a_failed_record_leaves_no_output_behind() {
        let input = Batch::identity(chunk(&["a", "b"]));
        let name: Arc<str> = "first".into();
        let mut builder = input.next();
        builder.emit(0, Payload::Keep, Payload::New(b"1"));
        builder.emit(0, Payload::Keep, Payload::New(b"2"));
        builder.emit(1, Payload::Keep, Payload::Keep);
        let (split, _) = builder.finish();
        let mut builder = split.next();
        builder.emit(0, Payload::Keep, Payload::Keep);
        builder.fail(1, Stage::Transform, &name, "bad");
        builder.emit(2, Payload::Keep, Payload::Keep);
        let (batch, _) = builder.finish();
        assert_eq!(values(&batch), [("t-0-11".into(), b"b".as_slice())]);
        assert_eq!(batch.failures().len(), 1);
        assert_eq!(batch.failures()[0].source, 0);
    }

    /// Two outputs of each record.
    fn doubled(values: &[&str]) -> Batch {
        let input = Batch::identity(chunk(values));
        let mut builder = input.next();
        for from in 0..input.len() {
            builder.emit(from, Payload::Keep, Payload::Keep);
            builder.emit(from, Payload::Null, Payload::New(format!("{from}+").as_bytes()));
        }
        builder.finish().0
    }

    fn failure(source: usize, message: &str) -> Failure {
        Failure {
            source,
            stage: Stage::Transform,
            component: "t".into(),
            message: message.into(),
        }
    }

    #[test]
    fn outputs_of_a_record_stay_together_and_keep_their_numbers() {
        let mut input = doubled(&["a", "b", "c"]);
        input.fail(vec![failure(1, "bad")]);
        let records: Vec<Batch> = input.by_source().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(
            values(&records[1]),
            [
                ("t-0-12".into(), b"c".as_slice()),
                ("t-0-12-1".into(), b"2+".as_slice())
            ]
        );
        assert_eq!(
            (records[1].output(0).key, records[1].output(1).key),
            (Some(b"k".as_slice()), None)
        );
        // The caller, which appends them, already has the failures.
        assert!(records.iter().all(|record| record.failures().is_empty()));
    }

    #[test]
    fn a_record_that_has_failed_gets_no_outputs_and_no_other_failure() {
        let input = doubled(&["a", "b", "c"]);
        let mut batch = Batch::failed(input.chunk().clone(), vec![failure(1, "first")]);
        batch.append(&input);
        let left = |batch: &Batch| -> Vec<usize> { batch.outputs().map(|output| output.source).collect() };
        assert_eq!(left(&batch), [0, 0, 2, 2]);
        let later = vec![failure(1, "second"), failure(2, "third")];
        batch.append(&Batch::failed(input.chunk().clone(), later));
        assert_eq!(left(&batch), [0, 0]);
        assert_eq!(batch.failures(), [failure(1, "first"), failure(2, "third")]);
    }
}
