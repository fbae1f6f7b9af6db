//! One group of a session: its prepared resource, its Kafka facts, its workers. In: prepared resources, Kafka
//! facts, time. Out: the wanted number of workers and a view for the screen. Accesses Kafka only in
//! `refresh`.

mod conditions;
mod known;
mod others;
mod skipped;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crds::spec::{DesiredState, StartPositionType, WriterType};
use crds::worker_config::Control;
use serde_json::Value;

use self::skipped::Skipped;
use super::plan::{self, Size};
use super::prepare::{self, PreparedGroup};
use super::rates::{LastMinute, Rates};
use super::refresh::{KafkaRefresh, Notice, refresh};
use super::supervise::{Totals, WorkerCommand, WorkerProcesses, WorkerView};
use super::table::{GroupView, PartitionView};
use crate::group::members::Others;
use crate::group::observed::{StartedTopics, query};
use crate::group::scaling::{ScalingFacts, Start};
use crate::group::wording::count;
use crate::kafka::KafkaClients;
use crate::kafka::model::{FactsQuery, KafkaFacts, KafkaProblem};

/// Time between two reads from Kafka; added partitions are noticed within it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Added to a worker's drain time, for its last commit and for leaving the group.
const MARGIN: Duration = Duration::from_secs(10);

pub struct LocalGroup {
    pub origin: String,
    /// The document, for rules about changes.
    pub object: Value,
    pub prepared: PreparedGroup,
    pub workers: WorkerProcesses,
    command: WorkerCommand,
    /// The last complete facts.
    known: Option<KafkaFacts>,
    /// Ids of the topics, as they were read last.
    topic_ids: BTreeMap<String, String>,
    problem: Option<KafkaProblem>,
    /// Other members of the consumer group, and what to do.
    others: Others,
    started: StartedTopics,
    wanted: Size,
    /// Positions of the workers.
    rates: Rates,
    /// Ends of the partitions.
    arrivals: Rates,
    dead_letters: LastMinute,
    skipped: Skipped,
    refresh_due: Option<Instant>,
}

impl LocalGroup {
    /// Writes the files that workers read.
    pub fn new(
        origin: String,
        object: Value,
        prepared: PreparedGroup,
        session: &Path,
        program: PathBuf,
    ) -> std::io::Result<Self> {
        let valid = &prepared.valid;
        let folder = session.join(prepare::folder_name(valid));
        let command = WorkerCommand {
            program,
            name: valid.name.clone(),
            folder,
            env: Vec::new(),
            version: String::new(),
            bounded: false,
            share_stdout: false,
            stop_timeout: Duration::ZERO,
        };
        let mut group = Self {
            origin,
            object,
            prepared,
            workers: WorkerProcesses::default(),
            command,
            known: None,
            topic_ids: BTreeMap::new(),
            problem: None,
            others: Others::default(),
            started: StartedTopics::default(),
            wanted: Size {
                workers: 0,
                reason: "reading from Kafka".into(),
            },
            rates: Rates::default(),
            arrivals: Rates::default(),
            dead_letters: LastMinute::default(),
            skipped: Skipped::default(),
            refresh_due: Some(Instant::now()),
        };
        group.install()?;
        Ok(group)
    }

    /// Applies a changed resource; returns whether the workers restart because of it.
    pub fn change(
        &mut self,
        origin: String,
        object: Value,
        prepared: PreparedGroup,
    ) -> std::io::Result<bool> {
        let restart = prepared.version != self.prepared.version;
        (self.origin, self.object, self.prepared) = (origin, object, prepared);
        self.install()?;
        self.refresh_due = self.refresh_due.map(|_| Instant::now());
        Ok(restart)
    }

    /// Requests another state: the control file, and the number of workers, follow.
    pub fn set_state(&mut self, state: DesiredState, object: Value) -> std::io::Result<()> {
        let spec = &mut self.prepared.valid.spec;
        let before = std::mem::replace(&mut spec.desired_state, state);
        let before = (before, std::mem::replace(&mut self.object, object));
        let done = self.install();
        if done.is_err() {
            (self.prepared.valid.spec.desired_state, self.object) = before;
        }
        done
    }

    fn install(&mut self) -> std::io::Result<()> {
        prepare::write(&self.command.folder, &self.prepared)?;
        let spec = &self.prepared.valid.spec;
        let control = Control {
            paused: spec.desired_state == DesiredState::Paused,
        };
        let control = serde_json::to_vec(&control).map_err(std::io::Error::other)?;
        prepare::replace(&self.command.folder.join(crds::names::CONTROL_KEY), &control)?;
        let drain = u64::try_from(spec.worker.termination_grace_period_seconds).unwrap_or(0);
        self.command.stop_timeout = Duration::from_secs(drain) + MARGIN;
        self.command.share_stdout = self.writes_to_stdout();
        self.command.env = self.prepared.env.clone();
        self.command.version = self.prepared.version.clone();
        Ok(())
    }

    pub fn writes_to_stdout(&self) -> bool {
        self.prepared
            .valid
            .spec
            .writers
            .iter()
            .any(|writer| writer.kind == WriterType::Stdout)
    }

    /// Whether the start position applies to no topic any more.
    fn has_started(&self) -> bool {
        self.started
            .has_all(&self.prepared.valid.spec, self.known.as_ref())
    }

    pub fn query(&self) -> FactsQuery {
        let valid = &self.prepared.valid;
        query(&valid.namespace, &valid.name, &valid.spec)
    }

    /// The facts of the last read, if it succeeded.
    pub fn facts(&self) -> Option<&KafkaFacts> {
        self.known.as_ref().filter(|_| self.problem.is_none())
    }

    /// Workers are killed if they need longer to stop.
    pub fn stop_timeout(&self) -> Duration {
        self.command.stop_timeout
    }

    /// The running workers.
    pub fn worker_views(&self) -> Vec<WorkerView> {
        self.workers.workers(&self.command.name)
    }

    pub fn totals(&self) -> Totals {
        self.workers.totals()
    }

    /// Starts a read from Kafka if it is due; the caller passes the result to [`LocalGroup::take`].
    pub fn refresh_if_due(
        &mut self,
        clients: &KafkaClients,
        provision: bool,
    ) -> Option<impl Future<Output = KafkaRefresh> + use<>> {
        if self.refresh_due.is_none_or(|due| Instant::now() < due) {
            return None;
        }
        // No second read before the first has returned.
        self.refresh_due = None;
        let (clients, valid) = (clients.clone(), self.prepared.valid.clone());
        Some(refresh(
            clients,
            valid,
            self.query(),
            self.has_started(),
            self.others.present,
            provision,
        ))
    }

    pub fn take(&mut self, clients: &KafkaClients, refresh: KafkaRefresh) -> Vec<Notice> {
        self.refresh_due = Some(Instant::now() + REFRESH_INTERVAL);
        if let Some(started) = refresh.started {
            self.started = started;
        }
        let mut notices = refresh.notices;
        match refresh.outcome {
            Ok(facts) => {
                notices.extend(self.recreated_topics(&facts));
                notices.extend(self.other_members(clients, &facts));
                let now = Instant::now();
                for (partition, end) in facts.lag.iter().flat_map(|lag| &lag.ends) {
                    self.arrivals.note(partition, *end, now);
                }
                (self.known, self.problem) = (Some(facts), None);
            }
            Err(problem) => self.problem = Some(problem),
        }
        notices
    }

    /// A notice for each topic that was deleted and created again since the session started.
    fn recreated_topics(&mut self, facts: &KafkaFacts) -> Vec<Notice> {
        let mut notices = Vec::new();
        // Topics of another cluster are other topics.
        let cluster = |facts: &KafkaFacts| facts.cluster_id.clone();
        if self
            .known
            .as_ref()
            .is_some_and(|known| cluster(known) != cluster(facts))
        {
            self.topic_ids.clear();
        }
        for (topic, id) in &facts.topic_ids {
            let before = self.topic_ids.insert(topic.clone(), id.clone());
            if before.is_some_and(|before| before != *id) {
                self.rates.forget(topic);
                self.arrivals.forget(topic);
                let name = &self.prepared.valid.name;
                notices.push(Notice {
                    reason: "TopicRecreated",
                    text: format!("{name}: TopicRecreated: topic {topic} was deleted and created again"),
                });
            }
        }
        notices
    }

    /// Decides how many workers run; returns a message if the number changes.
    pub fn resize(&mut self, max_workers: i32) -> Option<String> {
        let size = self.size(max_workers);
        let changed = size.workers != self.wanted.workers;
        self.wanted = size;
        changed.then(|| {
            let name = &self.prepared.valid.name;
            let workers = count(self.wanted.workers, "worker");
            format!("{name}: {workers} ({})", self.wanted.reason)
        })
    }

    fn size(&self, max_workers: i32) -> Size {
        let spec = &self.prepared.valid.spec;
        let Some(known) = &self.known else {
            return Size {
                workers: 0,
                reason: "waiting for the first answer from Kafka".into(),
            };
        };
        let missing = known.topics.iter().find(|(_, partitions)| partitions.is_none());
        if let Some((topic, _)) = missing
            && self.wanted.workers == 0
        {
            let reason = format!(
                "topic {topic} does not exist; create it, or let local mode create it: spec.topics: [{{name: {topic}, provision: {{partitions: 6}}}}]"
            );
            return Size { workers: 0, reason };
        }
        let partitions = known
            .topics
            .values()
            .try_fold(0_i32, |sum, partitions| Some(sum.saturating_add((*partitions)?)));
        let current = i32::try_from(self.wanted.workers)
            .ok()
            .filter(|workers| *workers > 0);
        let earliest = spec.consumer.start_position.kind == StartPositionType::Earliest;
        let start = if earliest || self.has_started() {
            Start::Ready
        } else if self.workers.alive() > 0 {
            Start::Draining
        } else {
            Start::Waiting
        };
        plan::size(
            spec,
            ScalingFacts {
                partitions,
                current,
                start,
                hold: None,
            },
            max_workers,
        )
    }

    /// Starts and stops worker processes; `running` is false when the session ends.
    pub fn supervise(&mut self, running: bool) -> Vec<String> {
        let wanted = if running { self.wanted.workers } else { 0 };
        self.workers.tick(&self.command, wanted)
    }

    /// Reads the status of the workers and records their positions. Returns texts of events.
    pub async fn ask_workers(&mut self) -> Vec<String> {
        self.workers.ask().await;
        let now = Instant::now();
        self.dead_letters.note(self.totals().dead_lettered, now);
        let mut messages = Vec::new();
        for worker in self.workers.workers(&self.command.name) {
            messages.extend(worker.report.iter().flat_map(|report| self.skipped.note(report)));
            for partition in worker.report.iter().flat_map(|report| &report.partitions) {
                if let Some(position) = partition.watermark {
                    self.rates
                        .note(&(partition.topic.clone(), partition.partition), position, now);
                }
            }
        }
        messages
    }

    pub fn view(&self, running: bool) -> GroupView {
        let valid = &self.prepared.valid;
        let totals = self.totals();
        let lag = self.facts().and_then(|facts| facts.lag.as_ref());
        let state = match valid.spec.desired_state {
            _ if !running => "stopping",
            DesiredState::Running => "Running",
            DesiredState::Paused => "Paused",
            DesiredState::Stopped => "Stopped",
        };
        GroupView {
            name: valid.name.clone(),
            group_id: valid.group_id.clone(),
            state: state.into(),
            workers: self.workers.alive(),
            wanted: self.wanted.workers,
            lag: lag.map(|lag| lag.total),
            finished: totals.records,
            dead_lettered: totals.dead_lettered,
            skipped: totals.skipped,
            remark: self.remark(),
            partitions: self.partitions(),
        }
    }

    fn remark(&self) -> Option<String> {
        if let Some(problem) = &self.problem {
            return Some(format!("{}: {problem}", problem.reason()));
        }
        if let Some(shared) = &self.others.shared {
            return Some(shared.with_reason());
        }
        let idle =
            self.wanted.workers == 0 && self.prepared.valid.spec.desired_state == DesiredState::Running;
        idle.then(|| self.wanted.reason.clone())
    }

    fn partitions(&self) -> Vec<PartitionView> {
        let Some(known) = &self.known else {
            return Vec::new();
        };
        let workers = self.workers.workers(&self.command.name);
        let lag = self.facts().and_then(|facts| facts.lag.as_ref());
        let now = Instant::now();
        let all = known
            .topics
            .iter()
            .flat_map(|(topic, count)| (0..count.unwrap_or(0)).map(|index| (topic.clone(), index)));
        all.map(|key| {
            let owner = workers.iter().find_map(|worker| {
                let partitions = &worker.report.as_ref()?.partitions;
                let own = partitions
                    .iter()
                    .find(|own| own.topic == key.0 && own.partition == key.1)?;
                Some((worker.name.clone(), own.clone()))
            });
            let (worker, report) = owner.unzip();
            PartitionView {
                name: format!("{}-{}", key.0, key.1),
                worker,
                position: self.rates.position(&key),
                rate: self.rates.of(&key, now).unwrap_or(0.0),
                lag: lag.and_then(|lag| lag.per_partition.get(&key).copied()),
                in_flight: report.as_ref().map_or(0, |report| report.in_flight),
                paused_reason: report.and_then(|report| report.paused_reason),
            }
        })
        .collect()
    }
}
