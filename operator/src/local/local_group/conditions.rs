//! The conditions of a local group. In: what Kafka, the supervisor and the workers say. Out: the conditions of
//! the resource that have a meaning without Kubernetes, with the reasons that the operator uses. Pure.

use crds::spec::DesiredState;
use crds::status::{PausedReason, condition};
use jiff::Timestamp;

use crate::api::model::{Condition, Partition, Truth};
use crate::group::members::SharedGroup;
use crate::group::rejection::Finding;
use crate::group::wording::count;
use crate::kafka::model::{KafkaFacts, KafkaProblem};

/// What the conditions are computed from.
pub struct Inputs<'a> {
    pub state: DesiredState,
    pub warning: Option<&'a Finding>,
    pub problem: Option<&'a KafkaProblem>,
    pub known: Option<&'a KafkaFacts>,
    /// Other members of the consumer group, if they may take records.
    pub shared: Option<&'a SharedGroup>,
    /// Workers that should run, and why.
    pub wanted: usize,
    pub why: &'a str,
    pub alive: usize,
    /// Workers that are alive and members of the group.
    pub consuming: usize,
    /// Workers that have exited without being asked to, with the number of exits in a row.
    pub exited: &'a [(String, u32)],
    pub partitions: &'a [Partition],
}

/// All conditions, Ready first.
pub fn conditions(inputs: &Inputs<'_>) -> Vec<Condition> {
    let accepted = accepted(inputs);
    let reachable = reachable(inputs);
    let available = available(inputs);
    let consuming = consuming(inputs);
    let ready = ready(inputs, [&accepted, &reachable, &available, &consuming]);
    vec![
        ready,
        accepted,
        reachable,
        lag_known(inputs),
        available,
        consuming,
    ]
}

fn new(kind: &'static str, status: Truth, reason: &str, message: impl Into<String>) -> Condition {
    Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message: message.into(),
        // The board keeps the time of the last change.
        last_transition_time: Timestamp::UNIX_EPOCH,
    }
}

fn accepted(inputs: &Inputs<'_>) -> Condition {
    match inputs.warning {
        Some(warning) => new(condition::ACCEPTED, Truth::True, warning.reason, &warning.message),
        None => new(
            condition::ACCEPTED,
            Truth::True,
            "Accepted",
            "the spec and everything it references are valid",
        ),
    }
}

fn reachable(inputs: &Inputs<'_>) -> Condition {
    let kind = condition::KAFKA_REACHABLE;
    match (inputs.problem, inputs.known) {
        (Some(problem), _) => new(kind, Truth::False, problem.reason(), problem.to_string()),
        (None, Some(_)) => new(kind, Truth::True, "BrokersAnswer", "the brokers respond"),
        (None, None) => new(
            kind,
            Truth::Unknown,
            "NotAsked",
            "waiting for the first answer from Kafka",
        ),
    }
}

fn lag_known(inputs: &Inputs<'_>) -> Condition {
    let kind = condition::LAG_KNOWN;
    match (inputs.problem, inputs.known) {
        (None, Some(facts)) if facts.lag.is_some() => new(
            kind,
            Truth::True,
            "LagRead",
            "committed offsets and end offsets of all partitions are known",
        ),
        (None, Some(_)) => new(
            kind,
            Truth::False,
            "LagUnknown",
            "not all committed offsets and end offsets could be read; unknown lag is not counted as 0",
        ),
        _ => new(
            kind,
            Truth::False,
            "KafkaNotRead",
            "Kafka could not be queried; see condition KafkaReachable",
        ),
    }
}

fn available(inputs: &Inputs<'_>) -> Condition {
    let kind = condition::WORKERS_AVAILABLE;
    let Inputs { wanted, alive, .. } = *inputs;
    if inputs.state == DesiredState::Stopped {
        return match alive {
            0 => new(
                kind,
                Truth::True,
                "Stopped",
                "no workers run, as desiredState requests",
            ),
            left => new(
                kind,
                Truth::False,
                "Stopping",
                format!("{} left to drain", count(left, "worker")),
            ),
        };
    }
    if let Some((name, exits)) = inputs.exited.iter().max_by_key(|(_, exits)| *exits) {
        let message = format!(
            "worker {name} has ended {} in a row and is restarted; its last log lines are among the events",
            count(*exits, "time")
        );
        return new(kind, Truth::False, "CrashLoopBackOff", message);
    }
    if wanted == 0 {
        return new(kind, Truth::False, "NoWorkers", inputs.why);
    }
    if alive == wanted && inputs.consuming == wanted {
        let message = format!("{wanted} of {} ready", count(wanted, "worker"));
        return new(kind, Truth::True, "AllWorkersReady", message);
    }
    if let Some(refuses) = inputs.shared.and_then(|shared| shared.refuses.as_ref()) {
        return new(kind, Truth::False, "GroupRefusesWorkers", refuses);
    }
    let message = format!(
        "{} of {} ready, {alive} running",
        inputs.consuming,
        count(wanted, "worker")
    );
    new(kind, Truth::False, "Progressing", message)
}

/// What a user can do, for problems whose errors do not say it.
fn what_to_do(reason: PausedReason) -> &'static str {
    match reason {
        PausedReason::RecordFailed => {
            "; correct the transform or what refuses the record, or set errorHandling.deadLetter so that the partition continues without it"
        }
        PausedReason::OffsetOutOfRange => {
            "; set consumer.onOffsetOutOfRange to say where to continue, or reset the group's offsets"
        }
        PausedReason::TopicRecreated => {
            "; set consumer.onTopicRecreated to read the new topic from its first record"
        }
        PausedReason::DeadLetterBreakerOpen => {
            "; too many records fail: correct the transform or the records' producer, see errorHandling.deadLetter.breaker"
        }
        _ => "",
    }
}

fn consuming(inputs: &Inputs<'_>) -> Condition {
    let kind = condition::CONSUMING;
    match inputs.state {
        DesiredState::Stopped => {
            let message = "desiredState is Stopped; committed offsets are kept";
            return new(kind, Truth::False, "Stopped", message);
        }
        _ if inputs.shared.is_some() => {
            let message = inputs.shared.map_or("", |shared| &shared.message);
            return new(kind, Truth::False, "GroupShared", message);
        }
        DesiredState::Paused => {
            let message = "desiredState is Paused; workers keep their partitions and fetch no records";
            return new(kind, Truth::False, "Paused", message);
        }
        DesiredState::Running => {}
    }
    let stuck = |partition: &&Partition| {
        let reason = partition.paused_reason.as_deref().and_then(PausedReason::named);
        reason.is_some_and(PausedReason::is_problem) || partition.stalled_since.is_some()
    };
    let stuck: Vec<&Partition> = inputs.partitions.iter().filter(stuck).collect();
    if let Some(first) = stuck.first() {
        let oldest = first.oldest.as_ref();
        let offset = oldest.map_or(String::new(), |oldest| {
            format!("@{}", oldest.error_offset.unwrap_or(oldest.offset))
        });
        let place = format!("{}-{}{offset}", first.topic, first.partition);
        // Errors of records begin with their place.
        let error = oldest.and_then(|oldest| oldest.last_error.as_deref());
        let what = match error {
            Some(error) if error.starts_with(&place) => error.to_string(),
            Some(error) => format!("{place}: {error}"),
            None => place,
        };
        let named = first.paused_reason.as_deref().and_then(PausedReason::named);
        let action = named.map_or("", what_to_do);
        let message = format!(
            "{} without progress; {what}{action}",
            count(stuck.len(), "partition")
        );
        let reason = first.paused_reason.as_deref().unwrap_or("PartitionsStalled");
        return new(kind, Truth::False, reason, message);
    }
    let (owned, all) = (
        inputs.partitions.iter().filter(|it| it.worker.is_some()).count(),
        inputs.partitions.len(),
    );
    match inputs.known {
        None => new(
            kind,
            Truth::Unknown,
            "KafkaNotRead",
            "Kafka could not be queried; see condition KafkaReachable",
        ),
        Some(_) if all > 0 && owned == all => new(
            kind,
            Truth::True,
            "Consuming",
            "every partition is being consumed",
        ),
        Some(_) => new(
            kind,
            Truth::False,
            "PartitionsNotOwned",
            format!("{owned} of {} assigned to a worker", count(all, "partition")),
        ),
    }
}

fn ready(inputs: &Inputs<'_>, in_order: [&Condition; 4]) -> Condition {
    let kind = condition::READY;
    let [accepted, reachable, available, consuming] = in_order;
    let no = |why: &Condition| new(kind, Truth::False, &why.reason, &why.message);
    if inputs.state == DesiredState::Stopped {
        return new(kind, available.status, &available.reason, &available.message);
    }
    if let Some(missing) = [accepted, reachable, available]
        .into_iter()
        .find(|condition| condition.status != Truth::True)
    {
        return no(missing);
    }
    match (inputs.state, consuming.status) {
        (DesiredState::Paused, _) => new(kind, Truth::True, "Paused", &consuming.message),
        (_, Truth::True) => new(
            kind,
            Truth::True,
            "AllPartitionsConsumed",
            "every partition is being consumed",
        ),
        _ => no(consuming),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::fixtures::facts;

    fn partition(worker: Option<&str>) -> Partition {
        Partition {
            topic: "orders".into(),
            worker: worker.map(String::from),
            ..Partition::default()
        }
    }

    fn ready_of(change: impl FnOnce(&mut Inputs<'_>), partitions: &[Partition]) -> (Truth, String, String) {
        let facts = facts(&[("orders", Some(1))]);
        let mut inputs = Inputs {
            state: DesiredState::Running,
            warning: None,
            problem: None,
            known: Some(&facts),
            shared: None,
            wanted: 1,
            why: "topic orders does not exist",
            alive: 1,
            consuming: 1,
            exited: &[],
            partitions,
        };
        change(&mut inputs);
        let ready = conditions(&inputs).remove(0);
        (ready.status, ready.reason, ready.message)
    }

    #[test]
    fn ready_names_the_first_thing_that_is_wrong() {
        let (owned, free) = ([partition(Some("orders-0"))], [partition(None)]);
        let reason = |change: fn(&mut Inputs<'_>), partitions: &[Partition]| {
            let (status, reason, _) = ready_of(change, partitions);
            (status, reason)
        };
        let is = |status, reason: &str| (status, reason.to_string());
        assert_eq!(reason(|_| (), &owned), is(Truth::True, "AllPartitionsConsumed"));
        assert_eq!(reason(|_| (), &free), is(Truth::False, "PartitionsNotOwned"));
        assert_eq!(reason(|it| it.known = None, &owned), is(Truth::False, "NotAsked"));
        assert_eq!(reason(|it| it.wanted = 0, &owned), is(Truth::False, "NoWorkers"));
        assert_eq!(
            reason(|it| it.consuming = 0, &owned),
            is(Truth::False, "Progressing")
        );
        static SHARED: LazyLock<SharedGroup> = LazyLock::new(|| SharedGroup {
            message: "client.id \"x\"".into(),
            refuses: None,
        });
        assert_eq!(
            reason(|it| it.shared = Some(&SHARED), &owned),
            is(Truth::False, "GroupShared")
        );
        let paused: fn(&mut Inputs<'_>) = |it| it.state = DesiredState::Paused;
        assert_eq!(reason(paused, &owned), is(Truth::True, "Paused"));
        let stopping: fn(&mut Inputs<'_>) = |it| it.state = DesiredState::Stopped;
        assert_eq!(reason(stopping, &owned), is(Truth::False, "Stopping"));
        let stopped: fn(&mut Inputs<'_>) = |it| (it.state, it.alive) = (DesiredState::Stopped, 0);
        assert_eq!(reason(stopped, &owned), is(Truth::True, "Stopped"));
    }

    #[test]
    fn a_partition_that_is_stuck_is_named_with_its_error() {
        let mut stuck = partition(Some("orders-0"));
        stuck.paused_reason = Some("RecordFailed".into());
        stuck.oldest = Some(crate::api::model::Oldest {
            offset: 7,
            since: Timestamp::UNIX_EPOCH,
            attempts: 3,
            last_error: Some("transform clean: no amount".into()),
            error_offset: None,
        });
        let (status, reason, message) = ready_of(|_| (), &[stuck.clone()]);
        assert_eq!((status, reason.as_str()), (Truth::False, "RecordFailed"));
        assert!(
            message.contains("orders-0@7: transform clean: no amount; correct the transform"),
            "{message}"
        );
        // Waiting for an older record passes on its own.
        stuck.paused_reason = Some("OldestUnfinished".into());
        assert_eq!(ready_of(|_| (), &[stuck]).0, Truth::True);
    }

    #[test]
    fn a_worker_that_exits_again_and_again_is_named() {
        let exited = [("orders-1".to_string(), 4)];
        let partitions = [partition(Some("orders-0"))];
        let facts = facts(&[("orders", Some(1))]);
        let inputs = Inputs {
            state: DesiredState::Running,
            warning: None,
            problem: None,
            known: Some(&facts),
            shared: None,
            wanted: 2,
            why: "",
            alive: 1,
            consuming: 1,
            exited: &exited,
            partitions: &partitions,
        };
        let ready = conditions(&inputs).remove(0);
        assert_eq!(ready.reason, "CrashLoopBackOff");
        assert!(
            ready.message.contains("orders-1 has ended 4 times"),
            "{}",
            ready.message
        );
    }
}
