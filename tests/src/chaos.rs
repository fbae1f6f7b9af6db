//! Real workers as bare processes, which are killed, stopped, frozen and disconnected while records flow, and
//! a verdict on every record. Needs only a Kafka broker, and PostgreSQL for some scenarios. A restart costs
//! no more than a process start, so a run can have many.
//!
//! A run: topics, feed, workers; then the faults, chosen by a seed, most of them only after every partition
//! has made progress since the previous one; then the remaining records; then [`crate::verify::checker`] gets
//! everything that was observed. In: a [`Site`] to run on and a [`Scenario`]. Out: an [`Outcome`], also if
//! promises are broken; an error only if the run itself failed.

mod fleet;
mod outage;
mod output;
pub mod plan;
mod proxy;
pub mod report;
mod scenario;
pub mod seeded_bugs;
pub mod soak;
mod table;
mod witness;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    fleet::{Fleet, Surroundings},
    outage::Scene,
    output::Route,
    proxy::Proxy,
    witness::Witness,
};
pub use self::{
    outage::Outage,
    plan::{Act, Faults, Step},
    report::Row,
    scenario::{SESSION_OF_A_CLEAN_STOP, SESSION_OF_A_CRASH, Scenario},
};
use crate::{
    systems::kafka::Kafka,
    verify::{
        checker::{Guarantee, History, Kind, Sink, Verdict, check},
        ledger::{Ledger, Shape, feed::Feed},
    },
};

/// Pause between two checks of the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause between two progress lines.
const BEAT: Duration = Duration::from_secs(60);

/// Where runs take place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Plaintext brokers.
    pub bootstrap: String,
    /// The listener whose clients go through a proxy, and the address where that proxy listens. Only
    /// scenarios that cut connections need it, and only one of them can run at a time.
    pub proxied: Option<(String, SocketAddr)>,
    /// URL of a database that its user owns; only scenarios that write to tables need it. Each run creates
    /// its own schema.
    pub postgres: Option<String>,
    /// Called with `restart-broker SIGNAL SECONDS`, it ends the broker with this signal, starts it again
    /// after this time, and returns when the broker is ready. Only scenarios that restart the broker need it.
    pub broker: Option<PathBuf>,
    /// The worker to test.
    pub worker: PathBuf,
    /// For configuration files and logs.
    pub folder: PathBuf,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub verdict: Verdict,
    /// Faults that took place: the whole plan, unless the group got stuck.
    pub done: Faults,
    pub outage: Option<Outage>,
    /// Workers that ended unexpectedly, or with an error.
    pub ended: Vec<String>,
    pub seconds: f64,
    /// The folder of the workers' logs.
    pub folder: PathBuf,
}

impl Outcome {
    /// The kinds that break the promise.
    pub fn broken(&self) -> Vec<Kind> {
        self.scenario.promise().broken_by(&self.verdict)
    }

    /// An error that names the promise and how it was broken.
    pub fn kept(&self) -> Result<()> {
        let broken: Vec<&str> = self.broken().into_iter().map(Kind::name).collect();
        ensure!(
            broken.is_empty() && self.ended.is_empty() && self.done == self.scenario.faults,
            "{}: {broken:?} after {}; {}; workers that ended: {:?}; seed {}; their logs: {}",
            self.scenario.name,
            self.done,
            self.verdict,
            self.ended,
            self.scenario.seed,
            self.folder.display()
        );
        if let Some(outage) = self.outage.filter(|outage| !outage.is_harmless()) {
            bail!("{}: {outage}", self.scenario.name);
        }
        ensure!(
            self.scenario.faults.fences == 0 || self.verdict.aborted > 0,
            "{}: {} aborted nothing, so this run proves nothing about aborts",
            self.scenario.name,
            self.done
        );
        Ok(())
    }
}

/// Runs a scenario and prints one line about it.
pub async fn run(site: &Site, scenario: &Scenario) -> Result<Outcome> {
    println!("chaos {}: seed {}", scenario.name, scenario.seed);
    let kafka = Kafka::new(&site.bootstrap);
    let run = format!("{}-{:06x}", scenario.name, random_seed() & 0xff_ffff);
    ensure!(
        scenario.faults.fences == 0
            || scenario.sink == Sink::Postgres
            || scenario.guarantee == Guarantee::ExactlyOnce,
        "only with ExactlyOnce do workers have transactions in Kafka that can be aborted"
    );
    let route = Route::create(site, scenario, &kafka, &run).await?;
    let folder = site.folder.join(&run);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let result = run_with(site, scenario, &kafka, &route, &folder).await;
    // Also after a failure: the verdict has everything that was in there.
    let removed = route.remove(&kafka).await;
    let outcome = result.with_context(|| format!("chaos {}, seed {}", scenario.name, scenario.seed))?;
    println!("  {}", Row::new(&outcome));
    removed?;
    Ok(outcome)
}

async fn run_with(
    site: &Site,
    scenario: &Scenario,
    kafka: &Kafka,
    route: &Route,
    folder: &Path,
) -> Result<Outcome> {
    let started = Instant::now();
    let proxy = match (&site.proxied, scenario.faults.cuts) {
        (_, 0) => None,
        (Some((upstream, address)), _) => Some(Proxy::start(*address, upstream).await?),
        (None, _) => anyhow::bail!("cutting connections needs a proxied listener of the broker"),
    };
    let bootstrap = match (&site.proxied, &proxy) {
        (Some((_, address)), Some(_)) => address.to_string(),
        _ => site.bootstrap.clone(),
    };
    let shape = Shape {
        run: route.input.clone(),
        keys: 10,
        poison_every: scenario.poison_every,
        epoch: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_millis() as i64,
    };
    // The feed starts first: workers find records that are older than their group.
    let feed = Feed::start(
        kafka,
        &route.input,
        shape.clone(),
        scenario.partitions,
        scenario.rate,
    )?;
    let witness = Witness::start(kafka, route);
    let config = scenario.config(&bootstrap, route)?;
    let mut fleet = Fleet::start(site, scenario, folder, config, route.clone())?;

    let around = Surroundings {
        kafka,
        feed: &feed,
        broker: site.broker.as_deref(),
        proxy: proxy.as_ref(),
    };
    let scene = Scene {
        scenario,
        kafka,
        route,
        feed: &feed,
        witness: &witness,
    };
    let (mut done, mut outage) = (Faults::default(), None);
    let mut progress = Progress { printed: started };
    let mut moved = witness.committed();
    for step in plan::plan(
        scenario.seed,
        &scenario.faults,
        scenario.workers,
        scenario.session,
    ) {
        if step.patient && !all_move(&witness, &moved, route, scenario).await {
            println!("  the group is stuck at {:?}", witness.committed());
            break;
        }
        tokio::time::sleep(step.pause).await;
        if matches!(step.act, Act::Cut { .. }) {
            settled(kafka, route, scenario).await?;
        }
        moved = witness.committed();
        fleet.restart_ended()?;
        match &step.act {
            Act::Outage { time } => outage = Some(scene.run(&mut fleet, *time).await?),
            act => fleet.act(act, &around).await?,
        }
        done.count(&step.act);
        progress.print(&done, &feed);
    }
    all_move(&witness, &moved, route, scenario).await;
    while feed.sent() < scenario.records {
        tokio::time::sleep(PAUSE).await;
        fleet.restart_ended()?;
        progress.print(&done, &feed);
    }
    let ledger = feed.stop().await?;
    drained(&witness, &ledger, scenario, &mut fleet).await?;
    let ended = fleet.stop().await?;
    let history = history(kafka, route, &shape, &ledger, witness).await?;
    let verdict = tokio::task::spawn_blocking(move || check(history)).await?;
    Ok(Outcome {
        scenario: scenario.clone(),
        verdict,
        done,
        outage,
        ended,
        seconds: started.elapsed().as_secs_f64(),
        folder: folder.to_path_buf(),
    })
}

/// Prints the progress of a long run.
struct Progress {
    printed: Instant,
}

impl Progress {
    fn print(&mut self, done: &Faults, feed: &Feed) {
        if self.printed.elapsed() >= BEAT {
            self.printed = Instant::now();
            println!("  so far {done}, {} records", feed.sent());
        }
    }
}

/// Waits until every partition is committed further than `before`; false after a timeout.
async fn all_move(witness: &Witness, before: &witness::Offsets, route: &Route, scenario: &Scenario) -> bool {
    let started = Instant::now();
    loop {
        let now = witness.committed();
        let moves = |partition: i32| now.get(&partition) > before.get(&partition);
        if (0..route.partitions()).all(moves) {
            return true;
        }
        if started.elapsed() > scenario.patience || witness.has_ended() {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the group is complete and stable: a cut during a rebalance may cost a member its place in the
/// group, which counts as a crash.
async fn settled(kafka: &Kafka, route: &Route, scenario: &Scenario) -> Result<()> {
    let started = Instant::now();
    let complete = Some(("Stable".to_string(), scenario.workers));
    while kafka.group(&route.group).await? != complete && started.elapsed() < scenario.patience {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits until everything is committed. A group that does not reach this is judged anyway.
async fn drained(
    witness: &Witness,
    ledger: &Ledger<i32>,
    scenario: &Scenario,
    fleet: &mut Fleet,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let committed = witness.committed();
        let finished = ledger.offsets.iter().all(|(partition, offsets)| {
            offsets.last() < committed.get(partition) // the offset of the next record
        });
        if finished || started.elapsed() > scenario.patience || witness.has_ended() {
            return Ok(());
        }
        fleet.restart_ended()?;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn history(
    kafka: &Kafka,
    route: &Route,
    shape: &Shape,
    ledger: &Ledger<i32>,
    witness: Witness,
) -> Result<History> {
    let (samples, live) = witness.stop().await?;
    let (output, uncommitted_total) = route.read(kafka, shape).await?;
    let identifying = shape.clone();
    let letters = kafka
        .fold(&route.letters, Vec::new(), move |log, record| {
            log.push(identifying.identify(&record, true));
        })
        .await?;
    Ok(History {
        inputs: shape.inputs(ledger),
        names: BTreeMap::new(),
        output,
        uncommitted_total,
        live,
        letters,
        samples,
    })
}

/// Differs from run to run; printed, so that a run can be repeated with the same faults.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
