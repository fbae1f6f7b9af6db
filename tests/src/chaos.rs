//! Real workers as bare processes, killed, stopped, frozen and cut off while records flow, and a verdict over what became of
//! every record. Needs a Kafka and nothing else, and a restart costs as much as a process start: so there can be many.
//!
//! A run: topics, feed, workers; then the faults, chosen by a seed, most of them only after every partition has moved on again
//! since the one before; then the rest of the records; then [`crate::checker`] gets everything that was seen. In: a [`Site`]
//! to run in and a [`Scenario`]. Out: an [`Outcome`], also when promises are broken; an error only when the run itself failed.

mod fleet;
pub mod plan;
pub mod planted;
mod proxy;
pub mod report;
mod witness;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::json;

use self::{fleet::Fleet, proxy::Proxy, witness::Witness};
pub use self::{
    plan::{Act, Faults, Step},
    report::Row,
};
use crate::{
    checker::{Guarantee, History, Kind, Ordering, Promise, Verdict, check},
    kafka::Kafka,
    ledger::{Ledger, Shape, feed::Feed},
};

/// How long one partition may stand still before the group counts as stuck: far longer than any session and any drain.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Where runs take place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Plaintext brokers.
    pub bootstrap: String,
    /// The listener whose clients go through a proxy, and where that proxy listens; only scenarios that cut
    /// connections need it, and only one of them can run at a time.
    pub proxied: Option<(String, SocketAddr)>,
    /// The worker to test.
    pub worker: PathBuf,
    /// For configurations and logs.
    pub folder: PathBuf,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Part of topic names: short, lower case.
    pub name: String,
    pub guarantee: Guarantee,
    pub ordering: Ordering,
    pub workers: usize,
    pub partitions: i32,
    /// Records a second over all partitions.
    pub rate: u64,
    /// Go on at least until so many records are written.
    pub records: u64,
    /// `processing.batch.maxRecords`.
    pub batch: u64,
    /// One record of this many is poison; 0: none.
    pub poison_every: u64,
    /// `session.timeout.ms`.
    pub session: Duration,
    pub faults: Faults,
    pub seed: u64,
    /// More librdkafka properties.
    pub client: Vec<(&'static str, &'static str)>,
    /// A planted bug: the worker must be built with them.
    pub bug: Option<&'static str>,
    /// How long the group may take for anything.
    pub patience: Duration,
}

/// A killed worker is missed after this time: short, so that there can be many kills, and long enough that a busy machine
/// does not look like one.
pub const SESSION_OF_A_CRASH: Duration = Duration::from_secs(3);

/// The default: where nothing is meant to crash, a process that gets no processor for some seconds must not count as one.
pub const SESSION_OF_A_CLEAN_STOP: Duration = Duration::from_secs(45);

impl Scenario {
    /// A short run without faults, to be changed.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::PerPartition,
            workers: 3,
            partitions: 6,
            rate: 600,
            records: 0,
            batch: 20,
            poison_every: 50,
            session: SESSION_OF_A_CLEAN_STOP,
            faults: Faults::default(),
            seed: random_seed(),
            client: Vec::new(),
            bug: None,
            patience: PATIENCE,
        }
    }

    /// What all crashes of this run together may repeat, or lose with at-most-once. Each: for every partition of the worker
    /// what is read and not finished, four batches at most; twice, because the worker may just have taken over those of
    /// another. And repeat what is finished and not committed, for which a second of the whole load is counted, though
    /// commits are due every 200 ms, because rebalances hold them up.
    pub fn allowance(&self) -> u64 {
        let crashes = u64::from(self.faults.kills + self.faults.zombies);
        let uncommitted = match self.guarantee {
            Guarantee::AtMostOnce => 0,
            Guarantee::AtLeastOnce | Guarantee::ExactlyOnce => self.rate,
        };
        crashes * (self.in_hand() + uncommitted)
    }

    fn in_hand(&self) -> u64 {
        let owned = (self.partitions as u64).div_ceil(self.workers as u64);
        2 * owned * 4 * self.batch
    }

    pub fn promise(&self) -> Promise {
        Promise {
            guarantee: self.guarantee,
            ordering: self.ordering,
            allowance: self.allowance(),
            late: u64::from(self.faults.zombies) * self.in_hand(),
        }
    }

    fn config(&self, bootstrap: &str, topics: &Topics) -> Result<WorkerConfig> {
        let mut client = json!({
            "session.timeout.ms": self.session.as_millis().to_string(),
            // The session is missed after three of them at least.
            "heartbeat.interval.ms": "500",
        });
        for (key, value) in &self.client {
            client[key] = json!(value);
        }
        let spec = json!({
            "topics": [{"name": topics.input}],
            "groupId": topics.group,
            "kafka": {"bootstrapServers": [bootstrap], "clientConfig": client},
            "processing": {
                "deliveryGuarantee": self.guarantee.to_string(),
                "ordering": self.ordering.to_string(),
                "batch": {"maxRecords": self.batch, "lingerMilliseconds": 10},
                "commitIntervalMilliseconds": 200,
            },
            "decode": {"value": {"type": "Json"}},
            "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": topics.output}}],
            "errorHandling": {"deadLetter": {"topic": topics.letters}},
            "worker": {"terminationGracePeriodSeconds": 30},
        });
        let spec: KafkaConsumerGroupSpec =
            serde_json::from_value(spec).context("the contract does not know this scenario")?;
        Ok(WorkerConfig::from_spec(
            "chaos",
            &self.name,
            &spec,
            spec.transforms.clone(),
        ))
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub verdict: Verdict,
    /// Faults that took place: all of the plan, unless the group got stuck.
    pub done: Faults,
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
        Ok(())
    }
}

struct Topics {
    input: String,
    output: String,
    letters: String,
    group: String,
}

/// Runs a scenario and prints one line about it.
pub async fn run(site: &Site, scenario: &Scenario) -> Result<Outcome> {
    println!("chaos {}: seed {}", scenario.name, scenario.seed);
    let kafka = Kafka::new(&site.bootstrap);
    let run = format!("{}-{:06x}", scenario.name, random_seed() & 0xff_ffff);
    let topic = |suffix: &str| format!("chaos-{run}.{suffix}");
    let topics = Topics {
        input: topic("in"),
        output: topic("out"),
        letters: topic("dlq"),
        group: topic("group"),
    };
    let names = [&topics.input, &topics.output, &topics.letters];
    for name in names {
        kafka.create_topic(name, scenario.partitions).await?;
    }
    let folder = site.folder.join(&run);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = run_with(site, scenario, &kafka, &topics, &folder).await;
    // Deleted also after a failure: what was in them is in the verdict.
    kafka.delete_topics(&names.map(String::clone)).await?;
    let outcome = result.with_context(|| format!("chaos {}, seed {}", scenario.name, scenario.seed))?;
    println!("  {}", Row::new(&outcome));
    Ok(outcome)
}

async fn run_with(
    site: &Site,
    scenario: &Scenario,
    kafka: &Kafka,
    topics: &Topics,
    folder: &std::path::Path,
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
        run: topics.input.clone(),
        keys: 10,
        poison_every: scenario.poison_every,
        epoch: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_millis() as i64,
    };
    // The feed first: workers find records that were there before their group was.
    let feed = Feed::start(
        kafka,
        &topics.input,
        shape.clone(),
        scenario.partitions,
        scenario.rate,
    )?;
    let witness = Witness::start(kafka, topics);
    let mut fleet = Fleet::start(site, scenario, folder, scenario.config(&bootstrap, topics)?)?;

    let mut done = Faults::default();
    let mut moved = witness.committed();
    for step in plan::plan(
        scenario.seed,
        &scenario.faults,
        scenario.workers,
        scenario.session,
    ) {
        if step.patient && !all_move(&witness, &moved, scenario).await {
            println!("  the group is stuck at {:?}", witness.committed());
            break;
        }
        tokio::time::sleep(step.pause).await;
        moved = witness.committed();
        fleet.restart_ended()?;
        fleet.act(&step.act, proxy.as_ref()).await?;
        done.count(&step.act);
    }
    all_move(&witness, &moved, scenario).await;
    while feed.sent() < scenario.records {
        tokio::time::sleep(PAUSE).await;
        fleet.restart_ended()?;
    }
    let ledger = feed.stop().await?;
    drained(&witness, &ledger, scenario, &mut fleet).await?;
    let ended = fleet.stop().await?;
    let history = history(kafka, topics, ledger, witness).await?;
    let verdict = tokio::task::spawn_blocking(move || check(history)).await?;
    Ok(Outcome {
        scenario: scenario.clone(),
        verdict,
        done,
        ended,
        seconds: started.elapsed().as_secs_f64(),
        folder: folder.to_path_buf(),
    })
}

/// Waits until every partition is committed further than `before`; false when that takes too long.
async fn all_move(witness: &Witness, before: &witness::Offsets, scenario: &Scenario) -> bool {
    let started = Instant::now();
    loop {
        let now = witness.committed();
        let moves = |partition: i32| now.get(&partition) > before.get(&partition);
        if (0..scenario.partitions).all(moves) {
            return true;
        }
        if started.elapsed() > scenario.patience || witness.has_ended() {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
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

async fn history(kafka: &Kafka, topics: &Topics, ledger: Ledger, witness: Witness) -> Result<History> {
    let (samples, live) = witness.stop().await?;
    let (shape, letter_shape) = (ledger.shape.clone(), ledger.shape.clone());
    let output = kafka
        .fold(&topics.output, Vec::new(), move |log, record| {
            log.push(shape.identify(&record, false));
        })
        .await?;
    let letters = kafka
        .fold(&topics.letters, Vec::new(), move |log, record| {
            log.push(letter_shape.identify(&record, true));
        })
        .await?;
    let uncommitted_total = kafka
        .clone()
        .with("isolation.level", "read_uncommitted")
        .fold(&topics.output, 0, |count, _| *count += 1)
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
