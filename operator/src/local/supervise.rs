//! The worker processes of one group. In: the steps that `plan` asks for. Out: running processes, what they report, and
//! words about what happened to them. A worker is told to stop by closing its standard input, which is also what
//! happens when this process dies in any way, so no worker is ever left behind.

mod log;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, ChildStdin, Command};

use super::plan::{Slot, Step, backoff, steps};
use super::status::{self, WorkerReport};
use log::WorkerLog;

/// How to start the workers of a group.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    /// The group's name; workers are called `<name>-<slot>`.
    pub name: String,
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
    pub version: String,
    /// A Stdout writer's records go to this process's standard output.
    pub share_stdout: bool,
    /// What the worker may take to stop, with a margin; then it is killed.
    pub patience: Duration,
}

/// Counts of workers that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
}

/// A running worker, for showing.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub name: String,
    pub report: Option<WorkerReport>,
}

/// All places for workers of one group.
#[derive(Default)]
pub struct WorkerProcesses {
    places: Vec<Place>,
    ended: Totals,
}

#[derive(Default)]
struct Place {
    worker: Option<Worker>,
    deaths: u32,
    waiting: Option<(Instant, String)>,
}

struct Worker {
    child: Child,
    /// Dropped to stop the worker.
    input: Option<ChildStdin>,
    address: SocketAddr,
    version: String,
    started: Instant,
    kill_at: Option<Instant>,
    log: WorkerLog,
    report: Option<WorkerReport>,
}

impl WorkerProcesses {
    /// Notices deaths, then does the next steps towards `wanted` workers. Returns what users should read.
    pub fn tick(&mut self, command: &WorkerCommand, wanted: usize) -> Vec<String> {
        let now = Instant::now();
        let mut words = self.listen(command);
        words.extend(self.bury(command, now));
        let slots: Vec<Slot> = self
            .places
            .iter()
            .map(|place| place.slot(&command.version))
            .collect();
        for step in steps(&slots, wanted, now) {
            match step {
                Step::Start(index) => {
                    if self.places.len() <= index {
                        self.places.resize_with(index + 1, Place::default);
                    }
                    let name = format!("{}-{index}", command.name);
                    let Some(place) = self.places.get_mut(index) else {
                        continue;
                    };
                    match start(command, &name) {
                        Ok(worker) => (place.worker, place.waiting) = (Some(worker), None),
                        Err(error) => {
                            let (deaths, wait) = backoff(place.deaths, Duration::ZERO);
                            (place.deaths, place.waiting) =
                                (deaths, Some((now + wait, command.version.clone())));
                            words.push(format!(
                                "{name}: cannot start {}: {error}; trying again in {} s",
                                command.program.display(),
                                wait.as_secs()
                            ));
                        }
                    }
                }
                Step::Stop(index) => {
                    if let Some(worker) = self.places.get_mut(index).and_then(|place| place.worker.as_mut()) {
                        worker.stop(now + command.patience);
                    }
                }
                Step::Clear(index) => {
                    if let Some(place) = self.places.get_mut(index) {
                        *place = Place::default();
                    }
                }
            }
        }
        words
    }

    /// Processes that still run.
    pub fn alive(&self) -> usize {
        self.places.iter().filter(|place| place.worker.is_some()).count()
    }

    /// Asks all workers for their reports.
    pub async fn ask(&mut self) {
        let asked = self.places.iter_mut().filter_map(|place| place.worker.as_mut());
        let answers = asked.map(|worker| async move {
            if let Some(report) = status::ask(worker.address).await {
                worker.report = Some(report);
            }
        });
        futures::future::join_all(answers).await;
    }

    pub fn workers(&self, name: &str) -> Vec<WorkerView> {
        let running = self.places.iter().enumerate().filter_map(|(index, place)| {
            let worker = place.worker.as_ref()?;
            Some(WorkerView {
                name: format!("{name}-{index}"),
                report: worker.report.clone(),
            })
        });
        running.collect()
    }

    /// Since the session began, of all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = self.ended;
        for report in self
            .places
            .iter()
            .filter_map(|place| place.worker.as_ref())
            .filter_map(|it| it.report.as_ref())
        {
            totals.add(report);
        }
        totals
    }

    /// Ends all workers at once, without drain.
    pub fn kill(&mut self) {
        for worker in self.places.iter_mut().filter_map(|place| place.worker.as_mut()) {
            // An error means that it is gone already.
            let _ = worker.child.start_kill();
        }
    }

    fn listen(&mut self, command: &WorkerCommand) -> Vec<String> {
        let mut news = Vec::new();
        for (index, place) in self.places.iter_mut().enumerate() {
            let lines = place
                .worker
                .as_mut()
                .map(|worker| worker.log.news())
                .unwrap_or_default();
            news.extend(
                lines
                    .into_iter()
                    .map(|line| format!("{}-{index}: {line}", command.name)),
            );
        }
        news
    }

    fn bury(&mut self, command: &WorkerCommand, now: Instant) -> Vec<String> {
        let mut words = Vec::new();
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(worker) = place.worker.as_mut() else {
                continue;
            };
            if worker.kill_at.is_some_and(|at| now >= at) {
                // Its drain budget is over; the next owner reads the rest again.
                let _ = worker.child.start_kill();
            }
            let Ok(Some(status)) = worker.child.try_wait() else {
                continue;
            };
            let asked = worker.input.is_none();
            if let Some(report) = &worker.report {
                self.ended.add(report);
            }
            let lived = worker.started.elapsed();
            words.extend(
                worker
                    .log
                    .news()
                    .into_iter()
                    .map(|line| format!("{}-{index}: {line}", command.name)),
            );
            let last = worker.log.last_words();
            let version = worker.version.clone();
            place.worker = None;
            if asked && status.success() {
                place.deaths = 0;
                continue;
            }
            let name = format!("{}-{index}", command.name);
            let mut said = format!("{name} {}{last}", describe(status));
            if asked {
                said.push_str("; what it had not committed is read again");
            } else {
                let (deaths, wait) = backoff(place.deaths, lived);
                (place.deaths, place.waiting) = (deaths, Some((now + wait, version)));
                said.push_str(&format!("\n  started again in {} s", wait.as_secs()));
            }
            words.push(said);
        }
        words
    }
}

impl Place {
    fn slot(&self, version: &str) -> Slot {
        match (&self.worker, &self.waiting) {
            (Some(worker), _) if worker.input.is_none() => Slot::Stopping,
            (Some(worker), _) => Slot::Running {
                current: worker.version == version,
            },
            (None, Some((until, died_with))) => Slot::Waiting {
                until: *until,
                current: died_with == version,
            },
            (None, None) => Slot::Empty,
        }
    }
}

impl Totals {
    fn add(&mut self, report: &WorkerReport) {
        self.records += report.records_total;
        self.dead_lettered += report.dead_lettered_total;
        self.skipped += report.skipped_total;
    }
}

impl Worker {
    fn stop(&mut self, kill_at: Instant) {
        self.input = None;
        self.kill_at.get_or_insert(kill_at);
    }
}

fn start(command: &WorkerCommand, name: &str) -> std::io::Result<Worker> {
    let address = free_address()?;
    let folder = &command.folder;
    let (log, stderr) = WorkerLog::create(&folder.join(format!("{name}.log")))?;
    let mut child = Command::new(&command.program)
        .arg("--config")
        .arg(folder.join(crds::names::WORKER_CONFIG_KEY))
        .arg("--secrets-dir")
        .arg(folder.join("secrets"))
        .arg("--config-maps-dir")
        .arg(folder.join("config-maps"))
        .args(["--http-address", &address.to_string(), "--name", name])
        .args(["--no-report-status", "--exit-on-stdin-eof"])
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(if command.share_stdout {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .stderr(stderr)
        // Ctrl-C reaches this session only; a worker that got it too would count it as a second order to stop.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Worker {
        input: child.stdin.take(),
        child,
        address,
        version: command.version.clone(),
        started: Instant::now(),
        kill_at: None,
        log,
        report: None,
    })
}

/// A port that is free now. Somebody may take it before the worker does; then the worker ends and is started again.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests;
