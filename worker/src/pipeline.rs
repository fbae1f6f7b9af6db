//! Decode and transform: from a chunk to a batch, on a CPU thread. No IO, no waiting. A transform that panics
//! fails the record that it panicked on, with all its outputs, and not the worker. The time limit is in
//! [`time_limit`].

pub mod heartbeat;
pub mod time_limit;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use crate::{
    decode::Decoders,
    pipeline::heartbeat::Heartbeat,
    record::{
        Chunk,
        batch::Batch,
        failure::{Failure, Stage},
    },
    telemetry::Metrics,
    transform::NamedTransform,
};

/// Decoders and transforms of a group.
pub struct Pipeline {
    decoders: Decoders,
    transforms: Vec<NamedTransform>,
    metrics: Metrics,
}

impl Pipeline {
    /// A pipeline of these steps.
    pub fn new(decoders: Decoders, transforms: Vec<NamedTransform>, metrics: Metrics) -> Self {
        Self {
            decoders,
            transforms,
            metrics,
        }
    }

    /// True when it does nothing with records, so that it needs no CPU thread.
    pub fn is_identity(&self) -> bool {
        self.transforms.is_empty() && self.decoders.accept_anything()
    }

    /// The name of the transform at this index.
    pub(crate) fn name_of(&self, transform: usize) -> Arc<str> {
        match self.transforms.get(transform) {
            Some(transform) => transform.name.clone(),
            None => "decode".into(),
        }
    }

    /// Runs all steps. Every record of the chunk ends in the outputs, in the failures, or is filtered out.
    pub fn process(&self, chunk: Arc<Chunk>) -> Batch {
        self.run(Batch::identity(chunk), &Heartbeat::default())
    }

    /// [`Pipeline::process`] for some records of a chunk, with signs of life. Stops on the way once the run
    /// is abandoned.
    pub(crate) fn run(&self, mut batch: Batch, run: &Heartbeat) -> Batch {
        let started = Instant::now();
        self.decoders.check(&mut batch);
        self.metrics.decoded(started.elapsed());
        for (index, transform) in self.transforms.iter().enumerate() {
            if batch.is_empty() || !run.start_transform(index) {
                break;
            }
            let started = Instant::now();
            let (next, filtered) = apply(transform, index, &batch, run);
            if run.is_abandoned() {
                // The records are processed and counted again.
                break;
            }
            batch = next;
            self.metrics
                .transformed(&transform.name, started.elapsed(), filtered);
        }
        batch
    }
}

/// Runs the transform at this index. Returns the next batch and the number of inputs that it filtered out.
fn apply(transform: &NamedTransform, index: usize, input: &Batch, run: &Heartbeat) -> (Batch, usize) {
    if let Some(result) = try_apply(transform, input, run) {
        return result;
    }
    // One of the records makes it panic. Run one by one, the other records pass. A record that was alone does
    // not run again.
    let alone = input.by_source().nth(1).is_none();
    let mut output = Batch::failed(input.chunk().clone(), input.failures().to_vec());
    let mut filtered = 0;
    for record in input.by_source() {
        // Many panics, each printed to the log, are slow but not stuck.
        if !run.start_transform(index) {
            break;
        }
        let result = if alone {
            None
        } else {
            try_apply(transform, &record, run)
        };
        match result {
            Some((batch, count)) => {
                output.append(&batch);
                filtered += count;
            }
            None => output.fail(vec![panicked(transform, &record)]),
        }
    }
    (output, filtered)
}

/// None when the transform panics.
fn try_apply(transform: &NamedTransform, input: &Batch, run: &Heartbeat) -> Option<(Batch, usize)> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut builder = input.next().beating(&run.beats);
        transform.transform.apply(input, &mut builder);
        builder.finish()
    }))
    .ok()
}

/// Without the text of the panic, because the text of an `unwrap` may quote payload. Rust prints text and
/// location to stderr.
fn panicked(transform: &NamedTransform, record: &Batch) -> Failure {
    Failure {
        source: record.source(0) as usize,
        stage: Stage::Transform,
        component: transform.name.clone(),
        message: "the transform panicked; the worker's log says where".into(),
    }
}

#[cfg(test)]
mod tests;
