//! `local replay`: runs a part of the log through a group once more, as a KafkaReplay does in a cluster. In:
//! arguments. Out: the plan as a table, worker processes that end by themselves, and how far they are. The consumer
//! group of the replay is removed at the end; the group itself is not touched.

pub mod args;
mod screen;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use crds::worker_config::{WorkerConfig, exit_code};
use tempfile::TempDir;

use super::prepare::{self, PreparedGroup};
use super::rates::Rates;
use super::session::removals::Removals;
use super::session::{documents, worker_program};
use super::stop::StopSignals;
use super::supervise::{WorkerCommand, WorkerProcesses};
use super::validate::Rules;
use crate::compiler::Programs;
use crate::group::rejection::Rejection;
use crate::group::replay::{
    Answers, Plan, bounded, plan, progress_query, queries, record_offsets, set_record_times, totals, until,
    writers,
};
use crate::kafka::KafkaClients;
use crate::kafka::model::Deleted;
use args::ReplayArgs;
use screen::Screen;

/// Nothing is read in the background.
const REFRESH: Duration = Duration::from_secs(3600);
/// Time between two checks of the processes.
const TICK: Duration = Duration::from_millis(200);
/// Time between two reads of the committed offsets.
const LOOK: Duration = Duration::from_secs(1);
/// How long a read may take: the processes and Ctrl-C wait for it.
const ANSWER: Duration = Duration::from_secs(3);
/// Added to a worker's drain time, for its last commit and for leaving the group.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the members of the last workers may take to disappear from the consumer group.
const LEAVE: Duration = Duration::from_secs(10);

/// Plans the replay, prints it, and runs it. Errors are printed by `main`, with exit code 1.
pub async fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let prepared = prepared(args).await?;
    let group = &prepared.valid;
    let replay = args.spec(&group.name).map_err(|problem| anyhow!(problem))?;
    let refused = |rejection: Rejection| anyhow!(rejection.message);
    let selected = writers(&replay, &group.spec).map_err(refused)?;
    let own_group = group_id(&group.group_id, jiff::Timestamp::now().as_millisecond());
    let clients = KafkaClients::new(REFRESH);
    let (kafka, credentials) = (&group.spec.kafka, &group.credentials);
    let queries = queries(&replay, &own_group, &group.spec).map_err(refused)?;
    let answers = Answers {
        from: clients.reset_positions(kafka, credentials, &queries.from).await?,
        to: match &queries.to {
            Some(query) => Some(clients.reset_positions(kafka, credentials, query).await?),
            None => None,
        },
    };
    let mut plan = plan(&replay, &group.spec, &answers).map_err(refused)?;
    // Only for the eye of the user: without times the plan is the same.
    if let Ok(times) = clients
        .record_times(kafka, credentials, &record_offsets(&plan))
        .await
    {
        set_record_times(&mut plan, &times);
    }
    let names: Vec<&str> = selected.iter().map(|writer| writer.name.as_str()).collect();
    let config: WorkerConfig = serde_json::from_str(&prepared.config)?;
    let bounds = until(&plan.partitions, replay.records_per_second, plan.workers);
    let config = bounded(
        WorkerConfig {
            writers: selected.clone(),
            ..config
        },
        &own_group,
        bounds,
    );
    let screen = Screen::new(writes_to_stdout(&config));
    prepared
        .notes
        .iter()
        .for_each(|note| screen.say(&format!("note: {note}")));
    screen.say(table::table(&plan).trim_end());
    screen.say(table::summary(&plan, &names, &own_group).trim_end());
    if replay.dry_run {
        screen.say("nothing is replayed: this is a dry run; run it again without --dry-run");
        return Ok(ExitCode::SUCCESS);
    }
    if plan.workers == 0 {
        screen.say("nothing is replayed: the range has no offsets");
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::Builder::new()
        .prefix("kafka-consumer-replay-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir()
        .context("cannot create a folder for the worker configuration")?;
    let command = command(args, &prepared, &config, &folder)?;
    let mut run = Run {
        clients,
        prepared: with_group(prepared, own_group),
        plan,
        workers: WorkerProcesses::default(),
        command,
        removals: Removals::default(),
        rates: Rates::default(),
        screen,
        reached: None,
    };
    run.supervise().await
}

/// The consumer group of a replay. Each one has another, because the offsets of an earlier one must not count.
fn group_id(group: &str, now: i64) -> String {
    format!("{group}.replay.local-{now}")
}

async fn prepared(args: &ReplayArgs) -> anyhow::Result<PreparedGroup> {
    let loaded = args.group.load()?;
    let source = &args.group.source;
    let (brokers, folders) = (source.brokers(), source.folders());
    let document = args.group.select(&loaded)?;
    let rules = Rules::without_containers();
    let programs = Arc::new(Programs::of_this_program());
    let checked = documents::check(
        &rules,
        document,
        None,
        async |group| {
            let found = prepare::programs(&group, &loaded, &folders);
            let sources = found.into_iter().map(|(_, source)| source);
            programs
                .prepare_all(&args.group.source.namespace, sources.collect())
                .await;
            prepare::prepare(group, &loaded, &brokers, &folders, &programs)
        },
        &source.namespace,
    );
    checked.await.map_err(|problem| anyhow!(problem))
}

/// The prepared group as a member of the replay's consumer group.
fn with_group(mut prepared: PreparedGroup, group_id: String) -> PreparedGroup {
    prepared.valid.group_id = group_id;
    prepared
}

fn command(
    args: &ReplayArgs,
    prepared: &PreparedGroup,
    config: &WorkerConfig,
    folder: &TempDir,
) -> anyhow::Result<WorkerCommand> {
    let program = worker_program(args.worker_binary.as_deref())?;
    let folder = folder.path().to_path_buf();
    let written = PreparedGroup {
        config: serde_json::to_string_pretty(config)?,
        ..prepared.clone()
    };
    prepare::write(&folder, &written).context("cannot write the worker configuration")?;
    let drain = u64::try_from(config.drain_seconds).unwrap_or(0);
    Ok(WorkerCommand {
        program,
        name: format!("{}-replay", prepared.valid.name),
        folder,
        env: prepared.env.clone(),
        version: prepared.version.clone(),
        bounded: true,
        share_stdout: writes_to_stdout(config),
        stop_timeout: Duration::from_secs(drain) + MARGIN,
    })
}

fn writes_to_stdout(config: &WorkerConfig) -> bool {
    let is_stdout = |writer: &crds::spec::Writer| writer.kind == crds::spec::WriterType::Stdout;
    config.writers.iter().any(is_stdout)
}

/// Why the workers are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Outdated,
    Stopped,
}

/// A replay that runs.
struct Run {
    clients: KafkaClients,
    /// The group, with the id of the replay's consumer group.
    prepared: PreparedGroup,
    plan: Plan,
    workers: WorkerProcesses,
    command: WorkerCommand,
    removals: Removals,
    rates: Rates,
    screen: Screen,
    /// Why it ends.
    reached: Option<End>,
}

impl Run {
    async fn supervise(&mut self) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignals::new()?;
        let mut looked = Instant::now();
        loop {
            let wanted = match self.reached {
                None => usize::try_from(self.plan.workers).unwrap_or(0),
                Some(_) => 0,
            };
            let messages = self.workers.tick(&self.command, wanted);
            messages.iter().for_each(|message| self.screen.say(message));
            let dead = self.workers.take_dead();
            self.removals.start(&self.clients, &self.prepared.valid, dead);
            self.removals
                .done()
                .iter()
                .for_each(|message| self.screen.say(message));
            for code in self.workers.take_ends() {
                self.reached = match (code, self.reached) {
                    (exit_code::PLAN_OUTDATED, _) => Some(End::Outdated),
                    // A worker ends with 0 only when the whole plan is processed.
                    (_, reached @ Some(End::Outdated)) => reached,
                    _ => Some(End::Done),
                };
            }
            if stop.received() {
                if self.reached.is_some() {
                    self.screen.say(
                        "second stop signal, stopping now: uncommitted records are not counted as processed",
                    );
                    self.workers.kill();
                } else {
                    let workers = self.workers.alive();
                    self.screen.say(&format!(
                        "stopping: workers finish and commit their records in flight ({workers} running); press Ctrl-C again to stop now"
                    ));
                    self.reached = Some(End::Stopped);
                }
            }
            if self.reached.is_some() && self.workers.alive() == 0 {
                break;
            }
            if looked.elapsed() >= LOOK {
                self.look().await;
                looked = Instant::now();
            }
            tokio::time::sleep(TICK).await;
        }
        let messages = self.removals.finish().await;
        messages.iter().for_each(|message| self.screen.say(message));
        let known = self.look().await;
        self.screen.end(&self.progress());
        let outcome = self.outcome(known);
        self.remove_group().await;
        outcome
    }

    /// Reads how far the replay is. Returns false if Kafka does not answer; then the positions stay.
    async fn look(&mut self) -> bool {
        let valid = &self.prepared.valid;
        let query = progress_query(&self.plan.partitions, &valid.group_id, &valid.spec);
        let read = self
            .clients
            .reset_positions(&valid.spec.kafka, &valid.credentials, &query);
        let Ok(Ok(positions)) = tokio::time::timeout(ANSWER, read).await else {
            return false;
        };
        for planned in &mut self.plan.partitions {
            let partition = (planned.topic.clone(), planned.partition);
            let position = positions.partitions.get(&partition);
            if let Some(committed) = position.and_then(|position| position.committed) {
                planned.position = planned.position.max(Some(committed));
            }
        }
        self.plan.totals = totals(&self.plan.partitions);
        self.rates
            .note(&all_partitions(), self.plan.totals.processed, Instant::now());
        let progress = self.progress();
        self.screen.show(&progress);
        true
    }

    fn progress(&self) -> String {
        let rate = self.rates.of(&all_partitions(), Instant::now());
        table::progress(&self.plan.totals, rate)
    }

    fn outcome(&self, known: bool) -> anyhow::Result<ExitCode> {
        let rest = table::rest(&self.plan.partitions);
        match self.reached {
            Some(End::Done) => {
                self.screen.say("done: every record of the range is processed");
                Ok(ExitCode::SUCCESS)
            }
            // The last commits may have ended it.
            Some(End::Stopped) if rest.is_empty() => {
                self.screen.say("done: every record of the range is processed");
                Ok(ExitCode::SUCCESS)
            }
            Some(End::Outdated) => bail!(
                "the replay has ended, because its plan does not fit any more: a topic was deleted or created again; run it again to plan with the present topic"
            ),
            _ if !known => bail!(
                "stopped before the end, and Kafka does not say what is processed; the last known rest is: {rest}"
            ),
            _ => bail!(
                "stopped before the end; process the rest with the same command and, instead of its --from and --to: {rest}"
            ),
        }
    }

    /// Removes the consumer group of the replay. A failure is not one of the replay.
    async fn remove_group(&mut self) {
        let valid = &self.prepared.valid;
        let deadline = Instant::now() + LEAVE;
        let problem = loop {
            let deleted = self
                .clients
                .delete_group(&valid.spec.kafka, &valid.credentials, &valid.group_id);
            match deleted.await {
                Ok(Deleted::Gone) => return,
                Ok(Deleted::HasMembers) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Ok(Deleted::HasMembers) => {
                    break "it has members, which leave after the session timeout".to_string();
                }
                Err(problem) => break problem.to_string(),
            }
        };
        self.screen.say(&format!(
            "note: consumer group {group} of the replay is still in Kafka: {problem}. It expires by itself; to remove it now: kafka-consumer-groups.sh --delete --group {group}",
            group = valid.group_id
        ));
    }
}

/// The key of all partitions together.
fn all_partitions() -> (String, i32) {
    (String::new(), -1)
}
