//! The work of one partition under one assignment: chunks in, one at a time, through pipeline and writers; failed
//! records to the failure policy; completions out. Order within the partition follows from there being one task for
//! it. Ends when told to drain, after what it has begun, or with its channel.

use std::{ops::Range, sync::Arc, sync::mpsc as std_mpsc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    batch::Batch,
    dead_letter::{DeadLetters, FailurePolicy, Letter},
    delivery::deliver,
    offsets::Sequence,
    pipeline::Pipeline,
    progress::Progress,
    record::{Chunk, TopicPartition},
    retry::RetryPolicy,
    settings::{BatchLimits, NamedWriter},
    snapshot::PausedReason,
    telemetry::Metrics,
};

/// What all partitions of a worker share.
pub(crate) struct Shared {
    pub pipeline: Pipeline,
    pub writers: Vec<NamedWriter>,
    pub policy: FailurePolicy,
    pub retry: RetryPolicy,
    pub limits: BatchLimits,
    /// One permit per partition that may be processed at the same time.
    pub lanes: Semaphore,
    pub metrics: Metrics,
}

/// Records handed to a partition's task.
pub(crate) struct Work {
    pub chunk: Chunk,
    /// Sequence number of the chunk's first record.
    pub first: Sequence,
}

/// What a task tells the poll loop.
pub(crate) enum Report {
    /// These records are finished.
    Done {
        partition: TopicPartition,
        epoch: u64,
        finished: Range<Sequence>,
        dead_lettered: u64,
        skipped: u64,
    },
    /// The task has ended; nothing more comes from it.
    Ended { partition: TopicPartition, epoch: u64 },
}

/// One partition's task.
pub(crate) struct PartitionTask {
    pub shared: Arc<Shared>,
    pub partition: TopicPartition,
    pub epoch: u64,
    pub input: mpsc::UnboundedReceiver<Work>,
    /// True: finish what has begun, start nothing.
    pub draining: watch::Receiver<bool>,
    pub progress: Progress,
    pub reports: std_mpsc::Sender<Report>,
}

/// Says that the task has ended however it ends: by itself, aborted, or by a panic in a writer.
struct EndGuard {
    reports: std_mpsc::Sender<Report>,
    partition: TopicPartition,
    epoch: u64,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // The poll loop may be gone already; then nobody needs to know.
        let _ = self.reports.send(Report::Ended {
            partition: self.partition.clone(),
            epoch: self.epoch,
        });
    }
}

impl PartitionTask {
    /// Works until drained.
    pub async fn run(mut self) {
        let _guard = EndGuard {
            reports: self.reports.clone(),
            partition: self.partition.clone(),
            epoch: self.epoch,
        };
        let shared = self.shared.clone();
        let mut draining = self.draining.clone();
        loop {
            let first = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                work = self.input.recv() => match work {
                    Some(work) => work,
                    None => return,
                },
            };
            let work = self.gather(first).await;
            let permit = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                permit = shared.lanes.acquire() => match permit {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            if self.work(&shared, work, permit).await.is_none() {
                return;
            }
        }
    }

    /// Adds later chunks until the batch is full or has waited long enough.
    async fn gather(&mut self, mut work: Work) -> Work {
        let limits = self.shared.limits.clone();
        let deadline = Instant::now() + limits.linger;
        while work.chunk.len() < limits.max_records && work.chunk.bytes() < limits.max_bytes {
            let later = match self.input.try_recv() {
                Ok(later) => later,
                Err(_) if limits.linger == Duration::ZERO || *self.draining.borrow() => break,
                Err(_) => match timeout_at(deadline, self.input.recv()).await {
                    Ok(Some(later)) => later,
                    Ok(None) | Err(_) => break,
                },
            };
            work.chunk.append(&later.chunk);
        }
        work
    }

    /// Processes a chunk to its end. None: told to drain while waiting at a record that fails.
    async fn work(&mut self, shared: &Shared, work: Work, permit: SemaphorePermit<'_>) -> Option<()> {
        let Work { chunk, first } = work;
        let end = first + chunk.len() as u64;
        let chunk = Arc::new(chunk);
        shared.metrics.batch(chunk.len());
        let letters = self.attempt(&chunk).await;
        let (mut dead_lettered, mut skipped) = (0, 0);
        let mut done_to = first;
        if letters.is_empty() {
            shared.policy.passed(&chunk);
        } else {
            for letter in &letters {
                shared
                    .metrics
                    .failure(letter.failure.stage.as_str(), &letter.failure.component);
            }
            match &shared.policy {
                FailurePolicy::DeadLetter(queue) => {
                    (done_to, dead_lettered) =
                        self.dead_letter(queue, &chunk, first, letters, permit).await?;
                }
                FailurePolicy::Skip => {
                    skipped = letters.len() as u64;
                    self.log_first("skipped", &chunk, &letters);
                    shared.metrics.skipped(skipped);
                }
                FailurePolicy::Stop => {
                    // A partition that waits must not keep others from working.
                    drop(permit);
                    for source in sources(&letters) {
                        let position = first + source as u64;
                        self.done(done_to..position, 0, 0);
                        done_to = position;
                        self.log_first("stopped at", &chunk, &letters);
                        self.wait_at(&chunk, source, &letters, PausedReason::RecordFailed, "")
                            .await?;
                    }
                }
            }
        }
        self.done(done_to..end, dead_lettered, skipped);
        Some(())
    }

    /// Writes dead letters; while too many records fail, waits at the next one. Returns what is not reported as done yet:
    /// where it begins, and the dead letters in it. None: told to drain while waiting.
    async fn dead_letter(
        &mut self,
        queue: &DeadLetters,
        chunk: &Arc<Chunk>,
        first: Sequence,
        mut letters: Vec<Letter>,
        permit: SemaphorePermit<'_>,
    ) -> Option<(Sequence, u64)> {
        let shared = self.shared.clone();
        let mut permit = Some(permit);
        let (mut from, mut done_to) = (0, first);
        loop {
            let failed = sources(&letters);
            let positions: Vec<usize> = failed.iter().map(|source| source - from).collect();
            let refusal = queue
                .admit(chunk, chunk.len() - from, &positions)
                .map(|refusal| (failed[refusal.index], refusal.limit));
            let admitted = letters
                .partition_point(|letter| refusal.is_none_or(|(source, _)| letter.failure.source < source));
            let records: Vec<_> = letters[..admitted]
                .iter()
                .map(|letter| (chunk.record(letter.failure.source), letter))
                .collect();
            queue.write(&records, &shared.retry, &self.progress).await;
            for Letter { failure, .. } in &letters[..admitted] {
                shared
                    .metrics
                    .dead_lettered(failure.stage.as_str(), &failure.component);
            }
            let Some((source, limit)) = refusal else {
                return Some((done_to, admitted as u64));
            };
            // A partition that waits must not keep others from working.
            drop(permit.take());
            let position = first + source as u64;
            self.done(done_to..position, admitted as u64, 0);
            done_to = position;
            let why = format!("the dead letter breaker is open, {limit}: ");
            self.log_first(&format!("{why}waiting at"), chunk, &letters[admitted..]);
            self.wait_at(chunk, source, &letters, PausedReason::DeadLetterBreakerOpen, &why)
                .await?;
            queue.close_breaker(chunk);
            // What made the others fail may be over too.
            from = source + 1;
            let rest: Vec<usize> = failed.into_iter().filter(|source| *source >= from).collect();
            letters = match rest.is_empty() {
                true => Vec::new(),
                false => self.attempt(&Arc::new(chunk.select(&rest))).await,
            };
            for letter in &mut letters {
                letter.failure.source = rest[letter.failure.source];
            }
        }
    }

    /// Pipeline and writers, once; returns what failed, by record.
    async fn attempt(&self, chunk: &Arc<Chunk>) -> Vec<Letter> {
        let shared = &self.shared;
        let batch = self.process(chunk.clone()).await;
        let mut letters: Vec<Letter> = batch
            .failures()
            .iter()
            .map(|failure| Letter {
                failure: failure.clone(),
                attempts: 1,
            })
            .collect();
        let deliveries = shared
            .writers
            .iter()
            .map(|writer| deliver(writer, &batch, &shared.retry, &self.progress, &shared.metrics));
        for refused in join_all(deliveries).await.into_iter().flatten() {
            // A record that became several outputs fails once per writer.
            let known = |letter: &Letter| {
                letter.failure.source == refused.failure.source
                    && letter.failure.component == refused.failure.component
            };
            if !letters.iter().any(known) {
                letters.push(Letter {
                    failure: refused.failure,
                    attempts: refused.attempts,
                });
            }
        }
        letters.sort_by_key(|letter| letter.failure.source);
        letters
    }

    async fn process(&self, chunk: Arc<Chunk>) -> Batch {
        if self.shared.pipeline.is_identity() {
            return self.shared.pipeline.process(chunk);
        }
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || shared.pipeline.process(chunk)).await {
            Ok(batch) => batch,
            // Panics of transforms are caught inside, so this one is a bug of ours: let it end the worker, visibly.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Tries the record again, slowly, until it passes or the partition is taken away. `why` begins the message.
    async fn wait_at(
        &mut self,
        chunk: &Chunk,
        source: usize,
        letters: &[Letter],
        reason: PausedReason,
        why: &str,
    ) -> Option<()> {
        let record = Arc::new(chunk.single(source));
        let mut failure = letters
            .iter()
            .find(|letter| letter.failure.source == source)?
            .failure
            .clone();
        for attempt in 1_u32.. {
            let message = format!(
                "{why}{}@{}: {} {}: {}",
                self.partition,
                record.record(0).offset,
                failure.stage.as_str(),
                failure.component,
                failure.message
            );
            self.progress.failing(attempt, &message);
            self.progress.hold(reason);
            let mut draining = self.draining.clone();
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return None,
                () = tokio::time::sleep(self.shared.retry.max) => {}
            }
            match self.attempt(&record).await.into_iter().next() {
                Some(letter) => failure = letter.failure,
                None => break,
            }
        }
        self.progress.recovered();
        Some(())
    }

    fn done(&self, finished: Range<Sequence>, dead_lettered: u64, skipped: u64) {
        if finished.is_empty() {
            return;
        }
        let report = Report::Done {
            partition: self.partition.clone(),
            epoch: self.epoch,
            finished,
            dead_lettered,
            skipped,
        };
        // The poll loop outlives its tasks except when it has failed; then nothing is committed any more anyway.
        let _ = self.reports.send(report);
    }

    fn log_first(&self, what: &str, chunk: &Chunk, letters: &[Letter]) {
        let Some(Letter { failure, .. }) = letters.first() else {
            return;
        };
        tracing::warn!(
            partition = %self.partition,
            offset = chunk.record(failure.source).offset,
            stage = failure.stage.as_str(),
            component = %failure.component,
            records = letters.len(),
            "{what} a record that fails: {}",
            failure.message
        );
    }
}

/// The failing records, each once, in order.
fn sources(letters: &[Letter]) -> Vec<usize> {
    let mut sources: Vec<usize> = letters.iter().map(|letter| letter.failure.source).collect();
    sources.dedup();
    sources
}
