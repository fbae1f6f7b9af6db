//! The workers of a run: each a process under a name of its own, started again after every fault. A worker that ends without
//! being told to, or not with exit code 0 when told to, is noted and started again: the run goes on, its outcome says so.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use crds::WorkerConfig;

use super::{Scenario, Site, output::Route, plan::Act, proxy::Proxy};
use crate::{
    systems::{
        command,
        kafka::Kafka,
        process::{WorkerProcess, free_address, memory_mib},
        worker_pages,
    },
    verify::ledger::feed::Feed,
};

/// From SIGTERM to the end: the drain budget is 25 s, and leaving the group takes a few.
const END: Duration = Duration::from_secs(60);

/// Between two looks at a process whose end is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of a log is shown of a worker that has ended.
const LAST_WORDS: usize = 3;

/// What else there is to be hit.
pub(super) struct Surroundings<'a> {
    pub kafka: &'a Kafka,
    pub feed: &'a Feed,
    /// [`Site::broker`].
    pub broker: Option<&'a Path>,
    /// Between the workers and the broker.
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
    /// Where their pages are, if somebody looks at them.
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
                .map(|bug| ("KCG_PLANTED_BUG", bug))
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

    /// Lets a fault happen, and what follows from it: a new process, or the old one going on.
    pub async fn act(&mut self, act: &Act, around: &Surroundings<'_>) -> Result<()> {
        match act {
            Act::Kill { worker } => {
                // Dropped: killed with SIGKILL and waited for.
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
            Act::Broker { killed, away } => {
                let script = around.broker.context("nobody here can restart the broker")?;
                let signal = if *killed { "KILL" } else { "TERM" };
                let seconds = away.as_secs().to_string();
                command::run(script, &["restart-broker", signal, &seconds], None)
                    .await?
                    .ok("restarting the broker")?;
            }
            Act::Outage { .. } => bail!("an outage takes more than the workers: see outage.rs"),
        }
        Ok(())
    }

    /// Stops all of them in order, and starts them after this time.
    pub async fn rest(&mut self, time: Duration) -> Result<()> {
        self.end_all().await?;
        tokio::time::sleep(time).await;
        for number in 0..self.workers.len() {
            self.workers[number] = self.start_worker(number)?;
        }
        Ok(())
    }

    /// How often partitions came or went, by their metrics.
    pub async fn rebalances(&self) -> Result<u64> {
        let mut total = 0.0;
        for address in &self.pages {
            let page = reqwest::get(format!("http://{address}/metrics"))
                .await?
                .text()
                .await?;
            total += worker_pages::sum(&page, "kcg_worker_rebalances_total")
                .with_context(|| format!("the worker at {address} tells nothing of rebalances"))?;
        }
        Ok(total as u64)
    }

    /// What each has in RAM, in MiB.
    pub fn memory(&self) -> Result<Vec<f64>> {
        let of =
            |worker: &WorkerProcess| memory_mib(worker.process.pid(), "VmRSS").context("a worker is gone");
        self.workers.iter().map(of).collect()
    }

    fn replaced(&mut self, worker: usize) -> Result<WorkerProcess> {
        self.workers[worker].process.0.kill()?;
        self.workers[worker].process.0.wait()?;
        self.start_worker(worker)
    }

    /// Starts those that have ended although nobody told them to.
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
                    self.note(worker, &format!("told to stop, it ended with {status}"));
                    return Ok(());
                }
                None if started.elapsed() > END => {
                    self.note(
                        worker,
                        &format!("told to stop, it did not within {} s", END.as_secs()),
                    );
                    return Ok(());
                }
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Stops all of them; returns what was noted about the whole run.
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
