//! Kinds, targets and order of the faults: everything follows from the seed. Pure.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::systems::random::Random;

/// What happens to a cluster of three brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterFault {
    /// One broker after the other stops in order and starts again.
    Rolling,
    /// SIGKILL.
    Kill,
    /// SIGSTOP for longer than the other brokers wait for it, then SIGCONT.
    Freeze,
    /// A broker does not reach the others, and clients reach it.
    Isolate,
    /// Two of three are killed at the same time: no partition has enough replicas to take records.
    Minority,
    /// The partitions of all topics get other leaders.
    MoveLeaders,
    /// The partitions of the internal topics get other leaders, and with them groups and transactional ids
    /// other coordinators.
    MoveCoordinators,
}

impl ClusterFault {
    fn name(self) -> &'static str {
        match self {
            ClusterFault::Rolling => "rolling broker restarts",
            ClusterFault::Kill => "broker kills",
            ClusterFault::Freeze => "broker freezes",
            ClusterFault::Isolate => "isolated brokers",
            ClusterFault::Minority => "kills of two brokers",
            ClusterFault::MoveLeaders => "moves of all leaders",
            ClusterFault::MoveCoordinators => "moves of all coordinators",
        }
    }
}

/// Brokers of the cluster that faults of it need.
pub(super) const BROKERS: usize = 3;

/// Number of faults of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// SIGKILL, and a new process at once.
    pub kills: u32,
    /// SIGTERM, and a new process after the old one has exited with code 0.
    pub restarts: u32,
    /// SIGSTOP until the session has expired, then SIGCONT.
    pub zombies: u32,
    /// Longest time that a zombie stays frozen beyond its session, in seconds.
    pub zombie_seconds: u64,
    /// All connections to the broker are closed, and new ones fail for a moment.
    pub cuts: u32,
    /// The open transaction of a worker is aborted from outside.
    pub fences: u32,
    /// Another worker joins the group and leaves soon: all partitions move twice.
    pub storms: u32,
    /// The input gets more partitions.
    pub growths: u32,
    /// The broker is stopped and started again: SIGTERM and SIGKILL alternate.
    pub broker_restarts: u32,
    /// What happens to a cluster of three brokers, and how often.
    pub cluster: Option<(ClusterFault, u32)>,
    /// Duration of the outage of the system behind the writer; 0: none.
    pub outage_seconds: u64,
}

impl Faults {
    /// Counts a fault that took place.
    pub fn count(&mut self, act: &Act) {
        match act {
            Act::Kill { .. } => self.kills += 1,
            Act::Restart { .. } => self.restarts += 1,
            Act::Freeze { longest_seconds, .. } => {
                self.zombies += 1;
                self.zombie_seconds = *longest_seconds;
            }
            Act::Cut { .. } => self.cuts += 1,
            Act::Fence { .. } => self.fences += 1,
            Act::Storm { .. } => self.storms += 1,
            Act::Grow { .. } => self.growths += 1,
            Act::Broker { .. } => self.broker_restarts += 1,
            Act::Cluster { fault, .. } => {
                let before = self.cluster.map_or(0, |(_, count)| count);
                self.cluster = Some((*fault, before + 1));
            }
            Act::Outage { time } => self.outage_seconds = time.as_secs(),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.kills, "kills"),
            (self.restarts, "restarts"),
            (self.zombies, "zombies"),
            (self.cuts, "cuts"),
            (self.fences, "forced aborts"),
            (self.storms, "rebalance storms"),
            (self.growths, "growths"),
            (self.broker_restarts, "broker restarts"),
            self.cluster
                .map_or((0, ""), |(fault, count)| (count, fault.name())),
        ];
        let mut some: Vec<String> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        if self.outage_seconds > 0 {
            some.push(format!("an outage of {} s", self.outage_seconds));
        }
        f.write_str(if some.is_empty() { "no faults" } else { "" })?;
        f.write_str(&some.join(", "))
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Kill {
        worker: usize,
    },
    Restart {
        worker: usize,
    },
    Freeze {
        worker: usize,
        time: Duration,
        longest_seconds: u64,
    },
    Cut {
        closed: Duration,
    },
    Fence {
        worker: usize,
    },
    Storm {
        /// From its start until SIGTERM.
        stay: Duration,
    },
    Grow {
        /// Number of added partitions.
        more: i32,
    },
    Broker {
        /// SIGKILL instead of SIGTERM.
        killed: bool,
        /// From its end until it is started again.
        down: Duration,
    },
    Cluster {
        fault: ClusterFault,
        /// Number of the broker, from 1.
        broker: usize,
        /// Until the fault ends.
        time: Duration,
    },
    Outage {
        time: Duration,
    },
}

/// A fault and the condition before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Wait until every partition has made progress since the last fault. Not always: the group must also
    /// survive a crash or an abort while it recovers from another.
    pub patient: bool,
    pub pause: Duration,
    pub act: Act,
}

/// Longest pause before a fault: several commit intervals.
const LONGEST_PAUSE_MILLIS: u64 = 1000;

/// Shortest stay of another worker: before the process handles signals, SIGTERM kills it.
const SHORTEST_STAY_MILLIS: u64 = 1000;

/// The faults of a run.
pub fn plan(seed: u64, faults: &Faults, workers: usize, session: Duration) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut acts = Vec::new();
    for _ in 0..faults.kills {
        let worker = random.below(workers as u64) as usize;
        acts.push(Act::Kill { worker });
    }
    for turn in 0..faults.restarts {
        // One after the other, as in a rolling restart.
        let worker = turn as usize % workers;
        acts.push(Act::Restart { worker });
    }
    for _ in 0..faults.zombies {
        let worker = random.below(workers as u64) as usize;
        let beyond = 500 + random.below(faults.zombie_seconds.max(1) * 1000);
        acts.push(Act::Freeze {
            worker,
            time: session + Duration::from_millis(beyond),
            longest_seconds: faults.zombie_seconds,
        });
    }
    for _ in 0..faults.cuts {
        let closed = Duration::from_millis(random.below(1000));
        acts.push(Act::Cut { closed });
    }
    for _ in 0..faults.fences {
        let worker = random.below(workers as u64) as usize;
        acts.push(Act::Fence { worker });
    }
    for _ in 0..faults.storms {
        let stay = Duration::from_millis(SHORTEST_STAY_MILLIS + random.below(2000));
        acts.push(Act::Storm { stay });
    }
    for _ in 0..faults.growths {
        let more = 1 + random.below(4) as i32;
        acts.push(Act::Grow { more });
    }
    for turn in 0..faults.broker_restarts {
        acts.push(Act::Broker {
            killed: turn % 2 == 1,
            down: Duration::from_secs(1 + random.below(5)),
        });
    }
    if faults.outage_seconds > 0 {
        let time = Duration::from_secs(faults.outage_seconds);
        acts.push(Act::Outage { time });
    }
    // Fisher-Yates shuffle; clean restarts need not keep their order.
    for last in (1..acts.len()).rev() {
        acts.swap(last, random.below(last as u64 + 1) as usize);
    }
    // In order: a rolling restart takes one broker after the other.
    let (fault, count) = faults.cluster.unwrap_or((ClusterFault::Rolling, 0));
    for turn in 0..count as usize {
        acts.push(Act::Cluster {
            fault,
            broker: turn % BROKERS + 1,
            time: match fault {
                // The others take a broker for dead after 6 s, and a replica for late after 5.
                ClusterFault::Freeze | ClusterFault::Isolate => Duration::from_secs(8 + random.below(6)),
                _ => Duration::from_secs(1 + random.below(5)),
            },
        });
    }
    acts.into_iter()
        .map(|act| Step {
            // A clean stop during a rebalance may leave work that no worker owns; so it waits like the
            // others.
            patient: !matches!(act, Act::Kill { .. } | Act::Fence { .. }) || random.below(4) > 0,
            pause: Duration::from_millis(random.below(LONGEST_PAUSE_MILLIS)),
            act,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULTS: Faults = Faults {
        kills: 40,
        restarts: 7,
        zombies: 20,
        zombie_seconds: 5,
        cuts: 9,
        fences: 11,
        storms: 3,
        growths: 4,
        broker_restarts: 6,
        cluster: Some((ClusterFault::Freeze, 5)),
        outage_seconds: 30,
    };
    const SESSION: Duration = Duration::from_secs(6);

    #[test]
    fn a_plan_has_the_requested_faults_and_follows_from_its_seed() {
        let steps = plan(7, &FAULTS, 4, SESSION);
        let mut counted = Faults::default();
        steps.iter().for_each(|step| counted.count(&step.act));
        assert_eq!(counted, FAULTS);
        assert_eq!(steps, plan(7, &FAULTS, 4, SESSION));
        assert_ne!(steps, plan(8, &FAULTS, 4, SESSION));
    }

    #[test]
    fn faults_hit_all_workers_and_zombies_outlive_their_session() {
        let steps = plan(1, &FAULTS, 4, SESSION);
        let mut hit = [0; 4];
        for step in &steps {
            match step.act {
                Act::Kill { worker } | Act::Restart { worker } | Act::Fence { worker } => hit[worker] += 1,
                Act::Freeze { worker, time, .. } => {
                    hit[worker] += 1;
                    assert!(time > SESSION && time <= SESSION + Duration::from_millis(5500));
                }
                Act::Grow { more } => assert!((1..=4).contains(&more)),
                Act::Cluster { broker, time, .. } => {
                    assert!((1..=BROKERS).contains(&broker));
                    assert!((8..14).contains(&time.as_secs()), "{time:?}");
                }
                Act::Cut { .. } | Act::Storm { .. } | Act::Broker { .. } | Act::Outage { .. } => {}
            }
        }
        assert!(hit.iter().all(|count| *count > 0), "{hit:?}");
        let impatient = steps.iter().filter(|step| !step.patient).count();
        assert!((1..=25).contains(&impatient), "{impatient}");
    }

    #[test]
    fn a_rolling_restart_takes_one_broker_after_the_other() {
        let faults = Faults {
            cluster: Some((ClusterFault::Rolling, 5)),
            ..Faults::default()
        };
        let steps = plan(9, &faults, 4, SESSION);
        let brokers: Vec<usize> = steps
            .iter()
            .filter_map(|step| match step.act {
                Act::Cluster { broker, .. } => Some(broker),
                _ => None,
            })
            .collect();
        assert_eq!(brokers, [1, 2, 3, 1, 2]);
    }

    #[test]
    fn every_second_broker_restart_is_a_kill() {
        let steps = plan(3, &FAULTS, 4, SESSION);
        let killed = |step: &&Step| matches!(step.act, Act::Broker { killed: true, .. });
        assert_eq!(steps.iter().filter(killed).count(), 3);
    }

    #[test]
    fn faults_are_shown_in_words() {
        assert_eq!(
            FAULTS.to_string(),
            "40 kills, 7 restarts, 20 zombies, 9 cuts, 11 forced aborts, 3 rebalance storms, 4 growths, \
             6 broker restarts, 5 broker freezes, an outage of 30 s"
        );
        assert_eq!(Faults::default().to_string(), "no faults");
    }
}
