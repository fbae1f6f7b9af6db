//! Deletes the consumer groups of replays that have failed, or were deleted before they ended. In: replays. Out:
//! nothing; what cannot be deleted within minutes expires in Kafka by itself, and disturbs nobody, because no other
//! replay has the same group. Remembers nothing: after a restart of the operator, the groups that were waiting
//! expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::KafkaReplay;
use crds::replay::ReplayPhase;
use kube::ResourceExt;

use super::next_step::phase;
use super::workers;
use crate::controller::dereference::kafka_credentials;
use crate::controller::scope::Scope;
use crate::kafka::model::Deleted;
use crate::operations::queue::bounded;
use crate::operations::stored;

/// Time between two attempts. The workers leave the group while they are stopped.
const AGAIN: Duration = Duration::from_secs(10);
/// Time after which it gives up: the longest grace period of a worker, and some attempts.
const GIVE_UP: Duration = Duration::from_secs(3900);

/// Whether a replay that is deleted may have left a consumer group.
pub fn may_have_group(replay: &KafkaReplay) -> bool {
    let has_id = replay
        .status
        .as_ref()
        .is_some_and(|status| status.group_id.is_some());
    has_id && phase(replay) != ReplayPhase::Succeeded
}

/// Deletes the consumer group of a replay in the background.
pub fn start(scope: Arc<Scope>, replay: &KafkaReplay) {
    let status = replay.status.as_ref();
    let Some(group_id) = status.and_then(|status| status.group_id.clone()) else {
        return;
    };
    let namespace = replay.namespace().unwrap_or_default();
    let replay = without_plan(replay);
    tokio::spawn(async move {
        let started = Instant::now();
        loop {
            match attempt(&scope, &replay, &group_id).await {
                Ok(Deleted::Gone) => {
                    tracing::info!(namespace, group_id, "deleted the consumer group of a replay");
                    return;
                }
                Ok(Deleted::HasMembers) if started.elapsed() < GIVE_UP => {}
                Ok(Deleted::HasMembers) => {
                    tracing::warn!(
                        namespace,
                        group_id,
                        "the consumer group of a replay still has members, or pods of it are left; it stays until its offsets expire"
                    );
                    return;
                }
                Err(why) if started.elapsed() < GIVE_UP => {
                    tracing::debug!(
                        namespace,
                        group_id,
                        "the consumer group of a replay is not deleted yet: {why}"
                    );
                }
                Err(why) => {
                    tracing::warn!(
                        namespace,
                        group_id,
                        "the consumer group of a replay stays until its offsets expire: {why}"
                    );
                    return;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

/// The plan may have thousands of partitions, and is not needed for minutes.
fn without_plan(replay: &KafkaReplay) -> KafkaReplay {
    KafkaReplay {
        metadata: replay.metadata.clone(),
        spec: replay.spec.clone(),
        status: None,
    }
}

async fn attempt(scope: &Scope, replay: &KafkaReplay, group_id: &str) -> Result<Deleted, String> {
    // A worker that starts after the deletion finds no offsets, and would process everything again.
    let may_run = workers::may_run(scope, replay).await;
    if may_run.map_err(|error| error.to_string())? {
        return Ok(Deleted::HasMembers);
    }
    let namespace = replay.namespace().unwrap_or_default();
    let stored = stored::group(scope, &namespace, &replay.spec.group_ref.name).await;
    let stored = stored.map_err(|error| error.to_string())?;
    let group = stored.ok_or("the KafkaConsumerGroup does not exist")?.parsed?;
    let credentials = kafka_credentials(scope, &group).await;
    let credentials = credentials.map_err(|error| error.to_string())?;
    let credentials = credentials.map_err(|missing| missing.message)?;
    let kafka = &scope.context.kafka;
    let deleted = kafka.delete_group(&group.spec.kafka, &credentials, group_id);
    bounded(deleted).await.map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::replay;

    #[test]
    fn only_a_replay_that_has_not_succeeded_may_have_left_a_consumer_group() {
        let mut replay = replay("again", serde_json::json!({}));
        assert!(!may_have_group(&replay));
        for (phase, may) in [
            (ReplayPhase::Planned, true),
            (ReplayPhase::Running, true),
            (ReplayPhase::Failed, true),
            (ReplayPhase::Succeeded, false),
        ] {
            replay.status = Some(crds::KafkaReplayStatus {
                phase: Some(phase),
                group_id: Some("shop.orders.replay.again.1".into()),
                ..Default::default()
            });
            assert_eq!(may_have_group(&replay), may, "{phase}");
            replay.status.as_mut().unwrap().group_id = None;
            assert!(!may_have_group(&replay), "a dry run has none");
        }
    }
}
