//! What the transforms make of a chunk: a [`Batch`] of outputs that mostly point back into the chunk. An identity
//! pipeline copies nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::record::{
    Chunk, Offset, Record, Span,
    failure::{Failure, Stage},
};

/// A key or value of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Kafka's null.
    Null,
    /// The same bytes as the input of the transform.
    Keep,
    /// New bytes.
    New(&'a [u8]),
}

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

/// Outputs of a chunk, in the order of their sources, with the failures met on the way.
#[derive(Debug)]
pub struct Batch {
    chunk: Arc<Chunk>,
    arena: Vec<u8>,
    outputs: Vec<Output>,
    failures: Vec<Failure>,
}

impl Batch {
    /// Every record of the chunk as it is.
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

    /// The chunk the outputs come from.
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// True when there is no output.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Records that failed so far.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The output at `index`, which must be below [`Batch::len`].
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

    /// Index in the chunk of the record that the output at `index` was made from.
    pub(crate) fn source(&self, index: u32) -> u32 {
        self.outputs[index as usize].source
    }

    /// All outputs in order.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = OutputRecord<'_>> {
        (0..self.len()).map(|index| self.output(index))
    }

    /// A batch of nothing but the output at `index`: for running one record of an untransformed batch by itself.
    pub fn single(&self, index: usize) -> Batch {
        self.only(&self.outputs[index..=index])
    }

    /// For each record that has outputs, a batch of nothing but all of these: for finding the record that makes a transform
    /// panic. They stay together, because they are numbered together, and because a record fails as a whole.
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

    /// A batch of nothing but these failures.
    pub fn failed(chunk: Arc<Chunk>, failures: Vec<Failure>) -> Batch {
        Batch {
            chunk,
            arena: Vec::new(),
            outputs: Vec::new(),
            failures,
        }
    }

    /// Puts the outputs and failures of a batch of later records of the same chunk behind these. A record fails as a whole
    /// and once: what has failed in either batch leaves no output, and what has failed here already is left as it is.
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

    /// Starts the next batch, made from this one.
    pub fn next(&self) -> BatchBuilder<'_> {
        BatchBuilder {
            input: self,
            arena: Vec::new(),
            outputs: Vec::with_capacity(self.outputs.len()),
            failures: self.failures.clone(),
            filtered: 0,
            beats: None,
        }
    }

    /// Drops the outputs of failed records and notes the failures: for checks that change nothing, such as decoders.
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

/// An output as writers and transforms see it.
#[derive(Clone, Copy, Debug)]
pub struct OutputRecord<'a> {
    /// Index of the record in the chunk that it was made from.
    pub source: usize,
    /// 0 for the first output of a record, 1 for the second, and so on.
    pub index: u32,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// The record it was made from: partition, offset, timestamp, headers, original key and value.
    pub record: Record<'a>,
}

impl OutputRecord<'_> {
    /// Offset of the record it was made from.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// Identity that stays the same when the record is processed again: "topic-partition-offset", and
    /// "topic-partition-offset-n" for the n-th further output of the same record.
    pub fn record_id(&self) -> String {
        let partition = self.record.partition();
        match self.index {
            0 => format!("{partition}-{}", self.record.offset),
            n => format!("{partition}-{}-{n}", self.record.offset),
        }
    }
}

/// Collects what a transform makes of a batch. Call [`BatchBuilder::emit`] or [`BatchBuilder::fail`] with ascending
/// input indices; an input without either is filtered out.
#[derive(Debug)]
pub struct BatchBuilder<'i> {
    input: &'i Batch,
    arena: Vec<u8>,
    outputs: Vec<Output>,
    failures: Vec<Failure>,
    filtered: usize,
    beats: Option<&'i AtomicU64>,
}

impl<'i> BatchBuilder<'i> {
    /// Counts every call as a sign of life.
    pub(crate) fn beating(mut self, beats: &'i AtomicU64) -> Self {
        self.beats = Some(beats);
        self
    }

    fn beat(&self) {
        if let Some(beats) = self.beats {
            // Nobody else writes: a plain store, which costs nothing, is enough.
            beats.store(beats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Adds an output made from the input at index `from`; several calls make several outputs.
    pub fn emit(&mut self, from: usize, key: Payload<'_>, value: Payload<'_>) {
        self.beat();
        let input = self.input.outputs[from];
        let key = self.slot(key, input.key);
        let value = self.slot(value, input.value);
        let index = match self.outputs.last() {
            Some(last) if last.source == input.source => last.index + 1,
            _ => 0,
        };
        self.outputs.push(Output {
            source: input.source,
            index,
            key,
            value,
        });
    }

    /// Marks the record behind the input at index `from` as failed; outputs already made from it are withdrawn.
    pub fn fail(&mut self, from: usize, stage: Stage, component: &Arc<str>, message: impl Into<String>) {
        self.beat();
        let source = self.input.outputs[from].source;
        while self.outputs.last().is_some_and(|last| last.source == source) {
            self.outputs.pop();
        }
        // An input may be one of several made from the same record; one failure each is enough.
        if self
            .failures
            .last()
            .is_none_or(|last| last.source != source as usize || last.component != *component)
        {
            self.failures.push(Failure {
                source: source as usize,
                stage,
                component: component.clone(),
                message: message.into(),
            });
        }
    }

    /// Notes that an input was left out on purpose, for metrics.
    pub fn filter(&mut self) {
        self.beat();
        self.filtered += 1;
    }

    /// The finished batch and the number of inputs filtered out.
    pub fn finish(self) -> (Batch, usize) {
        let mut batch = Batch {
            chunk: self.input.chunk.clone(),
            arena: self.arena,
            outputs: self.outputs,
            failures: Vec::new(),
        };
        // A record fails as a whole: outputs made from its other inputs go as well.
        batch.fail(self.failures);
        (batch, self.filtered)
    }

    fn slot(&mut self, payload: Payload<'_>, input: Slot) -> Slot {
        match payload {
            Payload::Null => Slot::Own(Span::NULL),
            Payload::New(bytes) => Slot::Own(Span::store(&mut self.arena, bytes)),
            Payload::Keep => match input {
                Slot::Source => Slot::Source,
                Slot::Own(span) => {
                    Slot::Own(Span::store_option(&mut self.arena, span.load(&self.input.arena)))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

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
    fn outputs_of_a_record_are_run_together_and_keep_their_numbers() {
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
        // Whoever puts them together has the failures already.
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
