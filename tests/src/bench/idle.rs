//! Idle processes and their memory: a worker that has its partitions, an operator without groups.

use std::{
    fs::File,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cases::Data,
    process::{Running, peak_rss_mib},
    subjects::{Bench, START},
    topics,
    work::Work,
    worker::{Worker, free_address, get, sum},
};

/// Pause between two checks of a starting process.
const PAUSE: Duration = Duration::from_millis(50);

/// An idle process: its name, and its peak memory or the reason why it was not measured.
pub(super) struct Idle {
    pub subject: &'static str,
    pub peak_rss_mib: Result<f64, String>,
}

/// A worker that has its partitions and nothing to read.
pub(super) fn worker(bench: &Bench, settle: Duration) -> Result<Idle> {
    topics::load(bench, Data::Empty)?;
    let partitions = Data::Empty.partitions();
    let group = format!("bench-idle-{}", std::process::id());
    let worker = Worker::start(
        bench,
        "idle",
        Work::Identity,
        &Data::Empty.topic(bench.quick),
        &group,
    )?;
    let peak = worker.explained(|worker| {
        let started = Instant::now();
        while sum(worker.metrics()?.as_deref(), "kcg_worker_assigned_partitions") != partitions as u64 {
            ensure!(
                started.elapsed() < START,
                "not assigned for {} s",
                START.as_secs()
            );
            thread::sleep(PAUSE);
        }
        thread::sleep(settle);
        worker.process.check()?;
        peak_rss_mib(worker.process.pid()).context("the worker has ended")
    })?;
    println!("idle worker with {partitions} partitions: {peak:.1} MiB");
    Ok(Idle {
        subject: "worker",
        peak_rss_mib: Ok(peak),
    })
}

/// An operator that serves a namespace without groups, if there is a cluster.
pub(super) fn operator(bench: &Bench, settle: Duration) -> Result<Idle> {
    let reason = if std::env::var_os("KUBECONFIG").is_none() {
        Some("KUBECONFIG is not set")
    } else if !bench.operator.exists() {
        Some("kafka-consumer-operator is not built")
    } else {
        None
    };
    if let Some(reason) = reason {
        println!("idle operator: not measured, {reason}");
        return Ok(Idle {
            subject: "operator",
            peak_rss_mib: Err(reason.into()),
        });
    }
    let (address, log) = (free_address()?, bench.scratch.join("operator.log"));
    // A namespace that does not exist, and no lease: this operator changes nothing, so it may be killed.
    let mut operator = Running(
        Command::new(&bench.operator)
            .args([
                "run",
                "--namespaces",
                "kafka-consumer-bench",
                "--leader-election",
                "false",
            ])
            .args(["--worker-image", "none", "--http-address", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", bench.operator.display()))?,
    );
    let started = Instant::now();
    while get(address, "/readyz").is_none() {
        operator
            .check()
            .with_context(|| format!("the operator; see {}", log.display()))?;
        ensure!(
            started.elapsed() < START,
            "the operator is not ready; see {}",
            log.display()
        );
        thread::sleep(PAUSE);
    }
    thread::sleep(settle);
    let peak = peak_rss_mib(operator.pid()).context("the operator has ended")?;
    println!("idle operator: {peak:.1} MiB");
    Ok(Idle {
        subject: "operator",
        peak_rss_mib: Ok(peak),
    })
}
