//! The measured operator as a process of this machine, with the flags that the chart would set, for one
//! namespace and without a lease. Its memory, threads and connections come from /proc.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::{
    super::{
        process::{Running, peak_rss_mib},
        worker::{free_address, get},
    },
    cluster::NAMESPACE,
    sockets,
};
use crate::systems::process::memory_mib;

/// Pause between two checks of a starting or running process.
const PAUSE: Duration = Duration::from_millis(100);
/// It lists the groups before it is ready.
const START: Duration = Duration::from_secs(60);
/// It finishes running reconciles for at most 15 s.
const STOP: Duration = Duration::from_secs(30);

/// A running operator. Dropping the value kills it.
pub(super) struct Operator {
    process: Running,
    address: SocketAddr,
}

/// What reads the state of a running operator.
pub(super) struct Probe {
    pub pid: u32,
    address: SocketAddr,
    brokers: Vec<SocketAddr>,
}

/// The state of the process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub rss_mib: f64,
    /// Since the process started.
    pub peak_rss_mib: f64,
    pub threads: usize,
    /// Established TCP connections to brokers.
    pub connections: usize,
}

impl Operator {
    /// Starts `binary` and waits until it is ready.
    pub async fn start(binary: &Path, log: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut process = Running(
            Command::new(binary)
                .args(["run", "--namespaces", NAMESPACE, "--leader-election", "false"])
                .args(["--worker-image", "none", "--http-address", &address.to_string()])
                .env_remove("RUST_LOG")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(log)?)
                .spawn()
                .with_context(|| format!("cannot start {}", binary.display()))?,
        );
        let started = Instant::now();
        while get(address, "/readyz").is_none() {
            let see = || format!("the operator; see {}", log.display());
            process.check().with_context(see)?;
            ensure!(
                started.elapsed() < START,
                "not ready after {} s: {}",
                START.as_secs(),
                see()
            );
            sleep(PAUSE).await;
        }
        Ok(Self { process, address })
    }

    /// `brokers`: the addresses to which connections count.
    pub fn probe(&self, brokers: Vec<SocketAddr>) -> Probe {
        Probe {
            pid: self.process.pid(),
            address: self.address,
            brokers,
        }
    }

    /// Resolves when the process has ended.
    pub async fn ended(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.process.check() {
                return error.context("the operator");
            }
            sleep(PAUSE).await;
        }
    }

    /// Stops it as Kubernetes does.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(STOP, || {}).context("the operator")?;
        ensure!(status.success(), "the operator ended with {status} after SIGTERM");
        Ok(())
    }
}

impl Probe {
    pub fn read(&self) -> Result<Reading> {
        let ended = "the operator has ended";
        Ok(Reading {
            rss_mib: memory_mib(self.pid, "VmRSS").context(ended)?,
            peak_rss_mib: peak_rss_mib(self.pid).context(ended)?,
            threads: fs::read_dir(format!("/proc/{}/task", self.pid))
                .context(ended)?
                .count(),
            connections: sockets::connections(self.pid, &self.brokers)?,
        })
    }

    /// Number of groups of the namespace that have series in its metrics: it removes those of deleted groups.
    /// None if it does not answer in time.
    pub fn known_groups(&self) -> Option<usize> {
        Some(count_groups(&get(self.address, "/metrics")?))
    }
}

fn count_groups(metrics: &str) -> usize {
    let prefix = format!("kcg_desired_replicas{{namespace=\"{NAMESPACE}\",");
    metrics.lines().filter(|line| line.starts_with(&prefix)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_by_their_series() {
        let text = "# TYPE kcg_desired_replicas gauge\n\
            kcg_desired_replicas{namespace=\"bench-operator\",group=\"a\"} 0\n\
            kcg_desired_replicas{namespace=\"bench-operator\",group=\"b\"} 0\n\
            kcg_desired_replicas{namespace=\"shop\",group=\"c\"} 0\n\
            kcg_lag_records{namespace=\"bench-operator\",group=\"a\"} 0\n";
        assert_eq!(count_groups(text), 2);
    }
}
