//! Decode and transform: from a chunk to a batch, on a CPU thread. No IO, no waiting. A transform that panics costs the
//! record it panicked on, with all outputs of it, not the worker. How long it may take is looked after from outside (`runs`).

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
    /// Puts the steps together.
    pub fn new(decoders: Decoders, transforms: Vec<NamedTransform>, metrics: Metrics) -> Self {
        Self {
            decoders,
            transforms,
            metrics,
        }
    }

    /// True when it does nothing to records, so that it needs no CPU thread.
    pub fn is_identity(&self) -> bool {
        self.transforms.is_empty() && self.decoders.accept_anything()
    }

    /// The name of a transform, by its place.
    pub(crate) fn name_of(&self, transform: usize) -> Arc<str> {
        match self.transforms.get(transform) {
            Some(transform) => transform.name.clone(),
            None => "decode".into(),
        }
    }

    /// TimedPipeline all steps. Every record of the chunk is in the outputs, in the failures, or filtered out.
    pub fn process(&self, chunk: Arc<Chunk>) -> Batch {
        self.run(Batch::identity(chunk), &Heartbeat::default())
    }

    /// [`Pipeline::process`] for some records of a chunk, with signs of life. Stops half-way when nobody waits for it.
    pub(crate) fn run(&self, mut batch: Batch, run: &Heartbeat) -> Batch {
        let started = Instant::now();
        self.decoders.check(&mut batch);
        self.metrics.decoded(started.elapsed());
        for (index, transform) in self.transforms.iter().enumerate() {
            if batch.is_empty() || !run.begin(index) {
                break;
            }
            let started = Instant::now();
            let (next, filtered) = apply(transform, index, &batch, run);
            if run.is_abandoned() {
                // The records are processed again, and counted then.
                break;
            }
            batch = next;
            self.metrics
                .transformed(&transform.name, started.elapsed(), filtered);
        }
        batch
    }
}

/// TimedPipeline the transform at this place: the next batch, and the number of inputs filtered out.
fn apply(transform: &NamedTransform, place: usize, input: &Batch, run: &Heartbeat) -> (Batch, usize) {
    if let Some(done) = try_apply(transform, input, run) {
        return done;
    }
    // One of the records makes it panic: one by one, the others are saved. A record that was by itself is not tried again.
    let alone = input.by_source().nth(1).is_none();
    let mut output = Batch::failed(input.chunk().clone(), input.failures().to_vec());
    let mut filtered = 0;
    for record in input.by_source() {
        // Many that panic, each printed to the log, are slow but not stuck.
        if !run.begin(place) {
            break;
        }
        let done = match alone {
            true => None,
            false => try_apply(transform, &record, run),
        };
        match done {
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

/// Without the text of the panic: that of an `unwrap` quotes what may be payload. Rust prints it to stderr, with the place.
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
