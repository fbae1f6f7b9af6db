//! TimedPipeline of the pipeline on CPU threads, with a limit on the time that transforms may take for one record. In: a chunk.
//! Out: its batch, in which a record that takes too long is a failure like any other.
//!
//! A thread cannot be stopped from outside, so a run that shows no sign of life is left alone: its thread goes on, and
//! what comes of it is thrown away. The chunk's records are then run one by one to find the one at fault. With it ends a
//! [`Piece`], which is to be finished before anything behind it is run.
//!
//! Beyond [`MAX_ABANDONED`] threads the worker has to be restarted, because nothing else ends them. But a thread counts only
//! once what it ran is finished: before that, a restart would meet the same records again, and end the same way, for ever.
//! So every process that ends has finished some of them, however many there are in a chunk or at the same time in different
//! partitions; and with `onExhausted: Stop`, where a restart mends nothing, none ends. A run whose partition moves before
//! its time is over goes on as well, and is not counted.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinError};

use crate::{
    health::{problems::Problems, snapshot::PausedReason},
    pipeline::{Pipeline, heartbeat::Heartbeat},
    record::{
        Chunk, Offset, TopicPartition,
        batch::Batch,
        failure::{Failure, Stage},
    },
    telemetry::Metrics,
};

/// Most threads left alone that may count: four records, each met once in its chunk and once by itself. Each may take a
/// whole core for good, so there must not be many.
const MAX_ABANDONED: usize = 8;

/// Looks at a run within its limit. Time counts by looks and not by the clock: a worker that was frozen or throttled for
/// longer than the limit has not taken longer than one look.
const LOOKS: u32 = 8;

/// After this long without a sign of life, or half the limit, the partition is not read on: reading on would only fill the
/// memory, and pausing for less would throw away what was fetched for nothing.
const SLOW_AFTER: Duration = Duration::from_secs(5);

type RecordPlace = (TopicPartition, Offset);

/// A chunk on its way through the pipeline.
pub(crate) struct ChunkRun {
    runs: Arc<TimedPipeline>,
    chunk: Arc<Chunk>,
    /// The first record that is not decided.
    next: usize,
    /// The transform that has taken too long for one of the records: from then on they are run one by one.
    slow: Option<Arc<str>>,
    /// Threads left alone since the last piece.
    abandoned: Vec<Arc<Heartbeat>>,
}

/// What has been decided of a chunk.
pub(crate) struct Piece {
    /// Of the whole chunk. What it says of other records than these means nothing.
    pub batch: Batch,
    /// Records that were run one by one; None when all of the chunk were run together.
    pub records: Option<Range<u32>>,
    /// Threads left alone on the way, for [`TimedPipeline::count`] once the piece is finished.
    pub abandoned: Vec<Arc<Heartbeat>>,
}

impl Drop for ChunkRun {
    /// Its partition has moved: somebody else runs it, and a restart would be rid of the threads.
    fn drop(&mut self) {
        self.runs.count(&self.abandoned);
    }
}

/// See the module.
pub(crate) struct TimedPipeline {
    pipeline: Pipeline,
    /// One permit per core: more runs at once would only take each other's time. One that is left alone keeps none, or on
    /// one core nothing would go on.
    cores: Semaphore,
    limit: Duration,
    left: Mutex<Left>,
    metrics: Metrics,
}

#[derive(Default)]
struct Left {
    /// Threads left alone that still run.
    threads: usize,
    /// Those that a restart would be rid of.
    counted: usize,
    /// The records at fault and the transforms that do not come back with them.
    records: HashMap<RecordPlace, Arc<str>>,
}

impl TimedPipeline {
    /// TimedPipeline `pipeline` on at most `cores` threads at a time.
    pub fn new(pipeline: Pipeline, cores: usize, limit: Duration, metrics: Metrics) -> Self {
        Self {
            pipeline,
            cores: Semaphore::new(cores),
            limit,
            left: Mutex::default(),
            metrics,
        }
    }

    /// The threads that do not come back, when a restart would be rid of too many.
    pub fn too_many_abandoned(&self) -> Option<usize> {
        let left = self.lock();
        (left.counted > MAX_ABANDONED).then_some(left.threads)
    }

    /// The longest time for one record.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// TimedPipeline the pipeline for a record that waits. A thread that does not come back with it never counts: the record goes on
    /// waiting, and a restart would run it again.
    pub async fn process(self: &Arc<Self>, chunk: Arc<Chunk>, problems: &Problems) -> Batch {
        let mut passing = self.begin(chunk.clone());
        let mut all = Batch::failed(chunk, Vec::new());
        while let Some(piece) = self.next(&mut passing, problems).await {
            all.append(&piece.batch);
        }
        all
    }

    /// Begins with a chunk; [`TimedPipeline::next`] does the work.
    pub fn begin(self: &Arc<Self>, chunk: Arc<Chunk>) -> ChunkRun {
        ChunkRun {
            runs: self.clone(),
            chunk,
            next: 0,
            slow: None,
            abandoned: Vec::new(),
        }
    }

    /// The next piece of a chunk, in order; None when everything is decided. TimedPipeline the pipeline, on a CPU thread if it has
    /// anything to do. What holds it up is told to `problems`.
    pub async fn next(self: &Arc<Self>, passing: &mut ChunkRun, problems: &Problems) -> Option<Piece> {
        if passing.next == passing.chunk.len() {
            return None;
        }
        let slow = match passing.slow.clone() {
            Some(slow) => slow,
            None => match self.together(passing, problems).await {
                Ok(batch) => {
                    passing.next = passing.chunk.len();
                    return Some(Piece {
                        batch,
                        records: None,
                        abandoned: std::mem::take(&mut passing.abandoned),
                    });
                }
                Err(slow) => passing.slow.insert(slow).clone(),
            },
        };
        let first = passing.next as u32;
        let batch = self.one_by_one(passing, &slow, problems).await;
        Some(Piece {
            batch,
            records: Some(first..passing.next as u32),
            abandoned: std::mem::take(&mut passing.abandoned),
        })
    }

    /// TimedPipeline all records of a chunk; else the transform that takes too long for at least one of them.
    async fn together(
        self: &Arc<Self>,
        passing: &mut ChunkRun,
        problems: &Problems,
    ) -> Result<Batch, Arc<str>> {
        let chunk = passing.chunk.clone();
        if self.pipeline.is_identity() {
            return Ok(self.pipeline.process(chunk));
        }
        if let Some(slow) = self.known(&chunk) {
            return Err(slow);
        }
        self.run(Batch::identity(chunk), problems, &mut passing.abandoned)
            .await
    }

    /// TimedPipeline each record by itself, in order, up to the first that takes too long, or to the end. `slow` has taken too long
    /// for at least one of the chunk.
    async fn one_by_one(
        self: &Arc<Self>,
        passing: &mut ChunkRun,
        slow: &Arc<str>,
        problems: &Problems,
    ) -> Batch {
        let chunk = passing.chunk.clone();
        let all = Batch::identity(chunk.clone());
        let mut done = Batch::failed(chunk.clone(), Vec::new());
        while passing.next < chunk.len() {
            let source = passing.next;
            let key = (chunk.partition.clone(), chunk.record(source).offset);
            let known = self.lock().records.get(&key).cloned();
            let result = match known {
                Some(slow) => Err(slow),
                // The only record of its chunk was run by itself before.
                None if chunk.len() == 1 => Err(slow.clone()),
                None => {
                    let single = all.single(source);
                    self.run(single, problems, &mut passing.abandoned).await
                }
            };
            passing.next += 1;
            match result {
                Ok(batch) => done.append(&batch),
                Err(component) => {
                    done.fail(vec![self.failure(source, component)]);
                    break;
                }
            }
        }
        done
    }

    fn failure(&self, source: usize, component: Arc<str>) -> Failure {
        Failure {
            source,
            stage: Stage::Transform,
            component,
            message: format!(
                "the transform took longer than {} s for this record (errorHandling.transformTimeoutSeconds)",
                self.limit.as_secs()
            ),
        }
    }

    /// TimedPipeline the pipeline, until it is done or has shown no sign of life for too long: then the transform that it is in, and
    /// its thread goes to `abandoned`.
    async fn run(
        self: &Arc<Self>,
        input: Batch,
        problems: &Problems,
        abandoned: &mut Vec<Arc<Heartbeat>>,
    ) -> Result<Batch, Arc<str>> {
        // Closed never; without a permit it would only be slower.
        let _permit = self.cores.acquire().await;
        let chunk = input.chunk().clone();
        let offset = input.output(0).offset();
        // By itself it is the one at fault.
        let records = input.len();
        let alone = (records == 1).then(|| (chunk.partition.clone(), offset));
        let run = Arc::new(Heartbeat::default());
        let (runs, running, key) = (self.clone(), run.clone(), alone.clone());
        let mut task = tokio::task::spawn_blocking(move || {
            let batch = runs.pipeline.run(input, &running);
            runs.ended(&running, key);
            batch
        });
        let (mut seen, mut quiet, mut reporter) = (0, 0, None);
        while quiet < LOOKS {
            if let Ok(ended) = tokio::time::timeout(self.limit / LOOKS, &mut task).await {
                return Ok(finished(ended));
            }
            let beats = run.beats.load(Ordering::Relaxed);
            if beats != seen {
                (seen, quiet, reporter) = (beats, 0, None);
                continue;
            }
            quiet += 1;
            let transform = self.transform_of(&run);
            let waited = self.limit * quiet / LOOKS;
            let reporter = reporter.get_or_insert_with(|| problems.at(offset));
            let seconds = waited.as_secs_f64();
            reporter.failing(
                1,
                &format!("transform {transform}: no record done for {seconds:.1} s"),
            );
            if waited >= SLOW_AFTER.min(self.limit / 2) {
                reporter.hold(PausedReason::TransformSlow);
            }
        }
        let transform = self.transform_of(&run);
        let Some(threads) = self.abandon(&run, alone, &transform) else {
            return Ok(finished(task.await));
        };
        abandoned.push(run);
        tracing::warn!(
            partition = %chunk.partition,
            offset,
            records,
            transform = %transform,
            threads,
            "the transform has not come back within {} s; its thread is left alone",
            self.limit.as_secs()
        );
        Err(transform)
    }

    fn transform_of(&self, run: &Heartbeat) -> Arc<str> {
        self.pipeline.name_of(run.transform.load(Ordering::Relaxed))
    }

    /// How many threads are left alone then; None when the run has ended meanwhile.
    fn abandon(&self, run: &Heartbeat, record: Option<RecordPlace>, transform: &Arc<str>) -> Option<usize> {
        let mut left = self.lock();
        if run.ended.load(Ordering::Relaxed) {
            return None;
        }
        run.abandoned.store(true, Ordering::Relaxed);
        left.threads += 1;
        self.metrics.abandoned(left.threads);
        if let Some(record) = record {
            left.records.insert(record, transform.clone());
        }
        Some(left.threads)
    }

    /// A restart would be rid of these threads, because what they ran is not run again.
    pub fn count(&self, threads: &[Arc<Heartbeat>]) {
        if threads.is_empty() {
            return;
        }
        let mut left = self.lock();
        for run in threads {
            if !run.ended.load(Ordering::Relaxed) {
                run.counts.store(true, Ordering::Relaxed);
                left.counted += 1;
            }
        }
    }

    /// Called by the run's thread at its end.
    fn ended(&self, run: &Heartbeat, record: Option<RecordPlace>) {
        let mut left = self.lock();
        run.ended.store(true, Ordering::Relaxed);
        if run.is_abandoned() {
            left.threads -= 1;
            left.counted -= usize::from(run.counts.load(Ordering::Relaxed));
            self.metrics.abandoned(left.threads);
            record.and_then(|record| left.records.remove(&record));
        }
    }

    /// The transform that does not come back with one of these records.
    fn known(&self, chunk: &Chunk) -> Option<Arc<str>> {
        let left = self.lock();
        let mut records = left.records.iter();
        let (_, transform) = records.find(|((partition, offset), _)| {
            *partition == chunk.partition && chunk.offsets().any(|other| other == *offset)
        })?;
        Some(transform.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Panics of transforms are caught inside, so one that gets here is a bug of ours: let it end the worker, visibly.
fn finished(ended: Result<Batch, JoinError>) -> Batch {
    match ended {
        Ok(batch) => batch,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
