//! A transform that waits at some records until a gate opens. The limit is long enough for a busy machine to
//! start a thread, and it is the only time that the tests wait for.

use std::sync::{Condvar, atomic::AtomicU32};

use crds::spec::Decode;

use super::*;
use crate::{
    decode::Decoders,
    transform::{NamedTransform, per_record},
};

const LIMIT: Duration = Duration::from_millis(400);

/// Closed while the test runs, and opened at its end so that the runtime can end.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

struct Fixture {
    pipeline: Arc<TimedPipeline>,
    gate: Gate,
    calls: Arc<AtomicU32>,
    problems: Problems,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Records with the value "stuck" wait at the gate. Records with "slow" take an eighth of the limit.
fn fixture() -> Fixture {
    let (gate, calls) = (Gate::default(), Arc::new(AtomicU32::new(0)));
    let (closed, count) = (gate.clone(), calls.clone());
    let transform = per_record("clean", move |record, output| {
        count.fetch_add(1, Ordering::SeqCst);
        match record.value {
            Some(b"stuck") => closed.wait(),
            Some(b"slow") => std::thread::sleep(LIMIT / 8),
            _ => {}
        }
        output.keep();
        Ok(())
    });
    let named = NamedTransform {
        name: "clean".into(),
        transform,
    };
    let metrics = Metrics::new();
    let decoders = Decoders::new(&Decode::default(), false);
    let pipeline = Pipeline::new(decoders, vec![named], metrics.clone());
    Fixture {
        pipeline: Arc::new(TimedPipeline::new(pipeline, 16, LIMIT, metrics)),
        gate,
        calls,
        problems: Problems::default(),
    }
}

fn chunk(partition: i32, values: &str) -> Arc<Chunk> {
    let mut chunk = Chunk::new(TopicPartition::new("orders", partition), 1);
    for (offset, value) in (100..).zip(values.split(' ')) {
        chunk.push(offset, 0, None, Some(value.as_bytes()), []);
    }
    Arc::new(chunk)
}

/// The offsets that passed and those that failed.
type PassedAndFailed = (Vec<Offset>, Vec<Offset>);

impl Fixture {
    /// The pieces of a chunk, each finished before the next one starts.
    async fn pieces(&self, chunk: Arc<Chunk>) -> Vec<(Option<Range<u32>>, PassedAndFailed)> {
        let mut chunk_run = self.pipeline.start(chunk.clone());
        let mut pieces = Vec::new();
        while let Some(piece) = self.pipeline.next_piece(&mut chunk_run, &self.problems).await {
            let passed = piece.batch.outputs().map(|output| output.offset());
            let failed = piece.batch.failures().iter().map(|failure| {
                assert_eq!((failure.stage, &*failure.component), (Stage::Transform, "clean"));
                assert!(failure.message.contains("transformTimeoutSeconds"), "{failure:?}");
                chunk.record(failure.source).offset
            });
            pieces.push((piece.records, (passed.collect(), failed.collect())));
            self.pipeline.count_abandoned(&piece.abandoned);
        }
        pieces
    }

    async fn process(&self, chunk: Arc<Chunk>) -> PassedAndFailed {
        let pieces = self.pieces(chunk).await.into_iter();
        let (passed, failed): (Vec<_>, Vec<_>) = pieces.map(|(_, results)| results).unzip();
        (passed.concat(), failed.concat())
    }

    fn abandoned(&self) -> usize {
        self.pipeline.lock().threads
    }

    async fn until(&self, condition: impl Fn(&Fixture) -> bool) {
        while !condition(self) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_record_that_takes_too_long_fails_and_the_others_pass_in_order() {
    let fixture = fixture();
    let reported = async {
        let paused =
            |fixture: &Fixture| fixture.problems.oldest().paused_reason == Some(PausedReason::TransformSlow);
        fixture.until(paused).await;
        fixture.problems.oldest().last_error
    };
    let (result, error) = tokio::join!(fixture.process(chunk(0, "a b stuck c d")), reported);
    assert_eq!(result, (vec![100, 101, 103, 104], vec![102]));
    assert!(error.is_some_and(|error| error.starts_with("transform clean: no record finished for")));
    assert_eq!(fixture.problems.oldest(), Default::default());
    // Once in the chunk, once by itself.
    assert_eq!(fixture.abandoned(), 2);
    assert_eq!(fixture.pipeline.too_many_abandoned(), None);
    // All other chunks continue.
    assert_eq!(fixture.process(chunk(0, "a b")).await, (vec![100, 101], vec![]));
}

#[tokio::test]
async fn each_record_that_takes_too_long_ends_a_piece() {
    let fixture = fixture();
    assert_eq!(
        fixture.pieces(chunk(0, "a stuck b stuck c")).await,
        [
            (Some(0..2), (vec![100], vec![101])),
            (Some(2..4), (vec![102], vec![103])),
            (Some(4..5), (vec![104], vec![])),
        ]
    );
    assert_eq!(
        fixture.pieces(chunk(0, "a b")).await,
        [
            // Its run continues.
            (Some(0..2), (vec![100], vec![101])),
        ]
    );
    assert_eq!(
        fixture.pieces(chunk(1, "a b")).await,
        [(None, (vec![100, 101], vec![]))]
    );
}

#[tokio::test]
async fn a_stuck_record_does_not_run_again_before_its_run_has_ended() {
    let fixture = fixture();
    assert_eq!(fixture.process(chunk(0, "stuck")).await, (vec![], vec![100]));
    assert_eq!(fixture.process(chunk(0, "stuck a")).await, (vec![101], vec![100]));
    // The stuck record once, and the other one once.
    assert_eq!(
        (fixture.abandoned(), fixture.calls.load(Ordering::SeqCst)),
        (1, 2)
    );
    // The same offset of another partition is another record.
    assert_eq!(fixture.process(chunk(1, "a")).await, (vec![100], vec![]));
    fixture.gate.open();
    fixture.until(|fixture| fixture.abandoned() == 0).await;
    assert_eq!(
        fixture.process(chunk(0, "stuck a")).await,
        (vec![100, 101], vec![])
    );
}

#[tokio::test]
async fn slow_is_not_stuck_however_many_records_there_are() {
    let fixture = fixture();
    let (passed, failed) = fixture.process(chunk(0, &["slow"; 10].join(" "))).await;
    assert_eq!((passed.len(), failed.len(), fixture.abandoned()), (10, 0, 0));
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn too_many_abandoned_runs_are_reported() {
    let fixture = fixture();
    let stuck = async |partitions: Range<i32>| {
        let runs = partitions.map(|partition| fixture.process(chunk(partition, "stuck")));
        futures::future::join_all(runs).await;
        fixture.pipeline.too_many_abandoned()
    };
    assert_eq!(stuck(0..8).await, None);
    assert_eq!(stuck(8..9).await, Some(9));
    fixture.gate.open();
    fixture.until(|fixture| fixture.abandoned() == 0).await;
    assert_eq!(fixture.pipeline.too_many_abandoned(), None);
}

/// Otherwise a process would end that has finished none of the records, and so would the next one.
#[tokio::test]
async fn only_runs_of_finished_records_count() {
    let fixture = fixture();
    let waiting = (0..9).map(|partition| {
        fixture
            .pipeline
            .process(chunk(partition, "stuck"), &fixture.problems)
    });
    let failed = futures::future::join_all(waiting).await;
    assert!(failed.iter().all(|batch| batch.failures().len() == 1));
    let mut chunk_runs: Vec<ChunkRun> = (9..18)
        .map(|partition| fixture.pipeline.start(chunk(partition, "stuck")))
        .collect();
    let next = chunk_runs
        .iter_mut()
        .map(|chunk_run| fixture.pipeline.next_piece(chunk_run, &fixture.problems));
    let pieces = futures::future::join_all(next).await;
    for piece in pieces.iter().flatten() {
        assert_eq!(fixture.pipeline.too_many_abandoned(), None);
        fixture.pipeline.count_abandoned(&piece.abandoned);
    }
    assert_eq!(fixture.pipeline.too_many_abandoned(), Some(18));
}

#[tokio::test]
async fn runs_of_revoked_chunks_count() {
    let fixture = fixture();
    let mut chunk_runs: Vec<ChunkRun> = (0..9)
        .map(|partition| fixture.pipeline.start(chunk(partition, "stuck a")))
        .collect();
    let next = chunk_runs
        .iter_mut()
        .map(|chunk_run| fixture.pipeline.next_piece(chunk_run, &fixture.problems));
    tokio::select! {
        _ = futures::future::join_all(next) => panic!("their records take longer"),
        () = fixture.until(|fixture| fixture.abandoned() >= 9) => {}
    }
    assert_eq!(fixture.pipeline.too_many_abandoned(), None);
    drop(chunk_runs);
    assert!(fixture.pipeline.too_many_abandoned().is_some());
}
