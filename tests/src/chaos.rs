//! Real workers as bare processes, killed, stopped, frozen and cut off while records flow, and a verdict over what became of
//! every record. Needs a Kafka, or a Kafka and a PostgreSQL, and a restart costs as much as a process start: so there can be
//! many.
//!
//! A run: topics, feed, workers; then the faults, chosen by a seed, most of them only after every partition has moved on again
//! since the one before; then the rest of the records; then [`crate::verify::checker`] gets everything that was seen. In: a [`Site`]
//! to run in and a [`Scenario`]. Out: an [`Outcome`], also when promises are broken; an error only when the run itself failed.

mod fleet;
mod outage;
mod output;
pub mod plan;
pub mod planted;
mod proxy;
pub mod report;
mod scenario;
pub mod soak;
mod table;
mod witness;

use std::{
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

/// Between two looks at the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(60);

/// Where runs take place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Plaintext brokers.
    pub bootstrap: String,
    /// The listener whose clients go through a proxy, and where that proxy listens; only scenarios that cut
    /// connections need it, and only one of them can run at a time.
    pub proxied: Option<(String, SocketAddr)>,
    /// URL of a database that its user owns; only scenarios that write to tables need it. They make schemas of their own.
    pub postgres: Option<String>,
    /// Called with `restart-broker SIGNAL SECONDS` it ends the broker by this signal, starts it again after that time, and
    /// returns when the broker is ready; only scenarios that restart it need it.
    pub broker: Option<PathBuf>,
    /// The worker to test.
    pub worker: PathBuf,
    /// For configurations and logs.
    pub folder: PathBuf,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub verdict: Verdict,
    /// Faults that took place: all of the plan, unless the group got stuck.
    pub done: Faults,
    pub outage: Option<Outage>,
    /// Workers that ended when they should not have, or not as they should.
    pub ended: Vec<String>,
    pub seconds: f64,
    /// Where the workers' logs are.
    pub folder: PathBuf,
}

impl Outcome {
    /// What breaks the promise.
    pub fn broken(&self) -> Vec<Kind> {
        self.scenario.promise().broken_by(&self.verdict)
    }

    /// An error that says what was promised and not kept.
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
            "{}: {} aborted nothing, so this run says nothing about aborts",
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
        "only with ExactlyOnce have workers transactions in Kafka that can be aborted"
    );
    let route = Route::create(site, scenario, &kafka, &run).await?;
    let folder = site.folder.join(&run);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = run_with(site, scenario, &kafka, &route, &folder).await;
    // Also after a failure: what was in there is in the verdict.
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
        (None, _) => anyhow::bail!("connections can only be cut with a proxied listener of the broker"),
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
    // The feed first: workers find records that were there before their group was.
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
    let mut progress = Progress { told: started };
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
        progress.tell(&done, &feed);
    }
    all_move(&witness, &moved, route, scenario).await;
    while feed.sent() < scenario.records {
        tokio::time::sleep(PAUSE).await;
        fleet.restart_ended()?;
        progress.tell(&done, &feed);
    }
    let ledger = feed.stop().await?;
    drained(&witness, &ledger, scenario, &mut fleet).await?;
    let ended = fleet.stop().await?;
    let history = history(kafka, route, ledger, witness).await?;
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

/// Tells how far a long run is.
struct Progress {
    told: Instant,
}

impl Progress {
    fn tell(&mut self, done: &Faults, feed: &Feed) {
        if self.told.elapsed() >= BEAT {
            self.told = Instant::now();
            println!("  so far {done}, {} records", feed.sent());
        }
    }
}

/// Waits until every partition is committed further than `before`; false when that takes too long.
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

/// Waits until the group is complete and at rest: a cut in the middle of a rebalance may cost a member its place in the group,
/// and then it is a crash.
async fn settled(kafka: &Kafka, route: &Route, scenario: &Scenario) -> Result<()> {
    let started = Instant::now();
    let complete = Some(("Stable".to_string(), scenario.workers));
    while kafka.group(&route.group).await? != complete && started.elapsed() < scenario.patience {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits until everything is committed. A group that does not get there is judged all the same.
async fn drained(witness: &Witness, ledger: &Ledger, scenario: &Scenario, fleet: &mut Fleet) -> Result<()> {
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

async fn history(kafka: &Kafka, route: &Route, ledger: Ledger, witness: Witness) -> Result<History> {
    let (samples, live) = witness.stop().await?;
    let (output, uncommitted_total) = route.read(kafka, &ledger.shape).await?;
    let shape = ledger.shape.clone();
    let letters = kafka
        .fold(&route.letters, Vec::new(), move |log, record| {
            log.push(shape.identify(&record, true));
        })
        .await?;
    Ok(History {
        inputs: ledger.inputs(),
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
