//! How a transform makes the next batch: a [`BatchBuilder`] collects outputs and failures in the order of the
//! inputs. It copies only what the transform changed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Batch, Output, Slot};
use crate::record::{
    Span,
    failure::{Failure, Stage},
};

/// The key or the value of an output, as a transform passes it to [`BatchBuilder::emit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Kafka's null.
    Null,
    /// The same key or value as the transform's input, not copied.
    Keep,
    /// These bytes, which the batch copies.
    New(&'a [u8]),
}

impl Batch {
    /// Starts the next batch, with this one as the input.
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
}

/// Collects the outputs of a transform. For each input, in ascending order, call [`BatchBuilder::emit`] once
/// per output, or [`BatchBuilder::fail`], or [`BatchBuilder::filter`]. An input without any call is filtered
/// out but not counted.
///
/// Each call also shows that the transform is running. `transformTimeoutSeconds` limits the time between two
/// calls.
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
    /// Counts every call, to show that the transform is running.
    pub(crate) fn beating(mut self, beats: &'i AtomicU64) -> Self {
        self.beats = Some(beats);
        self
    }

    fn beat(&self) {
        if let Some(beats) = self.beats {
            // Only this builder writes: a plain store, which costs nothing, is enough.
            beats.store(beats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Adds an output of the input at index `from`. Several calls with the same index make several outputs of
    /// the same record. Panics if `from` is not below the number of inputs.
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

    /// Marks the record of the input at index `from` as failed and removes the outputs that were already made
    /// from it. `onExhausted` of the resource decides what happens to the record. `stage` is
    /// [`Stage::Transform`], or [`Stage::Decode`] for a value that cannot be decoded; `component` is the name
    /// of the transform, or `value`. `message` is shown in dead letter headers, status and logs; it must not
    /// contain the payload. Panics if `from` is not below the number of inputs.
    pub fn fail(&mut self, from: usize, stage: Stage, component: &Arc<str>, message: impl Into<String>) {
        self.beat();
        let source = self.input.outputs[from].source;
        while self.outputs.last().is_some_and(|last| last.source == source) {
            self.outputs.pop();
        }
        // Several inputs may have been made from the same record; one failure for each component is enough.
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

    /// Counts an input that the transform filtered out, for the metric `kcg_worker_filtered_total`.
    pub fn filter(&mut self) {
        self.beat();
        self.filtered += 1;
    }

    /// Returns the batch and the number of inputs that were counted as filtered out.
    pub fn finish(self) -> (Batch, usize) {
        let mut batch = Batch {
            chunk: self.input.chunk.clone(),
            arena: self.arena,
            outputs: self.outputs,
            failures: Vec::new(),
        };
        // A record fails as a whole, so the outputs of its other inputs are removed, too.
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
