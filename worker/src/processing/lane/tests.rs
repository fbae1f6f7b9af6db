//! Whole partitions: real partition tasks, lanes and pipeline, with a scripted writer. Waits are a few
//! milliseconds, and no test depends on how long anything takes: the order of the writes would show what must
//! not happen.

mod exactly_once;
mod waiting;
mod writers;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use crds::spec::{DeliveryGuarantee, Ordering};
use tokio::sync::{mpsc, watch};

use crate::{
    dead_letter::FailurePolicy,
    health::{problems::Problems, snapshot::PausedReason},
    processing::{
        PartitionTask,
        context::{PartitionContext, WorkerContext},
        messages::{DispatchedChunk, TaskEvent},
        testing::{Script, ScriptedAnswer, shared},
    },
    record::{Chunk, Offset, TopicPartition},
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

/// Starts the task of a new partition.
fn run_on(shared: Arc<WorkerContext>, script: Arc<Script>) -> Running {
    let (input, receiver) = mpsc::unbounded_channel();
    let (drain, draining) = watch::channel(false);
    let (event_sender, events) = std_mpsc::channel();
    let problems = Problems::default();
    let context = PartitionContext {
        shared,
        partition: TopicPartition::new("t", 0),
        task_epoch: 1,
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
    /// Sends one chunk. The key "-" stands for no key; a trailing "!" makes the transform fail, and a
    /// trailing "2" makes two outputs.
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

    /// Waits until all these are finished. Returns everything that is finished by then, sorted.
    async fn finished(&mut self, wanted: impl IntoIterator<Item = Offset>) -> Vec<Offset> {
        let wanted: Vec<Offset> = wanted.into_iter().collect();
        self.until(|running| wanted.iter().all(|offset| running.done.contains(offset)))
            .await;
        self.done.sort();
        self.done.clone()
    }

    /// Takes events until the condition holds. The test runner's timeout ends a test that waits in vain.
    async fn until(&mut self, condition: impl Fn(&Running) -> bool) {
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
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Which of these were written, in order.
    fn order_of(&self, offsets: &[Offset]) -> Vec<Offset> {
        let mut written = self.script.written();
        written.retain(|offset| offsets.contains(offset));
        written
    }
}

#[tokio::test]
async fn a_retried_record_holds_back_its_own_key_only() {
    let mut running = start(
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    // The third attempt succeeds only after everything else is finished.
    running
        .script
        .answer(100, &[ScriptedAnswer::RetryLater, ScriptedAnswer::Transient]);
    running.send("a b a - c");
    running.send("a d");
    assert_eq!(running.finished([101, 103, 104, 106]).await, [101, 103, 104, 106]);
    running
        .until(|running| running.problems.oldest().attempts > 2)
        .await;
    let error = running.problems.oldest().last_error;
    assert_eq!(error.as_deref(), Some("writer script: unavailable"));
    running.script.answer(100, &[ScriptedAnswer::Accept]);
    running.finished(100..107).await;
    // 102 was in the same batch as the first attempt at 100, so it is written again, behind it.
    assert_eq!(running.order_of(&[100, 102, 105]), [102, 100, 102, 105]);
    assert_eq!(running.problems.oldest(), Default::default());
}

#[tokio::test]
async fn a_record_that_stays_refused_is_skipped_after_its_attempts_and_its_key_continues() {
    let mut running = start(
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    running.script.answer(
        100,
        &[
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::Accept,
        ],
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
    running.script.answer(101, &[ScriptedAnswer::Refuse]);
    running.send("a a a a a a a");
    running.send("a");
    let rest = [100, 102, 103, 104, 105, 106, 107];
    assert_eq!(running.finished(rest).await, rest);
    running
        .script
        .answer(101, &[ScriptedAnswer::RetryLater, ScriptedAnswer::Accept]);
    running.finished([101]).await;
}

#[tokio::test]
async fn in_partition_order_a_retried_record_holds_back_the_partition() {
    let mut running = start(
        Ordering::PerPartition,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Skip,
    );
    running.script.answer(
        101,
        &[
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::Accept,
        ],
    );
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
        // A waiting record is not in flight: the task ends at once, without it.
        running.drain.send_replace(true);
        running.until(|running| running.ended).await;
        assert_eq!(running.done.len(), others.len(), "{ordering:?}");
    }
}

#[tokio::test]
async fn with_stop_a_refused_record_continues_once_its_writer_accepts_it() {
    for ordering in [Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered] {
        let mut running = start(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
        running.script.answer(101, &[ScriptedAnswer::Refuse]);
        running.send("a b c");
        running.send("b");
        running
            .until(|running| running.problems.oldest().attempts > 2)
            .await;
        assert!(!running.done.contains(&101), "{ordering:?}");
        running
            .script
            .answer(101, &[ScriptedAnswer::Refuse, ScriptedAnswer::Accept]);
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
    running.script.answer(
        100,
        &[
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::RetryLater,
            ScriptedAnswer::Accept,
        ],
    );
    running.send("a b c");
    running.input = None;
    running.until(|running| running.ended).await;
    running.done.sort();
    assert_eq!(running.done, [100, 101, 102]);
}
