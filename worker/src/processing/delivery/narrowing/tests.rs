//! A writer that fails over some records, or over all of them for a while. Waits are a few milliseconds.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::{
    health::problems::Problems,
    processing::{
        batch_part::PendingWrite,
        delivery::{Delivery, RetryMode, outcome::WriteOutcome},
    },
    record::{Chunk, Offset, TopicPartition, batch::Batch},
    retry::RetryPolicy,
    telemetry::Metrics,
    writer::{NamedWriter, Rejected, WriteBatch, WriteError, Writer, breaker::WriterBreaker},
};

const RECORDS: i64 = 8;

/// What the server does not write.
#[derive(Clone, Copy, Default)]
struct Faults<'a> {
    /// It fails over these offsets.
    poison: &'a [Offset],
    /// It rejects these offsets for now.
    busy: &'a [Offset],
    /// It fails over everything for this number of calls,
    down: u32,
    /// then it works for this number of calls,
    up: u32,
    /// then it fails for this number of calls.
    down_again: u32,
    /// Another call is answered as soon as it works.
    answers_another: bool,
}

struct Server {
    poison: Vec<Offset>,
    busy: Vec<Offset>,
    /// Whether each of the next calls fails, from the last to the first.
    down: Mutex<Vec<bool>>,
    /// Offsets in the order in which they were written.
    written: Mutex<Vec<Offset>>,
    /// Notified when it works.
    works: Notify,
}

impl Writer for Server {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let (down, works) = {
                let mut down = self.down.lock().unwrap();
                (down.pop().unwrap_or_default(), down.is_empty())
            };
            if works {
                self.works.notify_one();
            }
            let poison = |offset: Offset| self.poison.contains(&offset);
            if down || batch.records().any(|record| poison(record.offset())) {
                return Err(WriteError::Inconclusive("status 500".into()));
            }
            let (mut written, mut rejected) = (Vec::new(), Vec::new());
            for (position, record) in batch.records().enumerate() {
                if self.busy.contains(&record.offset()) {
                    rejected.push(Rejected {
                        position,
                        message: "busy".into(),
                        retryable: true,
                        in_doubt: false,
                    });
                } else {
                    written.push(record.offset());
                }
            }
            self.written.lock().unwrap().extend(written);
            Ok(rejected)
        })
    }
}

fn poison(poison: &[Offset]) -> Faults<'_> {
    Faults {
        poison,
        ..Faults::default()
    }
}

/// Delivers the records 0 to 7. Returns the outcome, and the offsets in the order of their last write.
async fn deliver(faults: Faults<'_>, retry_mode: RetryMode) -> (WriteOutcome, Vec<Offset>) {
    let (outcome, written) = deliver_all(faults, retry_mode).await;
    let mut last: Vec<Offset> = Vec::new();
    for offset in written {
        last.retain(|earlier| *earlier != offset);
        last.push(offset);
    }
    (outcome, last)
}

/// The same, with every write.
async fn deliver_all(faults: Faults<'_>, retry_mode: RetryMode) -> (WriteOutcome, Vec<Offset>) {
    let calls = [(faults.down_again, true), (faults.up, false), (faults.down, true)];
    let calls = calls.map(|(calls, down)| vec![down; calls as usize]);
    let server = Arc::new(Server {
        poison: faults.poison.to_vec(),
        busy: faults.busy.to_vec(),
        down: Mutex::new(calls.concat()),
        written: Mutex::default(),
        works: Notify::new(),
    });
    let metrics = Metrics::new();
    let mut chunk = Chunk::new(TopicPartition::new("orders", 0), 1);
    for offset in 0..RECORDS {
        chunk.push(offset, 0, None, Some(b"value"), []);
    }
    let breaker = WriterBreaker::new("http".into(), metrics.clone());
    let (batch, problems) = (Batch::identity(Arc::new(chunk)), Problems::default());
    let delivery = Delivery {
        transaction: 0,
        after_a_wait: false,
        writer: &NamedWriter {
            name: "http".into(),
            writer: server.clone(),
        },
        breaker: &breaker,
        batch: &batch,
        retry_mode,
        retry: &RetryPolicy {
            max_attempts: 3,
            initial: Duration::from_micros(100),
            max: Duration::from_millis(1),
            jitter_percent: 20,
        },
        reporter: &problems.at(0),
        metrics: &metrics,
    };
    let pending = PendingWrite {
        writer: 0,
        outputs: (0..RECORDS as u32).collect(),
        attempts: 0,
    };
    let another = async {
        if faults.answers_another {
            server.works.notified().await;
            breaker.admit(|_| {}).await.answered();
        }
    };
    let (outcome, ()) = tokio::join!(delivery.run(&pending), another);
    let written = server.written.lock().unwrap().clone();
    (outcome, written)
}

#[tokio::test]
async fn a_record_over_which_the_writer_fails_is_found_and_counts_as_failed() {
    for poison in [
        vec![0],
        vec![1],
        vec![4],
        vec![7],
        vec![0, 1],
        vec![6, 7],
        vec![0, 1, 2, 3],
        vec![0, 3, 5, 7],
        vec![0, 1, 2, 3, 4, 5, 6],
        vec![1, 2, 3, 4, 5, 6, 7],
    ] {
        for mode in [RetryMode::Requeue, RetryMode::RequeueWithFollowers] {
            let (outcome, last) = deliver(self::poison(&poison), mode).await;
            let rejected: Vec<Offset> = (outcome.rejected.iter())
                .map(|rejected| rejected.failure.source as Offset)
                .collect();
            assert_eq!(rejected, poison);
            let others: Vec<Offset> = (0..RECORDS).filter(|offset| !poison.contains(offset)).collect();
            assert_eq!(last, others, "{poison:?}");
            for rejected in outcome.rejected {
                let message = &rejected.failure.message;
                assert_eq!(rejected.attempts, 3);
                assert!(message.contains("over the record orders-0@") && message.contains("status 500"));
                assert!(!message.contains("unavailable"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn an_outage_fails_no_record_and_keeps_the_order() {
    for calls in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 40] {
        for mode in [RetryMode::Requeue, RetryMode::RequeueWithFollowers] {
            let faults = Faults {
                down: calls,
                ..Faults::default()
            };
            let (outcome, last) = deliver(faults, mode).await;
            assert!(outcome.rejected.is_empty(), "{calls}: {outcome:?}");
            assert_eq!(last, Vec::from_iter(0..RECORDS), "{calls}");
        }
    }
}

#[tokio::test]
async fn an_outage_repeats_at_most_one_record() {
    for calls in 1..60 {
        let faults = Faults {
            down: calls,
            ..Faults::default()
        };
        let (_, written) = deliver_all(faults, RetryMode::RequeueWithFollowers).await;
        assert!(written.len() <= RECORDS as usize + 1, "{calls}: {written:?}");
    }
}

#[tokio::test]
async fn no_record_is_written_before_its_turn_when_another_call_was_answered() {
    for calls in 1..60 {
        let faults = Faults {
            down: calls,
            answers_another: true,
            ..Faults::default()
        };
        let (_, written) = deliver_all(faults, RetryMode::RequeueWithFollowers).await;
        assert_eq!(written, Vec::from_iter(0..RECORDS), "{calls}");
    }
}

#[tokio::test]
async fn the_record_is_found_after_an_outage_as_well() {
    for calls in [3, 10, 20] {
        let faults = Faults {
            down: calls,
            ..poison(&[2])
        };
        let (outcome, last) = deliver(faults, RetryMode::RequeueWithFollowers).await;
        assert_eq!(outcome.rejected.len(), 1, "{calls}");
        assert_eq!(last, [0, 1, 3, 4, 5, 6, 7], "{calls}");
    }
}

#[tokio::test]
async fn a_write_is_not_repeated_where_it_must_not_be() {
    let (outcome, _) = deliver(poison(&[2]), RetryMode::Never).await;
    assert_eq!((outcome.given_up, outcome.rejected.len()), (8, 0));
    let (outcome, _) = deliver(poison(&[2]), RetryMode::AbortTransaction).await;
    assert!(outcome.failure.is_some());
}

#[tokio::test]
async fn what_the_writer_rejects_before_its_turn_counts_only_in_its_turn() {
    for busy in 1..RECORDS {
        let faults = Faults {
            busy: &[busy],
            ..poison(&[0])
        };
        let (outcome, last) = deliver(faults, RetryMode::RequeueWithFollowers).await;
        let rejected = outcome.rejected.iter().map(|rejected| rejected.failure.source);
        assert_eq!(Vec::from_iter(rejected), [0], "{busy}");
        let later = outcome.later.iter().map(|later| Offset::from(later.output));
        assert_eq!(Vec::from_iter(later), [busy]);
        // Everything before the rejected record is written.
        let rest = outcome.rest.iter().map(|output| Offset::from(*output));
        assert!(rest.clone().all(|offset| offset > busy), "{outcome:?}");
        let written = last.iter().copied();
        let mut all: Vec<Offset> = written.chain(rest).chain([0, busy]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, Vec::from_iter(0..RECORDS), "{busy}");
    }
}
