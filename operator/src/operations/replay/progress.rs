//! How far a replay is, and why its Job has given up. In: the stored plan, what is committed, how its pods have ended.
//! Out: positions and messages. Pure.

use std::time::Duration;

use crds::replay::ReplayPartition;
use crds::worker_config::exit_code::PLAN_OUTDATED;
use crds::{KafkaConsumerGroup, KafkaReplay};
use kube::ResourceExt;

use super::workers::PodEnd;
use crate::group::rejection::Rejection;
use crate::group::replay;
use crate::group::wording::count;
use crate::kafka::model::{Partition, ResetPositions};

/// Time until the next look at what no watch reports.
pub const SOON: Duration = Duration::from_secs(2);

/// How far the workers are.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The plan with the positions that are known.
    pub partitions: Vec<ReplayPartition>,
    pub message: String,
    pub again: Duration,
}

/// The plan with the positions that are known now. A commit that is gone does not undo progress.
pub fn with_positions(planned: &[ReplayPartition], now: &ResetPositions) -> Vec<ReplayPartition> {
    let mut partitions = planned.to_vec();
    for planned in &mut partitions {
        let key: Partition = (planned.topic.clone(), planned.partition);
        let committed = now.partitions.get(&key).and_then(|position| position.committed);
        planned.position = committed.or(planned.position);
    }
    partitions
}

/// Everything is processed, and workers are left.
pub fn ending(partitions: Vec<ReplayPartition>) -> Running {
    Running {
        message: "everything is processed; waiting for the workers to end".into(),
        again: SOON,
        partitions,
    }
}

/// Thousands of partitions are half a megabyte of status, so they are looked at less often.
pub fn interval(partitions: usize) -> Duration {
    Duration::from_secs(3 + u64::try_from(partitions).unwrap_or(0) / 128)
}

/// What to know of a replay whose workers have ended, and whose group cannot say any more where Kafka is.
pub fn unconfirmed(replay: &KafkaReplay) -> String {
    let group_id = replay
        .status
        .as_ref()
        .and_then(|status| status.group_id.as_deref());
    format!(
        "that everything is processed is what the workers have reported; the operator could not ask Kafka, because the KafkaConsumerGroup was changed or deleted before the end, so the consumer group {} stays until its offsets expire",
        group_id.unwrap_or_default()
    )
}

/// Who does what, and what is in the way. A pod that has ended is replaced, so it matters only if none is left.
pub fn running(workers: i32, partitions: &[ReplayPartition], ends: &[PodEnd]) -> String {
    let totals = replay::totals(partitions);
    let mut message = format!(
        "workers: {workers}; to process: {} of {}",
        count(totals.records, "offset"),
        count(totals.partitions, "partition")
    );
    let mut matters = ends.iter().filter(|end| end.exit_code.is_none() || workers == 0);
    let first = matters.find_map(|end| Some((&end.name, end.problem.as_ref()?)));
    if let Some((pod, problem)) = first {
        message.push_str(&format!("; pod {pod}: {problem}"));
    }
    message
}

/// The workers have ended without an error, and offsets are left.
pub fn offsets_left(partitions: &[ReplayPartition]) -> Rejection {
    let totals = replay::totals(partitions);
    let left = totals.records.saturating_sub(totals.processed);
    Rejection::new(
        "WorkersFailed",
        format!(
            "a worker has ended with code 0, and {} of {} are not committed; a custom worker must return the exit code of run(); correct it, and create the replay again",
            count(left, "offset"),
            totals.records
        ),
    )
}

/// Why the Job has given up.
pub fn failure(group: &KafkaConsumerGroup, message: &str, ends: &[PodEnd]) -> Rejection {
    let code = |end: &&PodEnd| end.exit_code == Some(PLAN_OUTDATED.into());
    if let Some(outdated) = ends.iter().find(code) {
        let said = outdated.problem.as_deref().unwrap_or_default();
        return Rejection::new(
            "PlanOutdated",
            format!(
                "a topic was deleted, or created again, since the plan was made ({said}); create the replay again, if it is still wanted"
            ),
        );
    }
    let mut why = format!("the Job has given up: {message}");
    if let Some(problem) = ends.iter().find_map(|end| end.problem.as_ref()) {
        why.push_str(&format!("; a worker {problem}"));
    }
    Rejection::new(
        "WorkersFailed",
        format!(
            "{why}; correct the cause, for example in KafkaConsumerGroup {}, and create the replay again",
            group.name_any()
        ),
    )
}
