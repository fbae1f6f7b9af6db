//! Runs the pipeline on CPU threads, with a limit on the time that transforms may take for one record. In: a
//! chunk. Out: its batch, in which a record that takes too long is a failure like any other.
//!
//! A running transform cannot be interrupted. When a run shows no sign of life for too long, the worker
//! abandons it: the thread continues, and its result is discarded. The worker then runs the chunk's records
//! one by one to find the failing record, which ends a [`Piece`]. The piece is finished before anything
//! behind it runs.
//!
//! When more than [`MAX_ABANDONED`] threads are abandoned, the worker has to restart, because nothing else
//! ends them. But a thread counts only once the record it runs is finished. Otherwise the restarted worker
//! would read the same records and end in the same way, indefinitely. So every process that ends has finished
//! some of these records, no matter how many there are in a chunk or at the same time in different
//! partitions. With `onExhausted: Stop`, where a restart fixes nothing, no process ends. A run whose
//! partition is revoked before the limit also continues, and does not count.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinError};

use crate::sync;
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

/// How many abandoned threads may count: four records, each run once in its chunk and once by itself. Each
/// thread may use a whole core indefinitely, so the limit is low.
const MAX_ABANDONED: usize = 8;

/// Number of checks of a run within its limit. Time counts by checks and not by the clock: to a worker that
/// was frozen or throttled for longer than the limit, no more than the time between two checks has passed.
const CHECKS: u32 = 8;

/// After this long without a sign of life, or half the limit if that is less, the worker pauses the
/// partition. Reading more would only fill the memory, and a pause for less would discard fetched records for
/// nothing.
const SLOW_AFTER: Duration = Duration::from_secs(5);

type RecordPlace = (TopicPartition, Offset);

/// A chunk on its way through the pipeline.
pub(crate) struct ChunkRun {
    pipeline: Arc<TimedPipeline>,
    chunk: Arc<Chunk>,
    /// Index of the first record without a result.
    next: usize,
    /// The transform that took too long for one of the records. From then on the records run one by one.
    slow: Option<Arc<str>>,
    /// Threads abandoned since the last piece.
    abandoned: Vec<Arc<Heartbeat>>,
}

/// A part of the results of a chunk.
pub(crate) struct Piece {
    /// The batch of the whole chunk. Only its results for `records` are valid.
    pub batch: Batch,
    /// Records that ran one by one. None when all records of the chunk ran together.
    pub records: Option<Range<u32>>,
    /// Threads abandoned on the way, for [`TimedPipeline::count_abandoned`] once the piece is finished.
    pub abandoned: Vec<Arc<Heartbeat>>,
}

impl Drop for ChunkRun {
    /// The partition is revoked: another worker runs the chunk, and a restart would end the abandoned
    /// threads.
    fn drop(&mut self) {
        self.pipeline.count_abandoned(&self.abandoned);
    }
}

/// The pipeline with a time limit per record.
pub(crate) struct TimedPipeline {
    pipeline: Pipeline,
    /// One permit per core: more runs at the same time would only slow each other down. An abandoned run
    /// keeps no permit; otherwise nothing would run any more on one core.
    cores: Semaphore,
    limit: Duration,
    abandoned: Mutex<AbandonedRuns>,
    metrics: Metrics,
}

#[derive(Default)]
struct AbandonedRuns {
    /// Abandoned threads that still run.
    threads: usize,
    /// Those that count: a restart would end them.
    counted: usize,
    /// The failing records, and the transforms that do not return for them.
    records: HashMap<RecordPlace, Arc<str>>,
}

impl TimedPipeline {
    /// Runs `pipeline` on at most `cores` threads at a time.
    pub fn new(pipeline: Pipeline, cores: usize, limit: Duration, metrics: Metrics) -> Self {
        Self {
            pipeline,
            cores: Semaphore::new(cores),
            limit,
            abandoned: Mutex::default(),
            metrics,
        }
    }

    /// Number of abandoned threads, if so many of them count that the worker has to restart.
    pub fn too_many_abandoned(&self) -> Option<usize> {
        let runs = self.lock();
        (runs.counted > MAX_ABANDONED).then_some(runs.threads)
    }

    /// The longest time for one record.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs the pipeline for a waiting record. A thread that is abandoned here never counts: the record
    /// continues to wait, and a restarted worker would run it again.
    pub async fn process(self: &Arc<Self>, chunk: Arc<Chunk>, problems: &Problems) -> Batch {
        let mut chunk_run = self.start(chunk.clone());
        let mut all = Batch::failed(chunk, Vec::new());
        while let Some(piece) = self.next_piece(&mut chunk_run, problems).await {
            all.append(&piece.batch);
        }
        all
    }

    /// Prepares the run of a chunk. [`TimedPipeline::next_piece`] does the work.
    pub fn start(self: &Arc<Self>, chunk: Arc<Chunk>) -> ChunkRun {
        ChunkRun {
            pipeline: self.clone(),
            chunk,
            next: 0,
            slow: None,
            abandoned: Vec::new(),
        }
    }

    /// The next piece of a chunk, in order. None when all records have a result. Runs the pipeline, on a CPU
    /// thread unless the pipeline does nothing. Reports a slow transform to `problems`.
    pub async fn next_piece(
        self: &Arc<Self>,
        chunk_run: &mut ChunkRun,
        problems: &Problems,
    ) -> Option<Piece> {
        if chunk_run.next == chunk_run.chunk.len() {
            return None;
        }
        let slow = match chunk_run.slow.clone() {
            Some(slow) => slow,
            None => match self.together(chunk_run, problems).await {
                Ok(batch) => {
                    chunk_run.next = chunk_run.chunk.len();
                    return Some(Piece {
                        batch,
                        records: None,
                        abandoned: std::mem::take(&mut chunk_run.abandoned),
                    });
                }
                Err(slow) => chunk_run.slow.insert(slow).clone(),
            },
        };
        let first = chunk_run.next as u32;
        let batch = self.one_by_one(chunk_run, &slow, problems).await;
        Some(Piece {
            batch,
            records: Some(first..chunk_run.next as u32),
            abandoned: std::mem::take(&mut chunk_run.abandoned),
        })
    }

    /// Runs all records of a chunk together. Err: the transform that takes too long for at least one of them.
    async fn together(
        self: &Arc<Self>,
        chunk_run: &mut ChunkRun,
        problems: &Problems,
    ) -> Result<Batch, Arc<str>> {
        let chunk = chunk_run.chunk.clone();
        if self.pipeline.is_identity() {
            return Ok(self.pipeline.process(chunk));
        }
        if let Some(slow) = self.known(&chunk) {
            return Err(slow);
        }
        self.run(Batch::identity(chunk), problems, &mut chunk_run.abandoned)
            .await
    }

    /// Runs each record by itself, in order, up to the first one that takes too long, or to the end. The
    /// transform `slow` took too long for at least one record of the chunk.
    async fn one_by_one(
        self: &Arc<Self>,
        chunk_run: &mut ChunkRun,
        slow: &Arc<str>,
        problems: &Problems,
    ) -> Batch {
        let chunk = chunk_run.chunk.clone();
        let all = Batch::identity(chunk.clone());
        let mut done = Batch::failed(chunk.clone(), Vec::new());
        while chunk_run.next < chunk.len() {
            let source = chunk_run.next;
            let key = (chunk.partition.clone(), chunk.record(source).offset);
            let known = self.lock().records.get(&key).cloned();
            let result = match known {
                Some(slow) => Err(slow),
                // The only record of its chunk has run by itself already.
                None if chunk.len() == 1 => Err(slow.clone()),
                None => {
                    let single = all.single(source);
                    self.run(single, problems, &mut chunk_run.abandoned).await
                }
            };
            chunk_run.next += 1;
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

    /// Runs the pipeline until it returns. Err when it shows no sign of life for too long: the transform that
    /// is running. The thread is then added to `abandoned`.
    async fn run(
        self: &Arc<Self>,
        input: Batch,
        problems: &Problems,
        abandoned: &mut Vec<Arc<Heartbeat>>,
    ) -> Result<Batch, Arc<str>> {
        // Never closed; without a permit the run would only be slower.
        let _permit = self.cores.acquire().await;
        let chunk = input.chunk().clone();
        let offset = input.output(0).offset();
        // A record that runs alone is the failing record.
        let records = input.len();
        let alone = (records == 1).then(|| (chunk.partition.clone(), offset));
        let run = Arc::new(Heartbeat::default());
        let (timed, running, key) = (self.clone(), run.clone(), alone.clone());
        let mut task = tokio::task::spawn_blocking(move || {
            let batch = timed.pipeline.run(input, &running);
            timed.ended(&running, key);
            batch
        });
        let (mut seen, mut quiet, mut reporter) = (0, 0, None);
        while quiet < CHECKS {
            if let Ok(ended) = tokio::time::timeout(self.limit / CHECKS, &mut task).await {
                return Ok(finished(ended));
            }
            let beats = run.beats.load(Ordering::Relaxed);
            if beats != seen {
                (seen, quiet, reporter) = (beats, 0, None);
                continue;
            }
            quiet += 1;
            let transform = self.transform_of(&run);
            let waited = self.limit * quiet / CHECKS;
            let reporter = reporter.get_or_insert_with(|| problems.at(offset));
            let seconds = waited.as_secs_f64();
            reporter.failing(
                1,
                &format!("transform {transform}: no record finished for {seconds:.1} s"),
            );
            if waited >= SLOW_AFTER.min(self.limit / 2) {
                reporter.pause(PausedReason::TransformSlow);
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
            "the transform did not return within {} s; its thread is abandoned",
            self.limit.as_secs()
        );
        Err(transform)
    }

    fn transform_of(&self, run: &Heartbeat) -> Arc<str> {
        self.pipeline.name_of(run.transform.load(Ordering::Relaxed))
    }

    /// Abandons a run. Returns the number of abandoned threads, or None when the run has ended meanwhile.
    fn abandon(&self, run: &Heartbeat, record: Option<RecordPlace>, transform: &Arc<str>) -> Option<usize> {
        let mut runs = self.lock();
        if run.ended.load(Ordering::Relaxed) {
            return None;
        }
        run.abandoned.store(true, Ordering::Relaxed);
        runs.threads += 1;
        self.metrics.abandoned(runs.threads);
        if let Some(record) = record {
            runs.records.insert(record, transform.clone());
        }
        Some(runs.threads)
    }

    /// Counts these threads: a restart would end them, because the records they ran do not run again.
    pub fn count_abandoned(&self, threads: &[Arc<Heartbeat>]) {
        if threads.is_empty() {
            return;
        }
        let mut runs = self.lock();
        for run in threads {
            if !run.ended.load(Ordering::Relaxed) {
                run.counts.store(true, Ordering::Relaxed);
                runs.counted += 1;
            }
        }
    }

    /// The thread of a run calls this at its end.
    fn ended(&self, run: &Heartbeat, record: Option<RecordPlace>) {
        let mut runs = self.lock();
        run.ended.store(true, Ordering::Relaxed);
        if run.is_abandoned() {
            runs.threads -= 1;
            runs.counted -= usize::from(run.counts.load(Ordering::Relaxed));
            self.metrics.abandoned(runs.threads);
            record.and_then(|record| runs.records.remove(&record));
        }
    }

    /// The transform that does not return for one of these records.
    fn known(&self, chunk: &Chunk) -> Option<Arc<str>> {
        let runs = self.lock();
        let mut records = runs.records.iter();
        let (_, transform) = records.find(|((partition, offset), _)| {
            *partition == chunk.partition && chunk.offsets().any(|other| other == *offset)
        })?;
        Some(transform.clone())
    }

    fn lock(&self) -> MutexGuard<'_, AbandonedRuns> {
        sync::lock(&self.abandoned)
    }
}

/// The pipeline catches panics of transforms. A panic that arrives here is a bug of the worker, so it ends
/// the worker.
fn finished(ended: Result<Batch, JoinError>) -> Batch {
    match ended {
        Ok(batch) => batch,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
