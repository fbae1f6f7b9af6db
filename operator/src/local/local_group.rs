//! One group of a session: its prepared resource, its Kafka facts, its workers. In: prepared resources, Kafka
//! facts, time. Out: the wanted number of workers and a view for the screen. Accesses Kafka only in
//! [`refresh`].

mod conditions;
mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crds::spec::{DesiredState, StartPositionType, WriterType};
use crds::worker_config::Control;
use serde_json::Value;

use super::plan::{self, Size};
use super::prepare::{self, PreparedGroup};
use super::rates::{LastMinute, Rates};
use super::supervise::{Totals, WorkerCommand, WorkerProcesses};
use super::table::{GroupView, PartitionView};
use crate::group::observed::query;
use crate::group::scaling::ScalingFacts;
use crate::group::topics;
use crate::group::validate::ValidatedGroup;
use crate::kafka::KafkaClients;
use crate::kafka::model::{FactsQuery, GroupKey, KafkaFacts, KafkaProblem, ProvisionAction};

/// Time between two reads from Kafka; added partitions are noticed within it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Facts that another question has just brought are not read again.
const FRESH: Duration = Duration::from_millis(500);

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
    start_positions_committed: bool,
    wanted: Size,
    /// Positions of the workers.
    rates: Rates,
    /// Ends of the partitions.
    arrivals: Rates,
    dead_letters: LastMinute,
    refresh_due: Option<Instant>,
}

/// The result of a read from Kafka.
pub struct KafkaRefresh {
    pub outcome: Result<KafkaFacts, KafkaProblem>,
    pub start_positions_committed: bool,
    pub messages: Vec<String>,
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
            start_positions_committed: false,
            wanted: Size {
                workers: 0,
                reason: "reading from Kafka".into(),
            },
            rates: Rates::default(),
            arrivals: Rates::default(),
            dead_letters: LastMinute::default(),
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
        self.object = object;
        self.prepared.valid.spec.desired_state = state;
        self.install()
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

    pub fn query(&self) -> FactsQuery {
        let valid = &self.prepared.valid;
        query(&valid.namespace, &valid.name, &valid.spec)
    }

    /// The facts of the last read, if it succeeded.
    pub fn facts(&self) -> Option<&KafkaFacts> {
        self.known.as_ref().filter(|_| self.problem.is_none())
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
            self.start_positions_committed,
            provision,
        ))
    }

    pub fn take(&mut self, refresh: KafkaRefresh) -> Vec<String> {
        self.refresh_due = Some(Instant::now() + REFRESH_INTERVAL);
        self.start_positions_committed |= refresh.start_positions_committed;
        let mut messages = refresh.messages;
        match refresh.outcome {
            Ok(facts) => {
                messages.extend(self.recreated_topics(&facts));
                let now = Instant::now();
                for (partition, end) in facts.lag.iter().flat_map(|lag| &lag.ends) {
                    self.arrivals.note(partition, *end, now);
                }
                (self.known, self.problem) = (Some(facts), None);
            }
            Err(problem) => self.problem = Some(problem),
        }
        messages
    }

    /// A message for each topic that was deleted and created again since the session started.
    fn recreated_topics(&mut self, facts: &KafkaFacts) -> Vec<String> {
        let mut messages = Vec::new();
        for (topic, id) in &facts.topic_ids {
            let before = self.topic_ids.insert(topic.clone(), id.clone());
            if before.is_some_and(|before| before != *id) {
                self.rates.forget(topic);
                self.arrivals.forget(topic);
                let name = &self.prepared.valid.name;
                messages.push(format!(
                    "{name}: TopicRecreated: topic {topic} was deleted and created again"
                ));
            }
        }
        messages
    }

    /// Decides how many workers run; returns a message if the number changes.
    pub fn resize(&mut self, max_workers: i32) -> Option<String> {
        let size = self.size(max_workers);
        let changed = size.workers != self.wanted.workers;
        self.wanted = size;
        changed.then(|| {
            let name = &self.prepared.valid.name;
            format!("{name}: {} workers ({})", self.wanted.workers, self.wanted.reason)
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
        let may_start = self.start_positions_committed || earliest;
        plan::size(
            spec,
            ScalingFacts {
                partitions,
                current,
                may_start,
            },
            max_workers,
        )
    }

    /// Starts and stops worker processes; `running` is false when the session ends.
    pub fn supervise(&mut self, running: bool) -> Vec<String> {
        let wanted = if running { self.wanted.workers } else { 0 };
        self.workers.tick(&self.command, wanted)
    }

    /// Reads the status of the workers and records their positions.
    pub async fn ask_workers(&mut self) {
        self.workers.ask().await;
        let now = Instant::now();
        self.dead_letters.note(self.totals().dead_lettered, now);
        for worker in self.workers.workers(&self.command.name) {
            for partition in worker.report.iter().flat_map(|report| &report.partitions) {
                if let Some(position) = partition.watermark {
                    self.rates
                        .note(&(partition.topic.clone(), partition.partition), position, now);
                }
            }
        }
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

/// Provisions topics, commits start positions and reads facts, as a reconcile of the operator does.
async fn refresh(
    clients: KafkaClients,
    valid: ValidatedGroup,
    query: FactsQuery,
    start_positions_committed: bool,
    provision: bool,
) -> KafkaRefresh {
    let key = GroupKey::new(&valid.namespace, &valid.name);
    let read = async |max_age| {
        clients
            .facts(&key, &valid.spec.kafka, &valid.credentials, &query, max_age)
            .await
    };
    let mut refresh = KafkaRefresh {
        outcome: read(FRESH).await,
        start_positions_committed,
        messages: Vec::new(),
    };
    let Ok(facts) = &refresh.outcome else {
        return refresh;
    };
    let mut provisioned = valid.spec.topics.iter().filter_map(|topic| {
        let provision = topic.provision.as_ref()?;
        Some(
            facts
                .topics
                .get(&topic.name)
                .copied()
                .flatten()
                .is_some_and(|has| has >= provision.partitions),
        )
    });
    let complete = provisioned.all(|enough| enough);
    // At the start for all topics, including dead letter topics; later only if an input topic is missing or
    // too small.
    if provision && (!start_positions_committed || !complete) {
        let wanted = topics::wanted(&valid.spec, &facts.topics).all();
        match clients
            .provision(&valid.spec.kafka, &valid.credentials, &wanted)
            .await
        {
            Ok(done) => {
                refresh.messages = done
                    .iter()
                    .filter_map(|done| match done.action {
                        ProvisionAction::Created => {
                            Some(format!("{}: topic {} created", valid.name, done.topic))
                        }
                        ProvisionAction::Grown { from, to } => Some(format!(
                            "{}: topic {} was expanded from {from} to {to} partitions",
                            valid.name, done.topic
                        )),
                        ProvisionAction::Unchanged => None,
                    })
                    .collect();
                if !refresh.messages.is_empty() {
                    clients.invalidate(&key);
                    refresh.outcome = read(Duration::ZERO).await;
                }
            }
            Err(problem) => {
                refresh.outcome = Err(problem);
                return refresh;
            }
        }
    }
    if !provision {
        // The embedded broker was empty when the group started: all start positions are equal.
        refresh.start_positions_committed = true;
        return refresh;
    }
    if let Ok(facts) = &refresh.outcome
        && !start_positions_committed
        && facts.topics.values().all(Option::is_some)
    {
        let start = &valid.spec.consumer.start_position;
        match clients
            .commit_start_positions(&valid.spec.kafka, &valid.credentials, &query, start)
            .await
        {
            Ok(_) => refresh.start_positions_committed = true,
            Err(problem) if start.kind == StartPositionType::Earliest => {
                tracing::debug!(
                    "start positions of {} are not committed yet: {problem}",
                    valid.name
                );
            }
            Err(problem) => refresh.outcome = Err(problem),
        }
    }
    refresh
}
