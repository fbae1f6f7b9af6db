//! Several deliveries with one writer that is unavailable for a while. Waits are a few milliseconds.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;

use super::*;
use crate::{
    health::problems::Problems,
    record::{Chunk, Offset, TopicPartition},
    writer::{Rejected, Writer},
};

/// Answers the first calls with the errors in `first`, and later calls with the one in `stays`.
#[derive(Default)]
struct Sink {
    first: Mutex<Vec<WriteError>>,
    stays: Mutex<Option<WriteError>>,
    calls: AtomicU32,
    written: Mutex<Vec<(i32, Offset)>>,
}

impl Writer for Sink {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let first = self.first.lock().unwrap().pop();
            if let Some(error) = first.or_else(|| self.stays.lock().unwrap().clone()) {
                return Err(error);
            }
            let records = batch
                .records()
                .map(|record| (record.record.partition().partition, record.offset()));
            self.written.lock().unwrap().extend(records);
            Ok(Vec::new())
        })
    }
}

/// A writer, its breaker, and what else a delivery needs.
struct Fixture {
    sink: Arc<Sink>,
    writer: NamedWriter,
    breaker: WriterBreaker,
    retry: RetryPolicy,
    metrics: Metrics,
}

fn fixture() -> Arc<Fixture> {
    let (sink, metrics) = (Arc::new(Sink::default()), Metrics::new());
    Arc::new(Fixture {
        writer: NamedWriter {
            name: "sink".into(),
            writer: sink.clone(),
        },
        sink,
        breaker: WriterBreaker::new("sink".into(), metrics.clone()),
        retry: RetryPolicy {
            max_attempts: 3,
            initial: Duration::from_millis(1),
            max: Duration::from_millis(4),
            jitter_percent: 20,
        },
        metrics,
    })
}

impl Fixture {
    /// Delivers two records of a partition.
    async fn deliver(&self, partition: i32, retry_mode: RetryMode, problems: Problems) -> WriteOutcome {
        let mut chunk = Chunk::new(TopicPartition::new("orders", partition), 1);
        for offset in 0..2 {
            chunk.push(offset, 0, None, Some(b"value"), []);
        }
        let batch = Batch::identity(Arc::new(chunk));
        let delivery = Delivery {
            transaction: 0,
            after_a_wait: false,
            writer: &self.writer,
            breaker: &self.breaker,
            batch: &batch,
            retry_mode,
            retry: &self.retry,
            reporter: &problems.at(0),
            metrics: &self.metrics,
        };
        delivery
            .run(&PendingWrite {
                writer: 0,
                outputs: vec![0, 1],
                attempts: 0,
            })
            .await
    }

    fn is_open(&self) -> bool {
        let text = self.metrics.encode(&Default::default(), Duration::ZERO).unwrap();
        text.contains("kcg_worker_writer_breaker_open{writer=\"sink\"} 1")
    }

    async fn calls(&self, calls: u32) {
        while self.sink.calls.load(Ordering::SeqCst) < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn systemic() -> WriteError {
    WriteError::Systemic("table missing".into())
}

fn transient() -> WriteError {
    WriteError::Transient("503".into())
}

#[tokio::test]
async fn a_single_transient_failure_does_not_stop_other_deliveries() {
    let fixture = fixture();
    *fixture.sink.first.lock().unwrap() = vec![transient()];
    let first = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.deliver(0, RetryMode::Requeue, Problems::default()).await }
    });
    fixture.calls(1).await;
    tokio::task::yield_now().await;
    assert!(!fixture.is_open());
    fixture.deliver(1, RetryMode::Requeue, Problems::default()).await;
    first.await.unwrap();
    assert!(!fixture.is_open());
}

#[tokio::test]
async fn while_a_writer_is_unavailable_all_report_why_and_then_continue() {
    let fixture = fixture();
    *fixture.sink.stays.lock().unwrap() = Some(systemic());
    let problems: Vec<Problems> = (0..12).map(|_| Problems::default()).collect();
    let deliveries: Vec<_> = (0..)
        .zip(&problems)
        .map(|(partition, problems)| {
            let (fixture, problems) = (fixture.clone(), problems.clone());
            tokio::spawn(async move { fixture.deliver(partition, RetryMode::Requeue, problems).await })
        })
        .collect();
    fixture.calls(20).await;
    assert!(fixture.is_open());
    for problems in &problems {
        let problem = problems.oldest();
        assert_eq!(problem.paused_reason, Some(PausedReason::WriterUnavailable));
        assert_eq!(problem.last_error.as_deref(), Some("writer sink: table missing"));
    }
    *fixture.sink.stays.lock().unwrap() = None;
    for delivery in deliveries {
        let outcome = delivery.await.unwrap();
        assert!(outcome.rejected.is_empty() && outcome.given_up == 0);
    }
    assert!(!fixture.is_open());
    assert_eq!(fixture.sink.written.lock().unwrap().len(), 24);
    assert!(
        problems
            .iter()
            .all(|problems| problems.oldest() == Default::default())
    );
}

#[tokio::test]
async fn a_delivery_that_is_dropped_while_it_probes_leaves_the_probe_to_another() {
    let fixture = fixture();
    *fixture.sink.stays.lock().unwrap() = Some(systemic());
    let spawn = |partition| {
        let fixture = fixture.clone();
        tokio::spawn(async move {
            fixture
                .deliver(partition, RetryMode::Requeue, Problems::default())
                .await
        })
    };
    let (mut ended, stays) = (spawn(0), spawn(1));
    for calls in 4..10 {
        fixture.calls(calls).await;
        ended.abort();
        ended = spawn(0);
    }
    ended.abort();
    *fixture.sink.stays.lock().unwrap() = None;
    stays.await.unwrap();
    assert!(fixture.sink.written.lock().unwrap().contains(&(1, 1)));
}

#[tokio::test]
async fn at_most_once_gives_up_attempted_records_and_no_waiting_ones() {
    let fixture = fixture();
    *fixture.sink.first.lock().unwrap() = vec![transient(), systemic()];
    // The systemic error opens the breaker. Nothing is written then, so the delivery retries, and the retry
    // may have been written.
    let first = fixture.deliver(0, RetryMode::Never, Problems::default()).await;
    assert_eq!((first.given_up, fixture.is_open()), (2, true));
    let second = fixture.deliver(1, RetryMode::Never, Problems::default()).await;
    assert_eq!((second.given_up, fixture.is_open()), (0, false));
    assert_eq!(*fixture.sink.written.lock().unwrap(), [(1, 0), (1, 1)]);
}
