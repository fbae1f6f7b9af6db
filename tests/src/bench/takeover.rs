//! How long partitions stand still when a worker leaves: two workers and a steady feed; one worker gets
//! SIGTERM or SIGKILL, and the other one's output shows when it had the first record of each partition that
//! has moved. For each group protocol, with Kafka's default session timeout and with a short one.
//!
//! Times start just before the signal and end when the broker has appended the record to the output topic;
//! both clocks are this machine's. So they include everything: detection, rebalance, fetch, linger, write.

mod group;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc;

use self::group::{Member, PARTITIONS, Protocol, Session, config, settle, shorten_session};
use super::{
    range::Range,
    subjects::{Bench, STOP},
};
use crate::{
    systems::kafka::Record,
    verify::ledger::{Shape, feed::Feed},
};

/// Its name for `--case`.
pub(super) const NAME: &str = "takeover";

/// Records per second over all partitions: one in 10 ms for each.
const RATE: u64 = 1200;
/// Kafka's default session timeout of a silent member, for both protocols.
const DEFAULT_SESSION: Duration = Duration::from_secs(45);
/// In addition to the session: a rebalance with a lost member takes a few heartbeats.
const ALLOWANCE: Duration = Duration::from_secs(60);

/// What happens to a worker.
#[derive(Clone, Copy, Debug)]
struct Setup {
    signal: &'static str,
    session: Session,
}

const SETUPS: [Setup; 4] = [
    Setup {
        signal: "TERM",
        session: Session::Default,
    },
    Setup {
        signal: "TERM",
        session: Session::Short,
    },
    Setup {
        signal: "KILL",
        session: Session::Short,
    },
    Setup {
        signal: "KILL",
        session: Session::Default,
    },
];

/// A line of the table: seconds until consumption of the first and of the last partition continues on the
/// other worker.
pub(super) struct Takeover {
    pub signal: &'static str,
    pub protocol: &'static str,
    pub session: &'static str,
    pub first: Range,
    pub last: Range,
    pub trials: usize,
}

/// All setups, `trials` times each, fewer for those that mostly wait for the session.
pub(super) fn run(bench: &Bench, trials: u32) -> Result<Vec<Takeover>> {
    // For the feed, the observer and both groups.
    let runtime = tokio::runtime::Runtime::new()?;
    let mut lines = Vec::new();
    for setup in SETUPS {
        let waits = setup.signal == "KILL" && setup.session == Session::Default;
        let trials = if waits { trials.div_ceil(2).min(3) } else { trials };
        let (mut classic, mut consumer) = (Vec::new(), Vec::new());
        for number in 1..=trials {
            // Both at the same time: most of it is waiting, and one record in 10 ms is no load.
            let (one, other) = runtime.block_on(async {
                tokio::try_join!(
                    trial(bench, setup, Protocol::Classic),
                    trial(bench, setup, Protocol::Consumer)
                )
            })?;
            for (protocol, seconds) in [(Protocol::Classic, &one), (Protocol::Consumer, &other)] {
                println!(
                    "{number}/{trials}  {NAME}: SIG{}, {}, session {}: {:.2} s, all after {:.2} s",
                    setup.signal,
                    protocol.name(),
                    setup.session.name(),
                    seconds.0,
                    seconds.1,
                );
            }
            classic.push(one);
            consumer.push(other);
        }
        for (protocol, seconds) in [(Protocol::Classic, classic), (Protocol::Consumer, consumer)] {
            let range = |value: fn(&(f64, f64)) -> f64| Range::of(seconds.iter().map(value));
            if let (Some(first), Some(last)) = (range(|both| both.0), range(|both| both.1)) {
                lines.push(Takeover {
                    signal: setup.signal,
                    protocol: protocol.name(),
                    session: setup.session.name(),
                    first,
                    last,
                    trials: seconds.len(),
                });
            }
        }
    }
    Ok(lines)
}

/// Topics of a trial: the input of both workers, and the output of each.
struct Topics {
    input: String,
    leaver: String,
    stayer: String,
}

impl Topics {
    fn new(group: &str) -> Self {
        let name = |what: &str| format!("{group}-{what}");
        Self {
            input: name("input"),
            leaver: name("leaver"),
            stayer: name("stayer"),
        }
    }

    fn all(&self) -> [String; 3] {
        [&self.input, &self.leaver, &self.stayer].map(String::clone)
    }
}

async fn trial(bench: &Bench, setup: Setup, protocol: Protocol) -> Result<(f64, f64)> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let group = format!("bench-takeover-{}-{since_epoch}", protocol.name().to_lowercase());
    let topics = Topics::new(&group);
    for topic in topics.all() {
        let settings = [("message.timestamp.type", "LogAppendTime")];
        bench
            .kafka
            .create_topic_with(&topic, PARTITIONS, &settings)
            .await?;
    }
    if (protocol, setup.session) == (Protocol::Consumer, Session::Short) {
        shorten_session(bench, &group).await?;
    }
    let shape = Shape {
        run: group.clone(),
        keys: 10,
        poison_every: 0,
        epoch: i64::try_from(since_epoch)?,
    };
    let feed = Feed::start(&bench.kafka, &topics.input, shape, PARTITIONS, RATE)?;
    let start = |name: &str, output: &str| {
        let config = config(bench, (setup.session, protocol), &group, &topics.input, output)?;
        Member::start(bench, &format!("takeover-{}-{name}", protocol.name()), &config)
    };
    let mut leaver = start("leaver", &topics.leaver)?;
    let mut stayer = start("stayer", &topics.stayer)?;
    settle(&mut leaver, &mut stayer).await?;
    let measured = async {
        let moved = leaver.partitions()?;
        let (stop, mut arrivals) = follow(bench, &topics.stayer);
        let signalled = SystemTime::now();
        leaver.worker.process.signal(setup.signal)?;
        let limit = if setup.session == Session::Default {
            DEFAULT_SESSION
        } else {
            Duration::ZERO
        };
        let times =
            tokio::time::timeout(limit + ALLOWANCE, first_of_each(&moved, signalled, &mut arrivals)).await;
        stop.store(true, Ordering::Relaxed);
        let times = times.with_context(|| format!("not all of {moved:?} have moved"))??;
        let mut times: Vec<f64> = times.into_values().collect();
        times.sort_by(f64::total_cmp);
        match (times.first(), times.last()) {
            (Some(first), Some(last)) => Ok((*first, *last)),
            _ => bail!("the worker had no partitions"),
        }
    }
    .await
    .with_context(|| format!("see {}", stayer.worker.log.display()))?;
    if setup.signal == "TERM" {
        let status = leaver.worker.process.wait(STOP, || {})?;
        ensure!(status.success(), "after SIGTERM the worker ended with {status}");
    }
    feed.stop().await?;
    drop(stayer);
    bench.kafka.delete_topics(&topics.all()).await?;
    Ok(measured)
}

/// Sends the input partition and the time of each record of a topic until the stop flag is set.
fn follow(bench: &Bench, topic: &str) -> (Arc<AtomicBool>, mpsc::UnboundedReceiver<(i32, i64)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (send, arrivals) = mpsc::unbounded_channel();
    let (kafka, topic, stopped) = (bench.kafka.clone(), topic.to_string(), stop.clone());
    tokio::spawn(async move {
        let take = move |(): &mut (), record: Record| {
            if let Some(arrival) = arrival(&record) {
                // The receiver is gone after the last one.
                let _ = send.send(arrival);
            }
        };
        // If it fails, the channel closes, which the receiver notices.
        kafka.follow(&topic, (), take, stopped).await
    });
    (stop, arrivals)
}

/// The key contains the input partition of a record; see [`Shape`].
fn arrival(record: &Record) -> Option<(i32, i64)> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    Some((key.split('-').next()?.parse().ok()?, record.timestamp?))
}

/// Seconds from `signalled` to the first record of each partition after it.
async fn first_of_each(
    moved: &BTreeSet<i32>,
    signalled: SystemTime,
    arrivals: &mut mpsc::UnboundedReceiver<(i32, i64)>,
) -> Result<BTreeMap<i32, f64>> {
    let signalled = i64::try_from(signalled.duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut times = BTreeMap::new();
    while times.len() < moved.len() {
        let (partition, at) = arrivals.recv().await.context("the output cannot be read")?;
        // Earlier records are from before the leaver was stopped.
        if moved.contains(&partition) && at > signalled {
            times.entry(partition).or_insert((at - signalled) as f64 / 1000.0);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_record_of_a_partition_counts_and_only_after_the_signal() {
        let (send, mut arrivals) = mpsc::unbounded_channel();
        for arrival in [(1, 900), (1, 1500), (2, 1200), (1, 1600), (3, 1700)] {
            send.send(arrival).unwrap();
        }
        let signalled = UNIX_EPOCH + Duration::from_secs(1);
        let moved = BTreeSet::from([1, 3]);
        let times = first_of_each(&moved, signalled, &mut arrivals).await;
        assert_eq!(times.unwrap(), BTreeMap::from([(1, 0.5), (3, 0.7)]));
    }
}
