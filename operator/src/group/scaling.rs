//! The number of workers of a group. In: the spec and the number of partitions. Out: a number, what limited
//! it, and a sentence that explains it. Pure; never guesses: an unknown partition count changes nothing.

use crds::spec::{DEFAULT_MAX_REPLICAS, DesiredState, KafkaConsumerGroupSpec, ScalingMode};

use super::wording::count;

/// The input of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalingFacts<'a> {
    /// Partitions of all input topics; None: unknown.
    pub partitions: Option<i32>,
    /// Workers of the last decision; None: there is no earlier decision.
    pub current: Option<i32>,
    /// Whether workers would start where the spec says.
    pub start: Start,
    /// The KafkaOffsetReset that sets the offsets of the group, which Kafka allows only without workers.
    pub hold: Option<&'a str>,
}

/// Whether the start positions of all topics are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They are, or need no commit.
    Ready,
    /// Not yet: workers would start elsewhere.
    Waiting,
    /// A topic joins a group that has members, and Kafka takes positions only of a group without: its workers
    /// stop first.
    Draining,
}

/// Why the number of workers differs from the number that the scaling mode recommends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    Partitions,
    MinReplicas,
    MaxReplicas,
    Unknown,
}

impl Limit {
    /// The value of `status.scaling.limitedBy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Partitions => "Partitions",
            Self::MinReplicas => "MinReplicas",
            Self::MaxReplicas => "MaxReplicas",
            Self::Unknown => "Unknown",
        }
    }
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Workers to run.
    pub replicas: i32,
    /// Workers that the mode recommends, before limits; None: unknown.
    pub recommended: Option<i32>,
    pub limited_by: Limit,
    /// The explanation.
    pub reason: String,
}

/// Decides. `Stopped` has precedence, then an offset reset, then an unknown partition count, then the limits.
pub fn decide(spec: &KafkaConsumerGroupSpec, facts: ScalingFacts<'_>) -> Decision {
    let scaling = &spec.scaling;
    let min = scaling.min_replicas;
    let recommended = recommend(spec, facts);
    let none = |reason| Decision {
        replicas: 0,
        recommended,
        limited_by: Limit::None,
        reason,
    };
    if spec.desired_state == DesiredState::Stopped {
        return none("desiredState is Stopped".into());
    }
    if let Some(reset) = facts.hold {
        return none(held(reset));
    }
    let waits = |replicas, reason: &str| Decision {
        replicas,
        recommended,
        limited_by: Limit::Unknown,
        reason: reason.into(),
    };
    match facts.start {
        Start::Ready => {}
        Start::Waiting => {
            let reason = "workers start after the start positions are committed, which requires Kafka";
            return waits(facts.current.unwrap_or(0), reason);
        }
        Start::Draining => {
            return waits(
                0,
                "a topic was added whose start position is not Earliest: the workers stop, its position is committed while the group has no members, and the workers start again",
            );
        }
    }
    let (Some(partitions), Some(wanted)) = (facts.partitions, recommended) else {
        // The last number stays; a group that was stopped, or never ran, starts with its minimum.
        let replicas = facts.current.filter(|current| *current > 0).unwrap_or(min);
        return Decision {
            replicas,
            recommended,
            limited_by: Limit::Unknown,
            reason: format!(
                "the number of partitions is unknown, so the number of workers stays at {replicas}"
            ),
        };
    };
    let max = scaling.max_replicas.unwrap_or(match scaling.mode {
        ScalingMode::PartitionCount => DEFAULT_MAX_REPLICAS.max(min),
        ScalingMode::Manual => i32::MAX,
    });
    let demand = demand(spec, partitions, wanted);
    let (mut replicas, mut limited_by, mut reason) = (wanted, Limit::None, demand.clone());
    if replicas > max {
        (replicas, limited_by) = (max, Limit::MaxReplicas);
        reason = if scaling.max_replicas.is_some() {
            format!("{demand}, limited by maxReplicas {max}")
        } else {
            format!(
                "{demand}, limited by the default of spec.scaling.maxReplicas, {max}; set it to run more workers, or raise partitionsPerWorker"
            )
        };
    }
    if replicas < min {
        (replicas, limited_by) = (min, Limit::MinReplicas);
        reason = format!("{demand}, raised to minReplicas {min}");
        if wanted == 0 {
            reason.push_str("; to run no workers set desiredState to Stopped");
        }
    }
    // Checked last, so that no other limit can exceed it: a worker without a partition is idle.
    if replicas > partitions {
        (replicas, limited_by) = (partitions, Limit::Partitions);
        reason = format!(
            "{demand}, limited by {}: more workers would be idle",
            count(partitions, "partition")
        );
    }
    Decision {
        replicas,
        recommended: Some(wanted),
        limited_by,
        reason,
    }
}

/// Why a group has no workers while an offset reset holds it.
pub fn held(reset: &str) -> String {
    format!(
        "KafkaOffsetReset {reset} sets the offsets of the group, which has no workers until it ends; to cancel it: kubectl delete kor {reset}"
    )
}

/// The recommendation of the mode, before limits.
fn recommend(spec: &KafkaConsumerGroupSpec, facts: ScalingFacts<'_>) -> Option<i32> {
    match spec.scaling.mode {
        // Cooperative-sticky distributes the partitions of all topics over the members, so their sum counts.
        ScalingMode::PartitionCount => facts
            .partitions
            .filter(|partitions| *partitions > 0)
            .map(|partitions| (partitions - 1) / spec.scaling.partitions_per_worker.max(1) + 1),
        ScalingMode::Manual => Some(
            spec.replicas
                .or(facts.current.filter(|n| *n > 0))
                .unwrap_or(spec.scaling.min_replicas),
        ),
    }
}

fn demand(spec: &KafkaConsumerGroupSpec, partitions: i32, wanted: i32) -> String {
    match spec.scaling.mode {
        ScalingMode::PartitionCount => format!(
            "{} at {} per worker: {} needed",
            count(partitions, "partition"),
            spec.scaling.partitions_per_worker.max(1),
            count(wanted, "worker")
        ),
        ScalingMode::Manual => format!("mode Manual requests {}", count(wanted, "worker")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::group;
    use proptest::prelude::*;

    fn spec(edit: impl FnOnce(&mut KafkaConsumerGroupSpec)) -> KafkaConsumerGroupSpec {
        let mut spec = group().spec;
        edit(&mut spec);
        spec
    }

    fn facts(partitions: impl Into<Option<i32>>, current: impl Into<Option<i32>>) -> ScalingFacts<'static> {
        ScalingFacts {
            partitions: partitions.into(),
            current: current.into(),
            start: Start::Ready,
            hold: None,
        }
    }

    #[test]
    fn by_default_each_partition_has_one_worker_also_after_growth() {
        let spec = spec(|_| {});
        assert_eq!(decide(&spec, facts(6, None)).replicas, 6);
        let grown = decide(&spec, facts(9, 6));
        assert_eq!((grown.replicas, grown.limited_by), (9, Limit::None));
        assert_eq!(grown.reason, "9 partitions at 1 per worker: 9 workers needed");
    }

    #[test]
    fn partitions_per_worker_rounds_up() {
        let spec = spec(|spec| spec.scaling.partitions_per_worker = 4);
        assert_eq!(decide(&spec, facts(9, None)).replicas, 3);
        assert_eq!(decide(&spec, facts(8, None)).replicas, 2);
    }

    #[test]
    fn limits_are_named() {
        let capped = spec(|spec| spec.scaling.max_replicas = Some(4));
        assert_eq!(decide(&capped, facts(6, None)).limited_by, Limit::MaxReplicas);
        let raised = spec(|spec| {
            spec.scaling.partitions_per_worker = 6;
            spec.scaling.min_replicas = 2;
        });
        assert_eq!(decide(&raised, facts(6, None)).limited_by, Limit::MinReplicas);
        let few = spec(|spec| spec.scaling.min_replicas = 8);
        let decision = decide(&few, facts(6, None));
        assert_eq!((decision.replicas, decision.limited_by), (6, Limit::Partitions));
    }

    #[test]
    fn very_many_partitions_get_a_hundred_workers_and_the_field_to_raise() {
        let decision = decide(&spec(|_| {}), facts(1000, None));
        assert_eq!(
            (decision.replicas, decision.limited_by),
            (100, Limit::MaxReplicas)
        );
        assert!(
            decision.reason.contains("spec.scaling.maxReplicas"),
            "{}",
            decision.reason
        );
        let raised = spec(|spec| spec.scaling.max_replicas = Some(1000));
        assert_eq!(decide(&raised, facts(1000, None)).replicas, 1000);
        let minimum = spec(|spec| spec.scaling.min_replicas = 150);
        assert_eq!(decide(&minimum, facts(1000, None)).replicas, 150);
        let manual = spec(|spec| {
            spec.scaling.mode = ScalingMode::Manual;
            spec.replicas = Some(300);
        });
        assert_eq!(decide(&manual, facts(1000, None)).replicas, 300);
    }

    #[test]
    fn a_single_partition_is_singular() {
        let decision = decide(&spec(|_| {}), facts(1, None));
        assert_eq!(decision.reason, "1 partition at 1 per worker: 1 worker needed");
    }

    #[test]
    fn stopped_means_none_even_when_nothing_is_known() {
        let spec = spec(|spec| spec.desired_state = DesiredState::Stopped);
        assert_eq!(decide(&spec, facts(None, 6)).replicas, 0);
    }

    #[test]
    fn an_offset_reset_holds_the_group_at_no_worker_whatever_else_is_known() {
        let held = |spec: &KafkaConsumerGroupSpec, partitions: Option<i32>, start| {
            let hold = Some("again");
            let facts = facts(partitions, 6);
            decide(spec, ScalingFacts { start, hold, ..facts })
        };
        for start in [Start::Ready, Start::Waiting, Start::Draining] {
            for partitions in [None, Some(6)] {
                let decision = held(&spec(|_| {}), partitions, start);
                assert_eq!((decision.replicas, decision.limited_by), (0, Limit::None));
                assert!(decision.reason.contains("KafkaOffsetReset again"), "{decision:?}");
            }
        }
        let stopped = spec(|spec| spec.desired_state = DesiredState::Stopped);
        let decision = held(&stopped, Some(6), Start::Ready);
        assert_eq!(decision.reason, "desiredState is Stopped");
    }

    #[test]
    fn unknown_partitions_keep_the_current_number_and_a_restart_after_stop_uses_the_minimum() {
        let spec = spec(|spec| spec.scaling.min_replicas = 2);
        assert_eq!(decide(&spec, facts(None, 6)).replicas, 6);
        assert_eq!(decide(&spec, facts(None, 0)).replicas, 2);
        assert_eq!(decide(&spec, facts(None, None)).replicas, 2);
        assert_eq!(decide(&spec, facts(None, 6)).limited_by, Limit::Unknown);
    }

    #[test]
    fn no_worker_starts_before_its_start_position_is_committed() {
        let decision = decide(
            &spec(|_| {}),
            ScalingFacts {
                start: Start::Waiting,
                ..facts(6, None)
            },
        );
        assert_eq!((decision.replicas, decision.limited_by), (0, Limit::Unknown));
        let draining = ScalingFacts {
            start: Start::Draining,
            ..facts(6, 4)
        };
        let decision = decide(&spec(|_| {}), draining);
        assert_eq!((decision.replicas, decision.limited_by), (0, Limit::Unknown));
    }

    #[test]
    fn manual_follows_spec_replicas_and_says_how_to_stop() {
        let manual = |replicas| {
            spec(|spec| {
                spec.scaling.mode = ScalingMode::Manual;
                spec.replicas = replicas;
            })
        };
        assert_eq!(decide(&manual(Some(3)), facts(6, 1)).replicas, 3);
        assert_eq!(
            decide(&manual(Some(9)), facts(6, 1)).limited_by,
            Limit::Partitions
        );
        assert_eq!(decide(&manual(None), facts(6, 4)).replicas, 4);
        let none = decide(&manual(Some(0)), facts(6, 4));
        assert_eq!(none.replicas, 1);
        assert!(none.reason.contains("Stopped"), "{}", none.reason);
    }

    proptest! {
        #[test]
        fn the_limits_always_hold(
            partitions in prop::option::of(1..2000i32),
            current in prop::option::of(0..2000i32),
            per_worker in 1..50i32,
            min in 1..1000i32,
            above_min in prop::option::of(0..500i32),
            manual in prop::option::of(0..1000i32),
        ) {
            let spec = spec(|spec| {
                spec.scaling.partitions_per_worker = per_worker;
                spec.scaling.min_replicas = min;
                spec.scaling.max_replicas = above_min.map(|above| min + above);
                if manual.is_some() {
                    spec.scaling.mode = ScalingMode::Manual;
                    spec.replicas = manual;
                }
            });
            let decision = decide(&spec, facts(partitions, current));
            match partitions {
                Some(partitions) => {
                    prop_assert!(decision.replicas <= partitions);
                    prop_assert!(spec.scaling.max_replicas.is_none_or(|max| decision.replicas <= max));
                    prop_assert!(decision.replicas >= min.min(partitions));
                    prop_assert_ne!(decision.limited_by, Limit::Unknown);
                }
                None => {
                    prop_assert_eq!(decision.replicas, current.filter(|n| *n > 0).unwrap_or(min));
                    prop_assert_eq!(decision.limited_by, Limit::Unknown);
                }
            }
        }
    }
}
