//! Which scenarios a soak runs, and with how many faults. Pure: from the command line to a list.

use std::time::Duration;

use super::args::SoakArgs;
use crate::{
    chaos::{
        plan::{ClusterFault, Faults},
        scenario::{SESSION_OF_A_CRASH, Scenario},
    },
    systems::random::random_seed,
    verify::checker::{Guarantee, Ordering, Sink},
};

/// What happens to the workers of a scenario; --scenario selects by these names.
const KINDS: [&str; 9] = [
    "kills", "restarts", "zombies", "cuts", "aborts", "storms", "growth", "broker", "outage",
];

/// What happens to a cluster of three brokers.
const CLUSTER_KINDS: [(&str, ClusterFault); 7] = [
    ("rolling", ClusterFault::Rolling),
    ("broker-kills", ClusterFault::Kill),
    ("broker-freezes", ClusterFault::Freeze),
    ("isolated-broker", ClusterFault::Isolate),
    ("min-isr", ClusterFault::Minority),
    ("leader-moves", ClusterFault::MoveLeaders),
    ("coordinator-moves", ClusterFault::MoveCoordinators),
];

/// The default selection for a cluster: every kind with each of them.
const CLUSTER_CHOICE: [(Guarantee, Sink); 5] = [
    (Guarantee::AtLeastOnce, Sink::Kafka),
    (Guarantee::AtLeastOnce, Sink::Postgres),
    (Guarantee::AtMostOnce, Sink::Kafka),
    (Guarantee::ExactlyOnce, Sink::Kafka),
    (Guarantee::ExactlyOnce, Sink::Postgres),
];

/// The default selection: everything with the default settings, and for other settings what distinguishes
/// them.
const CHOICE: [Chosen; 11] = {
    use Guarantee::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    use Ordering::{PerKey, PerPartition, Unordered};
    use Sink::{Kafka, Postgres};
    [
        (AtLeastOnce, PerPartition, Kafka, &KINDS),
        (AtLeastOnce, PerPartition, Postgres, &["outage"]),
        (AtMostOnce, PerPartition, Kafka, &["kills", "growth", "broker"]),
        (
            ExactlyOnce,
            PerPartition,
            Kafka,
            &["kills", "aborts", "zombies", "storms", "growth", "broker"],
        ),
        (
            ExactlyOnce,
            PerPartition,
            Postgres,
            &["kills", "aborts", "zombies", "growth", "broker", "outage"],
        ),
        (AtLeastOnce, PerKey, Kafka, &["kills", "zombies"]),
        (AtLeastOnce, Unordered, Kafka, &["kills"]),
        (AtMostOnce, PerKey, Kafka, &["kills"]),
        (AtMostOnce, Unordered, Kafka, &["kills"]),
        (ExactlyOnce, PerKey, Kafka, &["kills", "aborts"]),
        (ExactlyOnce, PerKey, Postgres, &["kills"]),
    ]
};

type Chosen = (Guarantee, Ordering, Sink, &'static [&'static str]);

/// A scenario before its numbers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    kind: &'static str,
    guarantee: Guarantee,
    ordering: Ordering,
    sink: Sink,
}

impl Wish {
    /// Whether the scenario has a target for its fault.
    fn makes_sense(&self, args: &SoakArgs) -> bool {
        match self.kind {
            "cuts" => args.proxied_servers.is_some(),
            // A topic can only be unavailable together with its broker.
            "outage" => self.sink == Sink::Postgres,
            "broker" => args.broker_script.is_some(),
            // The others have no transactions in Kafka.
            "aborts" => self.guarantee == Guarantee::ExactlyOnce || self.sink == Sink::Postgres,
            _ => true,
        }
    }

    fn faults(&self, args: &SoakArgs) -> Faults {
        let default = self.guarantee == Guarantee::AtLeastOnce && self.ordering == Ordering::PerPartition;
        let count = |asked: Option<u32>, full, quick| asked.unwrap_or(if args.quick { quick } else { full });
        let mut faults = Faults::default();
        if let Some((_, fault)) = CLUSTER_KINDS.iter().find(|(kind, _)| *kind == self.kind) {
            faults.cluster = Some((*fault, count(args.broker_faults, 100, 2)));
            return faults;
        }
        match self.kind {
            "kills" if default => faults.kills = count(args.kills, 1000, 30),
            "kills" => faults.kills = count(args.kills, 300, 20),
            "restarts" => faults.restarts = count(args.restarts, 100, 10),
            "cuts" => faults.cuts = count(args.cuts, 100, 10),
            "aborts" => faults.fences = count(args.aborts, 300, 20),
            "storms" => faults.storms = count(args.storms, 50, 5),
            "growth" => faults.growths = count(args.growths, 20, 2),
            "broker" => faults.broker_restarts = count(args.broker_restarts, 20, 2),
            "outage" => {
                faults.outage_seconds = args.outage_seconds.unwrap_or(if args.quick { 30 } else { 600 });
            }
            _ => {
                faults.zombies = count(
                    args.zombies,
                    if default { 50 } else { 25 },
                    if default { 5 } else { 2 },
                );
                faults.zombie_seconds = args.zombie_seconds.unwrap_or(if args.quick { 5 } else { 60 });
            }
        }
        faults
    }

    fn scenario(&self, args: &SoakArgs) -> Scenario {
        let faults = self.faults(args);
        let crashes = faults.kills + faults.zombies > 0;
        let plain = Scenario::new(self.kind);
        Scenario {
            guarantee: self.guarantee,
            ordering: self.ordering,
            sink: self.sink,
            workers: 4,
            partitions: if self.kind == "growth" { 6 } else { 12 },
            // Workers can only work off a backlog if they are faster than the feed.
            rate: if args.quick || self.kind == "outage" {
                1000
            } else {
                2000
            },
            batch: 50,
            records: match (args.records, self.kind, self.guarantee, self.ordering, self.sink) {
                (Some(records), ..) => records,
                (None, "kills", Guarantee::AtLeastOnce, Ordering::PerPartition, Sink::Kafka)
                    if !args.quick =>
                {
                    5_000_000
                }
                _ => 0,
            },
            session: if crashes {
                SESSION_OF_A_CRASH
            } else {
                plain.session
            },
            faults,
            seed: args.seed.unwrap_or_else(random_seed),
            // A zombie that is frozen for a minute must not make the group look stuck.
            patience: plain.patience + Duration::from_secs(faults.zombie_seconds),
            ..plain
        }
    }
}

/// The selected scenarios, in the order of running.
pub(super) fn scenarios(args: &SoakArgs) -> Vec<Scenario> {
    wishes(args)
        .into_iter()
        .filter(|wish| args.wants(wish.kind) && wish.makes_sense(args))
        .map(|wish| wish.scenario(args))
        .collect()
}

fn cluster_wishes(args: &SoakArgs) -> Vec<Wish> {
    let wanted = |(guarantee, sink): &(Guarantee, Sink)| {
        (args.guarantee.is_empty() || args.guarantee.contains(guarantee))
            && (args.sink.is_empty() || args.sink.contains(sink))
    };
    let chosen = CLUSTER_CHOICE.into_iter().filter(wanted);
    chosen
        .flat_map(|(guarantee, sink)| {
            CLUSTER_KINDS.map(|(kind, _)| Wish {
                kind,
                guarantee,
                ordering: Ordering::PerPartition,
                sink,
            })
        })
        .collect()
}

fn wishes(args: &SoakArgs) -> Vec<Wish> {
    if args.cluster_script.is_some() {
        return cluster_wishes(args);
    }
    let with = |guarantee, ordering, sink, kinds: &[&'static str]| -> Vec<Wish> {
        let wish = |kind: &&'static str| Wish {
            kind,
            guarantee,
            ordering,
            sink,
        };
        kinds.iter().map(wish).collect()
    };
    if args.guarantee.is_empty() && args.ordering.is_empty() && args.sink.is_empty() {
        let choice = CHOICE.iter();
        return choice
            .flat_map(|(guarantee, ordering, sink, kinds)| with(*guarantee, *ordering, *sink, kinds))
            .collect();
    }
    let mut wishes = Vec::new();
    for guarantee in or(&args.guarantee, Guarantee::AtLeastOnce) {
        for ordering in or(&args.ordering, Ordering::PerPartition) {
            for sink in or(&args.sink, Sink::Kafka) {
                wishes.extend(with(guarantee, ordering, sink, &KINDS));
            }
        }
    }
    wishes
}

fn or<T: Copy>(asked: &[T], default: T) -> Vec<T> {
    if asked.is_empty() {
        vec![default]
    } else {
        asked.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn scenarios_of(arguments: &str) -> Vec<Scenario> {
        let all = format!(
            "soak --bootstrap-servers a:1 --proxied-servers a:2 --proxy-address 127.0.0.1:3 --broker-script x {arguments}"
        );
        scenarios(&SoakArgs::parse_from(all.split_whitespace()))
    }

    fn shown(scenarios: &[Scenario]) -> Vec<String> {
        scenarios
            .iter()
            .map(|scenario| {
                let Scenario {
                    guarantee,
                    ordering,
                    sink,
                    faults,
                    ..
                } = scenario;
                format!("{guarantee} {ordering} {sink} {faults}")
            })
            .collect()
    }

    #[test]
    fn a_soak_by_default_has_all_faults_of_the_default_settings_and_a_selection_of_the_others() {
        assert_eq!(
            shown(&scenarios_of("")),
            [
                "AtLeastOnce PerPartition Kafka 1000 kills",
                "AtLeastOnce PerPartition Kafka 100 restarts",
                "AtLeastOnce PerPartition Kafka 50 zombies",
                "AtLeastOnce PerPartition Kafka 100 cuts",
                "AtLeastOnce PerPartition Kafka 50 rebalance storms",
                "AtLeastOnce PerPartition Kafka 20 growths",
                "AtLeastOnce PerPartition Kafka 20 broker restarts",
                "AtLeastOnce PerPartition Postgres an outage of 600 s",
                "AtMostOnce PerPartition Kafka 300 kills",
                "AtMostOnce PerPartition Kafka 20 growths",
                "AtMostOnce PerPartition Kafka 20 broker restarts",
                "ExactlyOnce PerPartition Kafka 300 kills",
                "ExactlyOnce PerPartition Kafka 300 forced aborts",
                "ExactlyOnce PerPartition Kafka 25 zombies",
                "ExactlyOnce PerPartition Kafka 50 rebalance storms",
                "ExactlyOnce PerPartition Kafka 20 growths",
                "ExactlyOnce PerPartition Kafka 20 broker restarts",
                "ExactlyOnce PerPartition Postgres 300 kills",
                "ExactlyOnce PerPartition Postgres 300 forced aborts",
                "ExactlyOnce PerPartition Postgres 25 zombies",
                "ExactlyOnce PerPartition Postgres 20 growths",
                "ExactlyOnce PerPartition Postgres 20 broker restarts",
                "ExactlyOnce PerPartition Postgres an outage of 600 s",
                "AtLeastOnce PerKey Kafka 300 kills",
                "AtLeastOnce PerKey Kafka 25 zombies",
                "AtLeastOnce Unordered Kafka 300 kills",
                "AtMostOnce PerKey Kafka 300 kills",
                "AtMostOnce Unordered Kafka 300 kills",
                "ExactlyOnce PerKey Kafka 300 kills",
                "ExactlyOnce PerKey Kafka 300 forced aborts",
                "ExactlyOnce PerKey Postgres 300 kills",
            ]
        );
    }

    #[test]
    fn a_cluster_has_each_of_its_faults_with_every_guarantee_and_writer() {
        let all = scenarios_of("--cluster-script y");
        assert_eq!(all.len(), 35);
        assert!(
            all.iter()
                .all(|scenario| scenario.faults.cluster.is_some_and(|(_, count)| count == 100))
        );
        assert_eq!(
            shown(&scenarios_of(
                "--cluster-script y --quick --guarantee ExactlyOnce --scenario min-isr --scenario rolling"
            )),
            [
                "ExactlyOnce PerPartition Kafka 2 rolling broker restarts",
                "ExactlyOnce PerPartition Kafka 2 kills of two brokers",
                "ExactlyOnce PerPartition Postgres 2 rolling broker restarts",
                "ExactlyOnce PerPartition Postgres 2 kills of two brokers",
            ]
        );
    }

    #[test]
    fn every_guarantee_is_tested_with_every_ordering_that_it_allows() {
        let scenarios = scenarios_of("");
        for (guarantee, orderings) in [
            (
                Guarantee::AtLeastOnce,
                &[Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered][..],
            ),
            (
                Guarantee::AtMostOnce,
                &[Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered],
            ),
            (
                Guarantee::ExactlyOnce,
                &[Ordering::PerPartition, Ordering::PerKey],
            ),
        ] {
            for ordering in orderings {
                let killed = scenarios.iter().any(|scenario| {
                    (scenario.guarantee, scenario.ordering) == (guarantee, *ordering)
                        && scenario.faults.kills > 0
                });
                assert!(killed, "{guarantee} {ordering}");
            }
        }
    }

    #[test]
    fn a_quick_soak_has_the_same_scenarios_with_a_tenth_of_the_faults_or_less() {
        let (full, quick) = (scenarios_of(""), scenarios_of("--quick"));
        assert_eq!(full.len(), quick.len());
        let count = |faults: &Faults| {
            faults.kills
                + faults.restarts
                + faults.zombies
                + faults.cuts
                + faults.fences
                + faults.storms
                + faults.growths
                + faults.broker_restarts
                + faults.outage_seconds as u32
        };
        for (full, quick) in full.iter().zip(&quick) {
            assert_eq!(
                (full.guarantee, full.ordering, full.sink),
                (quick.guarantee, quick.ordering, quick.sink)
            );
            assert!(count(&quick.faults) > 0 && count(&quick.faults) * 10 <= count(&full.faults));
        }
    }

    #[test]
    fn guarantees_orderings_and_sinks_are_combined_and_scenarios_without_a_target_are_skipped() {
        let scenarios = scenarios_of(
            "--guarantee AtLeastOnce --guarantee ExactlyOnce --sink Postgres --scenario aborts --aborts 7",
        );
        assert_eq!(
            shown(&scenarios),
            [
                "AtLeastOnce PerPartition Postgres 7 forced aborts",
                "ExactlyOnce PerPartition Postgres 7 forced aborts",
            ]
        );
        assert!(scenarios_of("--guarantee AtLeastOnce --scenario aborts").is_empty());
        let both =
            scenarios_of("--ordering PerKey --sink Kafka --sink Postgres --scenario kills --records 5");
        assert_eq!(
            shown(&both),
            [
                "AtLeastOnce PerKey Kafka 300 kills",
                "AtLeastOnce PerKey Postgres 300 kills",
            ]
        );
        assert!(both.iter().all(|scenario| scenario.records == 5));
    }
}
