//! Real waits of a few milliseconds; no result depends on how long anything takes.

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

/// A breaker that a systemic error has opened.
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
async fn an_open_breaker_admits_one_probe_at_a_time_and_a_closed_one_admits_all() {
    let breaker = Arc::new(opened(&short()).await);
    assert_eq!(gauge(&breaker), "kcg_worker_writer_breaker_open{writer=\"pg\"} 1");
    let (available, inside) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let probes = Arc::new(AtomicUsize::new(0));
    let caller = async |breaker: Arc<WriterBreaker>,
                        available: Arc<AtomicBool>,
                        inside: Arc<AtomicUsize>,
                        probes: Arc<AtomicUsize>| {
        loop {
            let pass = breaker.admit(|_| ()).await;
            if available.load(Ordering::SeqCst) {
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
            let (breaker, available, inside, probes) =
                (breaker.clone(), available.clone(), inside.clone(), probes.clone());
            tokio::spawn(async move { caller(breaker, available, inside, probes).await })
        })
        .collect();
    while probes.load(Ordering::SeqCst) < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    available.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(gauge(&breaker), "kcg_worker_writer_breaker_open{writer=\"pg\"} 0");
}

#[tokio::test]
async fn an_abandoned_probe_passes_to_the_next_caller_immediately() {
    // The wait after a probe would be a minute, so whoever passes does so because the probe was abandoned.
    let breaker = opened(&short()).await;
    let probe = breaker.admit(|_| ()).await;
    let mut next = Box::pin(breaker.admit(|_| ()));
    assert!((&mut next).now_or_never().is_none());
    drop(probe);
    next.await.answered();
    breaker.admit(|_| ()).now_or_never().unwrap().answered();
}

#[tokio::test]
async fn an_answer_wakes_all_waiting_callers_however_long_the_wait_is() {
    let breaker = WriterBreaker::new("pg".into(), Metrics::new());
    let early = breaker.admit(|_| ()).await;
    let hour = retry(Duration::from_secs(3600));
    assert!(breaker.admit(|_| ()).await.failed(failed("disk full"), &hour));
    let mut waiting = Box::pin(breaker.admit(|_| ()));
    let mut passable = Box::pin(breaker.passable(|_| ()));
    assert!((&mut waiting).now_or_never().is_none() && (&mut passable).now_or_never().is_none());
    // A call that started before counts as much as a probe.
    early.answered();
    passable.await;
    waiting.await.answered();
}

#[tokio::test]
async fn waiting_callers_get_the_latest_error() {
    let breaker = opened(&short()).await;
    let hour = retry(Duration::from_secs(3600));
    let errors = Mutex::new(Vec::new());
    let probe = breaker.admit(|_| ()).await;
    let mut waiting = Box::pin(breaker.admit(|error| errors.lock().unwrap().push(error.to_owned())));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(probe.failed(failed("table missing"), &hour));
    assert!((&mut waiting).now_or_never().is_none());
    errors.lock().unwrap().dedup();
    assert_eq!(*errors.lock().unwrap(), ["login refused", "table missing"]);
}
