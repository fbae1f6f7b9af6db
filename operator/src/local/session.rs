//! A session of local mode: groups from files, their workers, an embedded broker if requested. In: arguments,
//! time, changed files. Out: worker processes as the files specify, and a screen that shows them. `tick`
//! lists all steps in order.

pub mod documents;
mod draining;
pub mod removals;
mod states;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::args::LocalArgs;
use super::embedded::{self, Broker};
use super::load::load;
use super::local_group::LocalGroup;
use super::manage::Manage;
use super::prepare::{Brokers, Folders};
use super::refresh::KafkaRefresh;
use super::screen::Screen;
use super::table::GroupView;
use super::validate::Rules;
use super::watch::Watch;
use crate::api::model::EventKind;
use crate::compiler::Programs;
use crate::kafka::KafkaClients;
use crate::kafka::model::GroupKey;
use draining::Draining;
use removals::Removals;
use states::RequestedState;

/// Time between two checks of the processes: short for a user, negligible CPU time.
pub const TICK: Duration = Duration::from_millis(200);
/// Time between two checks of the files and two reads from the workers.
const SECOND: Duration = Duration::from_secs(1);

/// Time between two reads from Kafka for a group that does not ask more often.
const KAFKA_REFRESH: Duration = Duration::from_secs(15);

/// Exit code: the files cannot be used, or something that is needed cannot be started.
pub const INVALID: u8 = 1;

/// Results of reads from Kafka, by group, on their way back to the session.
type Refreshes = (
    mpsc::UnboundedSender<(GroupKey, KafkaRefresh)>,
    mpsc::UnboundedReceiver<(GroupKey, KafkaRefresh)>,
);

pub struct Session {
    files: Vec<PathBuf>,
    namespace: String,
    folders: Folders,
    max_workers: i32,
    program: PathBuf,
    rules: Rules,
    programs: Arc<Programs>,
    clients: KafkaClients,
    brokers: Brokers,
    broker: Option<Broker>,
    folder: TempDir,
    groups: BTreeMap<GroupKey, LocalGroup>,
    /// Groups that are no longer in the files; their workers are draining.
    leaving: Vec<LocalGroup>,
    removals: Removals,
    manage: Manage,
    /// States that users have requested through the API.
    requested: BTreeMap<GroupKey, RequestedState>,
    watch: Watch,
    pub screen: Screen,
    refreshes: Refreshes,
    second: Instant,
    running: bool,
}

impl Session {
    /// Reads and checks everything; starts no worker. The error lists every reason.
    pub async fn open(args: &LocalArgs, mut screen: Screen) -> anyhow::Result<Self> {
        let folders = args.source.folders();
        let loaded = load(&args.files, &args.source.namespace);
        anyhow::ensure!(loaded.problems.is_empty(), "{}", loaded.problems.join("\n"));
        loaded.notes.iter().for_each(|note| screen.say(note));
        let program = worker_program(args.worker_binary.as_deref())?;
        let manage = Manage::open(args).await?;
        let clients = KafkaClients::new(KAFKA_REFRESH);
        let (broker, brokers, clients) = if args.embedded_kafka {
            let broker = Broker::start().await?;
            screen.say(&format!("{} ({})", embedded::ABOUT, broker.bootstrap));
            let brokers = Brokers::Embedded(broker.bootstrap.clone());
            (Some(broker), brokers, clients)
        } else {
            (None, args.source.brokers(), clients)
        };
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| i32::try_from(cores.get()).unwrap_or(1));
        let watched = folders
            .secrets
            .iter()
            .chain(&folders.config_maps)
            .cloned()
            .collect();
        let mut session = Self {
            watch: Watch::new(&args.files, watched),
            files: args.files.clone(),
            namespace: args.source.namespace.clone(),
            folders,
            max_workers: args.max_workers.unwrap_or(cores),
            program,
            rules: Rules::without_containers(),
            programs: Arc::new(Programs::of_this_program()),
            clients,
            brokers,
            broker,
            folder: tempfile::Builder::new()
                .prefix("kafka-consumer-local-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .tempdir()
                .context("cannot create a folder for worker configurations")?,
            groups: BTreeMap::new(),
            leaving: Vec::new(),
            removals: Removals::default(),
            manage,
            requested: BTreeMap::new(),
            screen,
            refreshes: mpsc::unbounded_channel(),
            second: Instant::now(),
            running: true,
        };
        let mut problems = Vec::new();
        for document in &loaded.groups {
            if let Err(problem) = session.accept(document, &loaded).await {
                problems.push(problem);
            }
        }
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
        if let Some(url) = session.manage.url() {
            session
                .screen
                .say(&format!("dashboard: {url} (REST API: {url}docs)"));
        }
        if args.max_workers.is_none() {
            session.screen.say(&format!(
                "at most {cores} workers per group, one per processor core; change this with --max-workers"
            ));
        }
        Ok(session)
    }

    /// Does everything that is due. Call it every [`TICK`].
    pub async fn tick(&mut self) {
        self.take_refreshes();
        if self.second.elapsed() >= SECOND {
            self.second = Instant::now();
            if self.running && self.watch.changed() {
                self.reload().await;
            }
            for (key, group) in &mut self.groups {
                // The worker has logged it, so the screen shows it already.
                for message in group.ask_workers().await {
                    let reason = "RecordsSkippedByRetention";
                    self.manage.event(key, EventKind::Warning, reason, &message);
                }
            }
            let places = self
                .groups
                .iter()
                .map(|(key, group)| (key.clone(), group.dead_letter_place()));
            let known = self.groups.values().map(LocalGroup::known);
            self.manage.publish(known.collect(), places.collect());
        }
        self.take_commands();
        self.start_refreshes();
        self.supervise();
        let (groups, running) = (&self.groups, self.running);
        self.screen.show(|| views(groups, running));
    }

    /// Stops all workers cleanly, and says what it waits for; a second stop signal kills them.
    pub async fn stop(&mut self, mut again: impl FnMut() -> bool) {
        let longest = self.all().map(LocalGroup::stop_timeout).max().unwrap_or_default();
        let mut draining = Draining::new(Instant::now(), longest);
        if std::mem::replace(&mut self.running, false) {
            self.manage.close();
            self.screen.say(&draining.begins(Instant::now(), self.alive()));
        }
        while self.alive() > 0 {
            let workers = || self.all().flat_map(LocalGroup::worker_views).collect();
            if let Some(message) = draining.message(Instant::now(), workers) {
                self.screen.say(&message);
            }
            if again() {
                self.screen
                    .say("second stop signal, stopping now: uncommitted records will be read again");
                self.groups
                    .values_mut()
                    .chain(&mut self.leaving)
                    .for_each(|group| group.workers.kill());
            }
            self.tick().await;
            tokio::time::sleep(TICK).await;
        }
        let messages = self.removals.finish().await;
        messages.iter().for_each(|message| self.screen.say(message));
        let views = self.views();
        self.screen.finish(&views);
    }

    pub fn views(&self) -> Vec<GroupView> {
        views(&self.groups, self.running)
    }

    /// The only group, if there is exactly one; for the demo.
    pub fn only_group(&self) -> Option<&LocalGroup> {
        let mut groups = self.groups.values();
        groups.next().filter(|_| groups.next().is_none())
    }

    pub fn clients(&self) -> &KafkaClients {
        &self.clients
    }

    /// Address of the dashboard, if there is one.
    pub fn dashboard(&self) -> Option<String> {
        self.manage.url()
    }

    pub fn embedded_bootstrap(&self) -> Option<&str> {
        self.broker.as_ref().map(|broker| broker.bootstrap.as_str())
    }

    fn alive(&self) -> usize {
        self.all().map(|group| group.workers.alive()).sum()
    }

    /// All groups, also those that are leaving.
    fn all(&self) -> impl Iterator<Item = &LocalGroup> {
        self.groups.values().chain(&self.leaving)
    }

    fn take_refreshes(&mut self) {
        while let Ok((key, refresh)) = self.refreshes.1.try_recv() {
            if let Some(group) = self.groups.get_mut(&key) {
                for notice in group.take(&self.clients, refresh) {
                    self.screen.say(&notice.text);
                    self.manage
                        .event(&key, EventKind::Normal, notice.reason, &notice.text);
                }
            }
        }
    }

    fn start_refreshes(&mut self) {
        // The embedded broker has no admin requests; its topics are created through its input.
        let provision = self.broker.is_none();
        for (key, group) in &mut self.groups {
            if let Some(refresh) = group.refresh_if_due(&self.clients, provision) {
                let (key, answers) = (key.clone(), self.refreshes.0.clone());
                // The session may have ended when the answer arrives.
                tokio::spawn(async move { answers.send((key, refresh.await)).is_ok() });
            }
        }
    }

    fn supervise(&mut self) {
        for (key, group) in &mut self.groups {
            if self.running
                && let Some(message) = group.resize(self.max_workers)
            {
                self.screen.say(&message);
                self.manage.event(key, EventKind::Normal, "Scaled", &message);
            }
            // Exits of workers, and the warnings and errors in their logs.
            for message in group.supervise(self.running) {
                self.screen.say(&message);
            }
            for exit in group.workers.take_exits() {
                self.manage.event(key, EventKind::Warning, "WorkerExited", &exit);
            }
        }
        for group in &mut self.leaving {
            let messages = group.supervise(false);
            messages.iter().for_each(|message| self.screen.say(message));
        }
        for group in self.groups.values_mut().chain(&mut self.leaving) {
            let dead = group.workers.take_dead();
            self.removals.start(&self.clients, &group.prepared.valid, dead);
        }
        let messages = self.removals.done();
        messages.iter().for_each(|message| self.screen.say(message));
        self.leaving.retain(|group| group.workers.alive() > 0);
    }
}

fn views(groups: &BTreeMap<GroupKey, LocalGroup>, running: bool) -> Vec<GroupView> {
    groups.values().map(|group| group.view(running)).collect()
}

/// The worker program: the given one, else the one beside this program, else from PATH.
pub fn worker_program(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    const NAME: &str = "kafka-consumer-worker";
    if let Some(given) = given {
        anyhow::ensure!(
            given.is_file(),
            "--worker-binary {}: no such file",
            given.display()
        );
        return Ok(given.to_path_buf());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(NAME)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(NAME)));
    candidates.into_iter().find(|candidate| candidate.is_file()).with_context(|| {
        format!("{NAME} is neither beside this program nor in PATH; build it (cargo build -p {NAME}) or pass its path with --worker-binary")
    })
}
