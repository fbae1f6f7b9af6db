//! The worker processes of one group. In: the steps of `plan`. Out: running processes, their reports, and
//! messages about them. Closing the standard input of a worker stops it. That also happens when this process
//! ends for any reason, so no worker outlives it.

mod log;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crds::incarnation::Incarnation;
use crds::worker_config::exit_code;
use tokio::process::{Child, ChildStdin, Command};

use super::plan::{SlotState, Step, backoff, steps};
use crate::kafka::model::DeadProcess;
use crate::reports::{self, WorkerReport};
use log::WorkerLog;

/// A worker that has not answered for this long is shown without its last report: it may have lost its
/// partitions.
const SILENT: Duration = Duration::from_secs(5);
/// A worker on the same machine answers in milliseconds or does not run; it is asked every second.
const ANSWER: Duration = Duration::from_millis(800);

/// How to start the workers of a group.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    /// The group's name; workers are called `<name>-<slot>`.
    pub name: String,
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
    pub version: String,
    /// The workers end by themselves: they process a part of the log.
    pub bounded: bool,
    /// Records of a Stdout writer go to the standard output of this process.
    pub share_stdout: bool,
    /// The worker is killed if it has not stopped after this time: its drain time and a margin.
    pub stop_timeout: Duration,
}

/// Counts of processed records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
}

/// A running worker, as it is shown.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub name: String,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Number of exits in a row that were not requested.
    pub exits: u32,
    /// None if it does not answer.
    pub report: Option<WorkerReport>,
}

/// The worker slots of one group.
#[derive(Default)]
pub struct WorkerProcesses {
    slots: Vec<WorkerSlot>,
    ended: Totals,
    dead: Vec<DeadProcess>,
    /// Ends that were not asked for, without what the process has printed: that may contain records.
    exits: Vec<String>,
    /// Exit codes of workers that have ended by themselves and are not restarted.
    ends: Vec<u8>,
    /// Every process that was started, with its start in Unix milliseconds.
    started: HashSet<Incarnation>,
}

#[derive(Default)]
struct WorkerSlot {
    worker: Option<Worker>,
    exits: u32,
    waiting: Option<(Instant, String)>,
}

struct Worker {
    child: Child,
    /// Dropping it stops the worker.
    input: Option<ChildStdin>,
    address: SocketAddr,
    version: String,
    started: Instant,
    /// The same in Unix milliseconds, as the process knows it.
    started_at: i64,
    kill_at: Option<Instant>,
    log: WorkerLog,
    report: Option<WorkerReport>,
    /// When it last answered.
    answered: Instant,
}

impl WorkerProcesses {
    /// Handles exited workers, then takes the next steps towards `wanted` workers. Returns messages for
    /// users.
    pub fn tick(&mut self, command: &WorkerCommand, wanted: usize) -> Vec<String> {
        let now = Instant::now();
        let mut messages = self.read_logs(command);
        messages.extend(self.reap(command, now));
        let states: Vec<SlotState> = self
            .slots
            .iter()
            .map(|slot| slot.state(&command.version))
            .collect();
        for step in steps(&states, wanted, now) {
            match step {
                Step::Start(index) => {
                    if self.slots.len() <= index {
                        self.slots.resize_with(index + 1, WorkerSlot::default);
                    }
                    let name = format!("{}-{index}", command.name);
                    let Some(slot) = self.slots.get_mut(index) else {
                        continue;
                    };
                    match start(command, &name) {
                        Ok(worker) => {
                            self.started.insert(Incarnation {
                                worker: name,
                                started: worker.started_at,
                            });
                            (slot.worker, slot.waiting) = (Some(worker), None);
                        }
                        Err(error) => {
                            let (exits, wait) = backoff(slot.exits, Duration::ZERO);
                            (slot.exits, slot.waiting) = (exits, Some((now + wait, command.version.clone())));
                            messages.push(format!(
                                "{name}: cannot start {}: {error}; retrying in {} s",
                                command.program.display(),
                                wait.as_secs()
                            ));
                        }
                    }
                }
                Step::Stop(index) => {
                    if let Some(worker) = self.slots.get_mut(index).and_then(|slot| slot.worker.as_mut()) {
                        worker.stop(now + command.stop_timeout);
                    }
                }
                Step::Clear(index) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        *slot = WorkerSlot::default();
                    }
                }
            }
        }
        messages
    }

    /// Processes that ended badly since the last call: they may not have left the consumer group.
    pub fn take_dead(&mut self) -> Vec<DeadProcess> {
        std::mem::take(&mut self.dead)
    }

    /// Ends of processes since the last call, for events.
    pub fn take_exits(&mut self) -> Vec<String> {
        std::mem::take(&mut self.exits)
    }

    /// Exit codes since the last call of bounded workers for which a restart has no use.
    pub fn take_ends(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ends)
    }

    /// Whether this process was started here. It may have ended.
    pub fn has_started(&self, run: &Incarnation) -> bool {
        self.started.contains(run)
    }

    /// Number of running processes.
    pub fn alive(&self) -> usize {
        self.slots.iter().filter(|slot| slot.worker.is_some()).count()
    }

    /// Reads the reports of all workers.
    pub async fn ask(&mut self) {
        let asked = self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut());
        let answers = asked.map(|worker| async move {
            if let Ok(report) = reports::ask(worker.address, ANSWER).await {
                (worker.report, worker.answered) = (Some(report), Instant::now());
            }
        });
        futures::future::join_all(answers).await;
    }

    /// The running workers, each with its report if it answers. Another worker may own its partitions
    /// otherwise.
    pub fn workers(&self, name: &str) -> Vec<WorkerView> {
        let running = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let worker = slot.worker.as_ref()?;
            Some(WorkerView {
                name: format!("{name}-{index}"),
                started_at: worker.started_at,
                exits: slot.exits,
                report: worker
                    .report
                    .clone()
                    .filter(|_| worker.answered.elapsed() < SILENT),
            })
        });
        running.collect()
    }

    /// Slots whose worker has exited and waits for its restart, each with its number of exits in a row.
    pub fn waiting(&self, name: &str) -> Vec<(String, u32)> {
        let waiting = self.slots.iter().enumerate();
        let waiting = waiting.filter(|(_, slot)| slot.waiting.is_some() && slot.worker.is_none());
        waiting
            .map(|(index, slot)| (format!("{name}-{index}"), slot.exits))
            .collect()
    }

    /// Counts of all workers since the session started.
    pub fn totals(&self) -> Totals {
        let mut totals = self.ended;
        for report in self
            .slots
            .iter()
            .filter_map(|slot| slot.worker.as_ref())
            .filter_map(|it| it.report.as_ref())
        {
            totals.add(report);
        }
        totals
    }

    /// Kills all workers, without a drain.
    pub fn kill(&mut self) {
        for worker in self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut()) {
            // An error means that the process has exited already.
            let _ = worker.child.start_kill();
        }
    }

    fn read_logs(&mut self, command: &WorkerCommand) -> Vec<String> {
        let mut all_lines = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let lines = slot
                .worker
                .as_mut()
                .map(|worker| worker.log.new_problems())
                .unwrap_or_default();
            all_lines.extend(
                lines
                    .into_iter()
                    .map(|line| format!("{}-{index}: {line}", command.name)),
            );
        }
        all_lines
    }

    fn reap(&mut self, command: &WorkerCommand, now: Instant) -> Vec<String> {
        let mut messages = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(worker) = slot.worker.as_mut() else {
                continue;
            };
            if worker.kill_at.is_some_and(|at| now >= at) {
                // Its drain time has expired; the next worker reads the uncommitted records again.
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
            messages.extend(
                worker
                    .log
                    .new_problems()
                    .into_iter()
                    .map(|line| format!("{}-{index}: {line}", command.name)),
            );
            let last = worker.log.last_lines();
            let version = worker.version.clone();
            let started_at = worker.started_at;
            slot.worker = None;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            let left_the_group = status.success() || command.bounded && code == Some(exit_code::UNFINISHED);
            if asked && left_the_group {
                slot.exits = 0;
                continue;
            }
            if let Some(end) =
                code.filter(|code| command.bounded && [0, exit_code::PLAN_OUTDATED].contains(code))
            {
                self.ends.push(end);
                slot.waiting = Some((now + command.stop_timeout, version));
                if end != 0 {
                    messages.push(format!("{}-{index} {}{last}", command.name, describe(status)));
                }
                continue;
            }
            let name = format!("{}-{index}", command.name);
            self.dead.push(DeadProcess::exact(&name, started_at));
            let what = describe(status);
            messages.push(if asked {
                format!("{name} {what}{last}; its uncommitted records will be read again")
            } else {
                let (exits, wait) = backoff(slot.exits, lived);
                (slot.exits, slot.waiting) = (exits, Some((now + wait, version)));
                let seconds = wait.as_secs();
                self.exits.push(format!(
                    "{name} {what}; restarting in {seconds} s; the terminal shows its last lines"
                ));
                format!("{name} {what}{last}\n  restarting in {seconds} s")
            });
        }
        messages
    }
}

impl WorkerSlot {
    fn state(&self, version: &str) -> SlotState {
        match (&self.worker, &self.waiting) {
            (Some(worker), _) if worker.input.is_none() => SlotState::Stopping,
            (Some(worker), _) => SlotState::Running {
                current: worker.version == version,
            },
            (None, Some((until, exited_with))) => SlotState::Waiting {
                until: *until,
                current: exited_with == version,
            },
            (None, None) => SlotState::Empty,
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
    let started_at = jiff::Timestamp::now().as_millisecond();
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
        .env(crds::names::STARTED_AT_ENV, started_at.to_string())
        .stdin(Stdio::piped())
        .stdout(if command.share_stdout {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .stderr(stderr)
        // Ctrl-C must reach this session only; a worker would count it as a second stop signal.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Worker {
        input: child.stdin.take(),
        child,
        address,
        version: command.version.clone(),
        started: Instant::now(),
        started_at,
        kill_at: None,
        log,
        report: None,
        answered: Instant::now(),
    })
}

/// A port that is free now. Another process may bind it before the worker does; then the worker exits and is
/// restarted.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests;
