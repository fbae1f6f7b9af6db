//! Whole partitions: real router, lanes and pipeline, a writer that does as it is told. Waits are a few milliseconds, and
//! nothing depends on how long anything takes: what must not happen would be seen in the order of the writes.

mod exactly_once;
mod script;
mod waiting;
mod writers;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use crds::spec::{Decode, DeliveryGuarantee, Ordering};
use tokio::sync::{Semaphore, mpsc, watch};

use self::script::{Does, Script};
use crate::{
    dead_letter::FailurePolicy,
    decode::Decoders,
    health::{problems::Problems, snapshot::PausedReason},
    pipeline::{Pipeline, time_limit::TimedPipeline},
    processing::{
        PartitionTask,
        context::{PartitionContext, WorkerContext},
        messages::{DispatchedChunk, TaskEvent},
    },
    record::{Chunk, Offset, TopicPartition},
    retry::RetryPolicy,
    telemetry::Metrics,
    transform::{NamedTransform, per_record},
    writer::{NamedWriter, breaker::WriterBreaker},
};

struct Running {
    script: Arc<Script>,
    input: Option<mpsc::UnboundedSender<DispatchedChunk>>,
    drain: watch::Sender<bool>,
    events: std_mpsc::Receiver<TaskEvent>,
    problems: Problems,
    delivered: u64,
    done: Vec<Offset>,
    skipped: u64,
    ended: bool,
}

const FIRST: Offset = 100;

fn start(ordering: Ordering, guarantee: DeliveryGuarantee, policy: FailurePolicy) -> Running {
    start_with(Script::default(), ordering, guarantee, policy)
}

fn start_with(
    script: Script,
    ordering: Ordering,
    guarantee: DeliveryGuarantee,
    policy: FailurePolicy,
) -> Running {
    let (script, longest) = (Arc::new(script), Duration::from_millis(8));
    run_on(shared(&script, ordering, guarantee, policy, longest), script)
}

pub(crate) fn shared(
    script: &Arc<Script>,
    ordering: Ordering,
    guarantee: DeliveryGuarantee,
    policy: FailurePolicy,
    longest: Duration,
) -> Arc<WorkerContext> {
    let metrics = Metrics::new();
    let told = script.clone();
    let refuse_bad = per_record("check", move |record, output| match record.value {
        Some(b"bad") if !told.is_mended() => Err("bad".into()),
        Some(b"twice") => {
            output.keep();
            output.keep();
            Ok(())
        }
        _ => {
            output.keep();
            Ok(())
        }
    });
    let transform = NamedTransform {
        name: "check".into(),
        transform: refuse_bad,
    };
    let decoders = Decoders::new(&Decode::default(), false);
    Arc::new(WorkerContext {
        runs: Arc::new(TimedPipeline::new(
            Pipeline::new(decoders, vec![transform], metrics.clone()),
            2,
            Duration::from_secs(60),
            metrics.clone(),
        )),
        writers: vec![NamedWriter {
            name: "script".into(),
            writer: script.clone(),
        }],
        breakers: vec![WriterBreaker::new("script".into(), metrics.clone())],
        policy,
        retry: RetryPolicy {
            max_attempts: 3,
            initial: longest / 4,
            max: longest,
            jitter_percent: 0,
        },
        guarantee,
        ordering,
        concurrency: 3,
        lanes: Semaphore::new(3),
        gate: None,
        metrics,
    })
}

/// A partition of its own.
fn run_on(shared: Arc<WorkerContext>, script: Arc<Script>) -> Running {
    let (input, receiver) = mpsc::unbounded_channel();
    let (drain, draining) = watch::channel(false);
    let (event_sender, events) = std_mpsc::channel();
    let problems = Problems::default();
    let context = PartitionContext {
        shared,
        partition: TopicPartition::new("t", 0),
        epoch: 1,
        round: 0,
        problems: problems.clone(),
        events: event_sender,
        draining,
    };
    let task = PartitionTask {
        context: Arc::new(context),
        input: receiver,
    };
    tokio::spawn(task.run());
    Running {
        script,
        input: Some(input),
        drain,
        events,
        problems,
        delivered: 0,
        done: Vec::new(),
        skipped: 0,
        ended: false,
    }
}

impl Running {
    /// Sends one chunk; a key of "-" is none, a trailing "!" makes the transform fail, a trailing "2" makes two outputs.
    fn send(&mut self, keys: &str) {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        let first = self.delivered;
        for word in keys.split(' ') {
            let key = word.trim_end_matches(['!', '2']);
            let value: &[u8] = match word.chars().last() {
                Some('!') => b"bad",
                Some('2') => b"twice",
                _ => b"good",
            };
            let key = (key != "-").then_some(key.as_bytes());
            chunk.push(FIRST + self.delivered as i64, 0, key, Some(value), []);
            self.delivered += 1;
        }
        let input = self.input.as_ref().unwrap();
        assert!(input.send(DispatchedChunk { chunk, first }).is_ok());
    }

    /// Waits until all these are finished; gives back whatever is finished by then, sorted.
    async fn finished(&mut self, wanted: impl IntoIterator<Item = Offset>) -> Vec<Offset> {
        let wanted: Vec<Offset> = wanted.into_iter().collect();
        self.until(|running| wanted.iter().all(|offset| running.done.contains(offset)))
            .await;
        self.done.sort();
        self.done.clone()
    }

    /// Takes reports until it is so; a test that waits in vain is ended by the runner's patience.
    async fn until(&mut self, so: impl Fn(&Running) -> bool) {
        loop {
            for event in self.events.try_iter() {
                match event {
                    TaskEvent::Finished {
                        finished, skipped, ..
                    } => {
                        self.skipped += skipped;
                        for run in finished.runs() {
                            self.done.extend(run.map(|sequence| FIRST + sequence as i64));
                        }
                    }
                    TaskEvent::Ended { .. } => self.ended = true,
                    TaskEvent::Transaction(event) => panic!("there are no transactions: {event:?}"),
                }
            }
            if so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was written of these, in order.
    fn order_of(&self, offsets: &[Offset]) -> Vec<Offset> {
        let mut written = self.script.written();
        written.retain(|offset| offsets.contains(offset));
        written
    }
}

#[tokio::test]
async fn a_record_that_is_tried_again_holds_back_its_own_key_only() {
    let mut running = start(
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    // The third attempt succeeds only after everything else is done.
    running.script.tell(100, &[Does::RetryLater, Does::Fail]);
    running.send("a b a - c");
    running.send("a d");
    assert_eq!(running.finished([101, 103, 104, 106]).await, [101, 103, 104, 106]);
    running
        .until(|running| running.problems.oldest().attempts > 2)
        .await;
    let error = running.problems.oldest().last_error;
    assert_eq!(error.as_deref(), Some("writer script: away"));
    running.script.tell(100, &[Does::Accept]);
    running.finished(100..107).await;
    // 102 was in the same batch as the first attempt at 100, so it is written again, behind it.
    assert_eq!(running.order_of(&[100, 102, 105]), [102, 100, 102, 105]);
    assert_eq!(running.problems.oldest(), Default::default());
}

#[tokio::test]
async fn a_record_that_stays_refused_is_given_up_after_its_attempts_and_its_key_goes_on() {
    let mut running = start(
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    running.script.tell(
        100,
        &[Does::RetryLater, Does::RetryLater, Does::RetryLater, Does::Accept],
    );
    running.send("a a");
    running.finished(100..102).await;
    assert_eq!((running.skipped, running.script.written()), (1, vec![101, 101]));
}

#[tokio::test]
async fn without_order_a_waiting_record_holds_back_nothing() {
    let mut running = start(
        Ordering::Unordered,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Stop,
    );
    running.script.tell(101, &[Does::Refuse]);
    running.send("a a a a a a a");
    running.send("a");
    let rest = [100, 102, 103, 104, 105, 106, 107];
    assert_eq!(running.finished(rest).await, rest);
    running.script.tell(101, &[Does::RetryLater, Does::Accept]);
    running.finished([101]).await;
}

#[tokio::test]
async fn in_partition_order_a_record_that_is_tried_again_holds_back_the_partition() {
    let mut running = start(
        Ordering::PerPartition,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    running
        .script
        .tell(101, &[Does::RetryLater, Does::RetryLater, Does::Accept]);
    running.send("a b b");
    running.send("c");
    running.finished(100..104).await;
    assert_eq!(running.script.written(), [100, 102, 101, 102, 103]);
}

#[tokio::test]
async fn with_stop_a_failing_record_holds_back_what_comes_after_it_in_its_order() {
    for (ordering, others) in [
        (Ordering::PerPartition, vec![100]),
        (Ordering::PerKey, vec![100, 102, 104]),
        (Ordering::Unordered, vec![100, 102, 103, 104]),
    ] {
        let mut running = start(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
        running.send("a b! c b");
        running.send("a");
        running.finished(others.clone()).await;
        running
            .until(|running| running.problems.oldest().attempts > 5)
            .await;
        assert_eq!(
            running.problems.oldest().paused_reason,
            Some(PausedReason::RecordFailed)
        );
        let mut written = running.script.written();
        written.sort();
        assert_eq!(
            (written, running.done.len()),
            (others.clone(), others.len()),
            "{ordering:?}"
        );
        // WaitingRecord is no work: it ends at once, without the record.
        running.drain.send_replace(true);
        running.until(|running| running.ended).await;
        assert_eq!(running.done.len(), others.len(), "{ordering:?}");
    }
}

#[tokio::test]
async fn with_stop_a_refused_record_goes_on_once_its_writer_takes_it() {
    for ordering in [Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered] {
        let mut running = start(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
        running.script.tell(101, &[Does::Refuse]);
        running.send("a b c");
        running.send("b");
        running
            .until(|running| running.problems.oldest().attempts > 2)
            .await;
        assert!(!running.done.contains(&101), "{ordering:?}");
        running.script.tell(101, &[Does::Refuse, Does::Accept]);
        running.finished(100..104).await;
        running
            .until(|running| running.problems.oldest() == Default::default())
            .await;
        let mut written = running.script.written();
        written.sort();
        assert_eq!(written, [100, 101, 102, 103], "{ordering:?}");
    }
}

#[tokio::test]
async fn a_task_whose_input_ends_finishes_everything_first() {
    let mut running = start(
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    running
        .script
        .tell(100, &[Does::RetryLater, Does::RetryLater, Does::Accept]);
    running.send("a b c");
    running.input = None;
    running.until(|running| running.ended).await;
    running.done.sort();
    assert_eq!(running.done, [100, 101, 102]);
}
