//! Decode and transform: from a chunk to a batch, on a CPU thread. No IO, no waiting. A transform that panics costs the
//! record it panicked on, not the worker. How long it may take is looked after from outside (`runs`).

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use crate::{
    batch::{Batch, Failure, Stage},
    decode::Decoders,
    record::Chunk,
    runs::Run,
    settings::NamedTransform,
    telemetry::Metrics,
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

    /// Runs all steps. Every record of the chunk is in the outputs, in the failures, or filtered out.
    pub fn process(&self, chunk: Arc<Chunk>) -> Batch {
        self.run(Batch::identity(chunk), &Run::default())
    }

    /// [`Pipeline::process`] for some records of a chunk, with signs of life. Stops half-way when nobody waits for it.
    pub(crate) fn run(&self, mut batch: Batch, run: &Run) -> Batch {
        let started = Instant::now();
        self.decoders.check(&mut batch);
        self.metrics.decoded(started.elapsed());
        for (index, transform) in self.transforms.iter().enumerate() {
            if batch.is_empty() || !run.begin(index) {
                break;
            }
            let started = Instant::now();
            let (next, filtered) = apply(transform, &batch, run);
            if run.is_left_alone() {
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

fn apply(transform: &NamedTransform, input: &Batch, run: &Run) -> (Batch, usize) {
    match try_apply(transform, input, run) {
        Ok(done) => done,
        Err(_) if input.len() > 1 => {
            // One of the records makes it panic: one by one, the others are saved.
            let mut output = Batch::failed(input.chunk().clone(), input.failures().to_vec());
            let mut filtered = 0;
            for index in 0..input.len() {
                let single = input.single(index);
                match try_apply(transform, &single, run) {
                    Ok((batch, count)) => {
                        output.append(&batch);
                        filtered += count;
                    }
                    Err(panic) => output.fail(vec![panicked(transform, &single, panic.as_ref())]),
                }
            }
            (output, filtered)
        }
        Err(panic) => {
            let mut output = Batch::failed(input.chunk().clone(), input.failures().to_vec());
            output.fail(vec![panicked(transform, input, panic.as_ref())]);
            (output, 0)
        }
    }
}

fn try_apply(
    transform: &NamedTransform,
    input: &Batch,
    run: &Run,
) -> Result<(Batch, usize), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut builder = input.next().beating(&run.beats);
        transform.transform.apply(input, &mut builder);
        builder.finish()
    }))
}

fn panicked(transform: &NamedTransform, single: &Batch, panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure {
        source: single.output(0).source,
        stage: Stage::Transform,
        component: transform.name.clone(),
        message: format!("the transform panicked: {text}"),
    }
}
