//! The workers of a run: each a process with its own name, restarted after every fault. A worker that ends
//! unexpectedly, or that exits with another code than 0 after SIGTERM, is noted and restarted: the run
//! continues, and its outcome reports the worker.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use crds::WorkerConfig;

use super::{cluster, output::Route, plan::Act, proxy::Proxy, scenario::Scenario, site::Site};
use crate::{
    systems::{
        command,
        kafka::Kafka,
        process::{WorkerProcess, free_address, memory_mib},
        worker_pages,
    },
    verify::ledger::feed::Feed,
};

/// From SIGTERM to the end: the drain budget is 25 s, and leaving the group takes a few more.
const END: Duration = Duration::from_secs(60);

/// Pause between two checks for the end of a process.
const PAUSE: Duration = Duration::from_millis(20);

/// Number of log lines shown of a worker that has ended.
const LAST_WORDS: usize = 3;

/// The other targets of faults.
pub(super) struct Surroundings<'a> {
    pub kafka: &'a Kafka,
    pub feed: &'a Feed,
    /// [`Site::broker`].
    pub broker: Option<&'a Path>,
    /// [`Site::brokers`].
    pub brokers: Option<&'a Path>,
    /// The proxy between the workers and the broker.
    pub proxy: Option<&'a Proxy>,
}

/// All workers of a group.
pub(super) struct Fleet {
    binary: PathBuf,
    folder: PathBuf,
    config: WorkerConfig,
    route: Route,
    environment: Vec<(&'static str, &'static str)>,
    workers: Vec<WorkerProcess>,
    /// The addresses of their pages, if the run reads them.
    pages: Vec<SocketAddr>,
    ended: Vec<String>,
}

impl Fleet {
    pub fn start(
        site: &Site,
        scenario: &Scenario,
        folder: &Path,
        config: WorkerConfig,
        route: Route,
    ) -> Result<Self> {
        let mut fleet = Self {
            binary: site.worker.clone(),
            folder: folder.to_path_buf(),
            config,
            route,
            environment: scenario
                .bug
                .map(|bug| ("KCG_SEEDED_BUG", bug))
                .into_iter()
                .collect(),
            workers: Vec::new(),
            pages: match scenario.faults.outage_seconds {
                0 => Vec::new(),
                _ => (0..scenario.workers)
                    .map(|_| free_address())
                    .collect::<Result<_>>()?,
            },
            ended: Vec::new(),
        };
        for number in 0..scenario.workers {
            let worker = fleet.start_worker(number)?;
            fleet.workers.push(worker);
        }
        Ok(fleet)
    }

    fn start_worker(&self, number: usize) -> Result<WorkerProcess> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = self.pages.get(number).copied().unwrap_or(anywhere);
        let name = name(number);
        self.route.give_secrets(&self.folder, &name)?;
        WorkerProcess::start(
            &self.binary,
            &name,
            (&self.folder, address),
            &self.config,
            &self.environment,
        )
    }

    /// Performs a fault and what follows from it: a new process, or the old one resumes.
    pub async fn act(&mut self, act: &Act, around: &Surroundings<'_>) -> Result<()> {
        match act {
            Act::Kill { worker } => {
                // Killed with SIGKILL and waited for.
                self.workers[*worker] = self.replaced(*worker)?;
            }
            Act::Restart { worker } => {
                self.workers[*worker].process.signal("TERM")?;
                self.until_ended(*worker).await?;
                self.workers[*worker] = self.start_worker(*worker)?;
            }
            Act::Freeze { worker, time, .. } => {
                self.workers[*worker].process.signal("STOP")?;
                tokio::time::sleep(*time).await;
                self.workers[*worker].process.signal("CONT")?;
            }
            Act::Cut { closed } => around.proxy.context("a cut needs the proxy")?.cut(*closed),
            Act::Fence { worker } => self.route.abort(around.kafka, &name(*worker)).await?,
            Act::Storm { stay } => {
                let number = self.workers.len();
                self.workers.push(self.start_worker(number)?);
                tokio::time::sleep(*stay).await;
                self.restart_ended()?;
                self.workers[number].process.signal("TERM")?;
                self.until_ended(number).await?;
                self.workers.pop();
            }
            Act::Grow { more } => {
                let partitions = self.route.grow(around.kafka, *more).await?;
                around.feed.grow(partitions).await?;
            }
            Act::Broker { killed, down } => {
                let script = around.broker.context("this site cannot restart the broker")?;
                let signal = if *killed { "KILL" } else { "TERM" };
                let seconds = down.as_secs().to_string();
                command::run(script, &["restart-broker", signal, &seconds], None)
                    .await?
                    .ok("restarting the broker")?;
            }
            Act::Cluster { fault, broker, time } => {
                let script = around
                    .brokers
                    .context("this site has no cluster of three brokers")?;
                cluster::perform(script, around.kafka, (*fault, *broker, *time)).await?;
            }
            Act::Outage { .. } => bail!("an outage involves more than the workers: see outage.rs"),
        }
        Ok(())
    }

    /// Stops all workers cleanly, and starts them after this time.
    pub async fn rest(&mut self, time: Duration) -> Result<()> {
        self.end_all().await?;
        tokio::time::sleep(time).await;
        for number in 0..self.workers.len() {
            self.workers[number] = self.start_worker(number)?;
        }
        Ok(())
    }

    /// Number of assignments and revocations, from the workers' metrics.
    pub async fn rebalances(&self) -> Result<u64> {
        let mut total = 0.0;
        for address in &self.pages {
            let page = reqwest::get(format!("http://{address}/metrics"))
                .await?
                .text()
                .await?;
            total += worker_pages::sum(&page, "kcg_worker_rebalances_total")
                .with_context(|| format!("the worker at {address} has no rebalance metric"))?;
        }
        Ok(total as u64)
    }

    /// Memory of each worker in RAM, in MiB.
    pub fn memory(&self) -> Result<Vec<f64>> {
        let of =
            |worker: &WorkerProcess| memory_mib(worker.process.pid(), "VmRSS").context("a worker has ended");
        self.workers.iter().map(of).collect()
    }

    fn replaced(&mut self, worker: usize) -> Result<WorkerProcess> {
        self.workers[worker].process.0.kill()?;
        self.workers[worker].process.0.wait()?;
        self.start_worker(worker)
    }

    /// Restarts workers that have ended unexpectedly.
    pub fn restart_ended(&mut self) -> Result<()> {
        for number in 0..self.workers.len() {
            if let Err(error) = self.workers[number].process.check() {
                self.note(number, &error.to_string());
                self.workers[number] = self.start_worker(number)?;
            }
        }
        Ok(())
    }

    async fn until_ended(&mut self, worker: usize) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.workers[worker].process.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    self.note(worker, &format!("after SIGTERM it ended with {status}"));
                    return Ok(());
                }
                None if started.elapsed() > END => {
                    self.note(
                        worker,
                        &format!("after SIGTERM it did not end within {} s", END.as_secs()),
                    );
                    return Ok(());
                }
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Stops all workers; returns the notes about the whole run.
    pub async fn stop(mut self) -> Result<Vec<String>> {
        self.end_all().await?;
        Ok(self.ended)
    }

    async fn end_all(&mut self) -> Result<()> {
        self.restart_ended()?;
        for worker in &self.workers {
            worker.process.signal("TERM")?;
        }
        for number in 0..self.workers.len() {
            self.until_ended(number).await?;
        }
        Ok(())
    }

    fn note(&mut self, worker: usize, what: &str) {
        let words = WorkerProcess::last_words(&self.workers[worker].log, LAST_WORDS);
        self.ended.push(format!("{}: {what}: {words}", name(worker)));
    }
}

fn name(number: usize) -> String {
    format!("worker-{number}")
}
