//! Parts for tests of this room and of the rooms above: a worker's shared context, a scripted writer, and
//! batch parts.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering as AtomicOrdering},
    },
    time::Duration,
};

use crds::spec::{Decode, DeliveryGuarantee, Ordering};
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::{
    dead_letter::FailurePolicy,
    decode::Decoders,
    offsets::{FinishedSet, Sequence},
    pipeline::{Pipeline, time_limit::TimedPipeline},
    processing::{batch_part::BatchPart, context::WorkerContext},
    record::{
        Chunk, Offset, TopicPartition,
        batch::{Batch, builder::Payload},
        failure::Stage,
    },
    retry::RetryPolicy,
    telemetry::Metrics,
    transform::{NamedTransform, per_record},
    writer::{NamedWriter, Rejected, WriteBatch, WriteError, Writer, breaker::WriterBreaker},
};

/// What the partitions of a worker share, with the writer `script` and a transform that fails at records with
/// the value "bad" and doubles those with "twice". `longest` is the longest backoff.
pub(crate) fn shared(
    script: &Arc<Script>,
    ordering: Ordering,
    guarantee: DeliveryGuarantee,
    policy: FailurePolicy,
    longest: Duration,
) -> Arc<WorkerContext> {
    let metrics = Metrics::new();
    let switch = script.clone();
    let refuse_bad = per_record("check", move |record, output| match record.value {
        Some(b"bad") if !switch.is_fixed() => Err("bad".into()),
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
        pipeline: Arc::new(TimedPipeline::new(
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

/// Records with these keys at offsets from 10 on. A record whose key ends in "!" has failed, one whose key
/// ends in "0" was filtered out, and one whose key ends in "2" has two outputs.
pub(crate) fn part(keys: &[&str], first: Sequence, writers: usize) -> BatchPart {
    let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
    for (index, key) in keys.iter().enumerate() {
        let key = (!key.is_empty()).then_some(key.as_bytes());
        chunk.push(10 + index as i64, 0, key, Some(b"v"), []);
    }
    let batch = Batch::identity(Arc::new(chunk));
    let mut builder = batch.next();
    for (index, key) in keys.iter().enumerate() {
        match key.chars().last() {
            Some('!') => builder.fail(index, Stage::Transform, &"t".into(), "no"),
            Some('0') => builder.filter(),
            Some('2') => {
                builder.emit(index, Payload::Keep, Payload::Keep);
                builder.emit(index, Payload::Keep, Payload::Keep);
            }
            _ => builder.emit(index, Payload::Keep, Payload::Keep),
        }
    }
    BatchPart::new(builder.finish().0, first, writers)
}

/// How the writer answers for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptedAnswer {
    Accept,
    RetryLater,
    /// As `RetryLater`, but the record may have been written.
    InDoubt,
    Refuse,
    RefuseBatch,
    Transient,
    Systemic,
}

/// A scripted writer. The test sets its answers by offset; the last answer for an offset stays.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<Offset, Vec<ScriptedAnswer>>>,
    written: Mutex<Vec<Offset>>,
    /// The answers to claims. By default nothing is finished.
    pub claims: Mutex<Vec<Result<FinishedSet, WriteError>>>,
    /// True: the transform accepts bad records.
    fixed: AtomicBool,
}

impl Script {
    pub fn answer(&self, offset: Offset, answers: &[ScriptedAnswer]) {
        self.answers.lock().unwrap().insert(offset, answers.to_vec());
    }

    fn next(&self, offset: Offset) -> ScriptedAnswer {
        match self.answers.lock().unwrap().get_mut(&offset) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0],
            None => ScriptedAnswer::Accept,
        }
    }

    pub fn fix(&self) {
        self.fixed.store(true, AtomicOrdering::SeqCst);
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed.load(AtomicOrdering::SeqCst)
    }

    pub fn written(&self) -> Vec<Offset> {
        self.written.lock().unwrap().clone()
    }
}

impl Writer for Script {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            let answers: Vec<ScriptedAnswer> =
                batch.records().map(|record| self.next(record.offset())).collect();
            if answers.contains(&ScriptedAnswer::Transient) {
                return Err(WriteError::Transient("unavailable".into()));
            }
            if answers.contains(&ScriptedAnswer::Systemic) {
                return Err(WriteError::Systemic("broken".into()));
            }
            if answers.contains(&ScriptedAnswer::RefuseBatch) {
                return Err(WriteError::Refused("one of them".into()));
            }
            let mut rejected = Vec::new();
            for (position, (record, answer)) in batch.records().zip(answers).enumerate() {
                match answer {
                    ScriptedAnswer::Accept => self.written.lock().unwrap().push(record.offset()),
                    _ => rejected.push(Rejected {
                        position,
                        message: "no".into(),
                        retryable: matches!(answer, ScriptedAnswer::RetryLater | ScriptedAnswer::InDoubt),
                        in_doubt: answer == ScriptedAnswer::InDoubt,
                    }),
                }
            }
            Ok(rejected)
        })
    }

    fn claim<'a>(
        &'a self,
        _: &'a TopicPartition,
        _: u64,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FinishedSet, WriteError>> {
        let answer = self.claims.lock().unwrap().pop();
        Box::pin(async { answer.unwrap_or_else(|| Ok(FinishedSet::default())) })
    }
}
