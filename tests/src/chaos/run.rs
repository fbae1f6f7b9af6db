//! A run from its topics to its verdict.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};

use super::{
    config::config,
    fleet::{Fleet, Surroundings},
    outage::{Scene, settled},
    outcome::Outcome,
    output::Route,
    plan::{self, Act, Faults},
    proxy::Proxy,
    report::Row,
    scenario::Scenario,
    site::Site,
    witness::{self, Witness},
};
use crate::{
    systems::{kafka::Kafka, random::random_seed, wait::until},
    verify::{
        checker::{Guarantee, History, Sink, check},
        ledger::{Ledger, Shape, feed::Feed},
    },
};

/// Pause between two checks of the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause between two progress lines.
const BEAT: Duration = Duration::from_secs(60);

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
    until("there are records before the group", async || {
        let ends = kafka.end_offsets(&route.input).await?;
        ensure!(ends.values().any(|end| *end > 0), "no record");
        Ok(())
    })
    .await?;
    let witness = Witness::start(kafka, route);
    let config = config(scenario, &bootstrap, route)?;
    let mut fleet = Fleet::start(site, scenario, folder, config, route.clone())?;

    let around = Surroundings {
        kafka,
        feed: &feed,
        broker: site.broker.as_deref(),
        brokers: site.brokers.as_deref(),
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
