//! Real waits of a few milliseconds; nothing depends on how long anything takes.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures::FutureExt;

use super::*;
use crate::health::snapshot::Snapshot;

fn retry(longest: Duration) -> RetryPolicy {
    RetryPolicy {
        max_attempts: 1,
        initial: longest / 4,
        max: longest,
        jitter_percent: 20,
    }
}

fn short() -> RetryPolicy {
    retry(Duration::from_millis(4))
}

fn failed(error: &str) -> FailedCall<'_> {
    FailedCall {
        systemic: true,
        failures: 1,
        seen: None,
        error,
    }
}

/// Opened by a systemic error.
async fn opened(retry: &RetryPolicy) -> WriterBreaker {
    let breaker = WriterBreaker::new("pg".into(), Metrics::new());
    assert!(breaker.admit(|_| ()).await.failed(failed("login refused"), retry));
    breaker
}

fn gauge(breaker: &WriterBreaker) -> String {
    let text = (breaker.metrics)
        .encode(&Snapshot::default(), Duration::ZERO)
        .unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("kcg_worker_writer_breaker_open{"));
    line.unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_open_one_at_a_time_tries_and_afterwards_all_go_on() {
    let breaker = Arc::new(opened(&short()).await);
    assert_eq!(gauge(&breaker), "kcg_worker_writer_breaker_open{writer=\"pg\"} 1");
    let (back, inside) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let probes = Arc::new(AtomicUsize::new(0));
    let caller = async |breaker: Arc<WriterBreaker>,
                        back: Arc<AtomicBool>,
                        inside: Arc<AtomicUsize>,
                        probes: Arc<AtomicUsize>| {
        loop {
            let pass = breaker.admit(|_| ()).await;
            if back.load(Ordering::SeqCst) {
                return pass.answered();
            }
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two probes at a time");
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            probes.fetch_add(1, Ordering::SeqCst);
            assert!(pass.failed(failed("login refused"), &short()));
        }
    };
    let callers: Vec<_> = (0..12)
        .map(|_| {
            let (breaker, back, inside, probes) =
                (breaker.clone(), back.clone(), inside.clone(), probes.clone());
            tokio::spawn(async move { caller(breaker, back, inside, probes).await })
        })
        .collect();
    while probes.load(Ordering::SeqCst) < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    back.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(gauge(&breaker), "kcg_worker_writer_breaker_open{writer=\"pg\"} 0");
}

#[tokio::test]
async fn a_probe_that_is_ended_goes_to_the_next_at_once() {
    // The wait after a probe would be a minute: whoever comes in does so because it was handed on.
    let breaker = opened(&short()).await;
    let probe = breaker.admit(|_| ()).await;
    let mut next = Box::pin(breaker.admit(|_| ()));
    assert!((&mut next).now_or_never().is_none());
    drop(probe);
    next.await.answered();
    breaker.admit(|_| ()).now_or_never().unwrap().answered();
}

#[tokio::test]
async fn an_answer_wakes_whoever_waits_however_long_the_wait_is() {
    let breaker = WriterBreaker::new("pg".into(), Metrics::new());
    let early = breaker.admit(|_| ()).await;
    let hour = retry(Duration::from_secs(3600));
    assert!(breaker.admit(|_| ()).await.failed(failed("disk full"), &hour));
    let mut waiting = Box::pin(breaker.admit(|_| ()));
    let mut passable = Box::pin(breaker.passable(|_| ()));
    assert!((&mut waiting).now_or_never().is_none() && (&mut passable).now_or_never().is_none());
    // A call that was begun before is as good as a probe.
    early.answered();
    passable.await;
    waiting.await.answered();
}

#[tokio::test]
async fn whoever_waits_is_told_the_latest_error() {
    let breaker = opened(&short()).await;
    let hour = retry(Duration::from_secs(3600));
    let told = Mutex::new(Vec::new());
    let probe = breaker.admit(|_| ()).await;
    let mut waiting = Box::pin(breaker.admit(|error| told.lock().unwrap().push(error.to_owned())));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(probe.failed(failed("table missing"), &hour));
    assert!((&mut waiting).now_or_never().is_none());
    told.lock().unwrap().dedup();
    assert_eq!(*told.lock().unwrap(), ["login refused", "table missing"]);
}
