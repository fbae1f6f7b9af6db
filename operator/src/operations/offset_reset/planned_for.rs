//! Whether a stored plan still is for the group that the reset names. In: the status of a reset, its group as it
//! is now. Out: what has changed. Pure.

use std::collections::BTreeSet;

use crds::offset_reset::PlannedFor;
use crds::worker_config::group_id;
use crds::{KafkaConsumerGroup, KafkaOffsetResetStatus};
use kube::ResourceExt;

/// The Kafka consumer group id of a group.
pub fn id_of(group: &KafkaConsumerGroup) -> String {
    group_id(
        &group.namespace().unwrap_or_default(),
        &group.name_any(),
        &group.spec,
    )
}

/// What a plan is stored with.
pub fn planned_for(group: &KafkaConsumerGroup) -> PlannedFor {
    PlannedFor {
        group_uid: group.uid().unwrap_or_default(),
        cluster_id: cluster_of(group).cloned(),
        bootstrap_servers: group.spec.kafka.bootstrap_servers.clone(),
    }
}

/// Why the plan of this status must not be committed for this group. None: it is for this group.
pub fn difference(status: &KafkaOffsetResetStatus, group: &KafkaConsumerGroup) -> Option<String> {
    let name = group.name_any();
    let planned = status.planned_for.as_ref()?;
    if group.uid().as_ref() != Some(&planned.group_uid) {
        return Some(format!("KafkaConsumerGroup {name} was deleted and created again"));
    }
    let id = id_of(group);
    if let Some(before) = status.group_id.as_ref().filter(|before| **before != id) {
        return Some(format!(
            "KafkaConsumerGroup {name} has another consumer group id now: {id} instead of {before}"
        ));
    }
    let servers = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    if servers(&planned.bootstrap_servers) != servers(&group.spec.kafka.bootstrap_servers) {
        return Some(format!(
            "kafka.bootstrapServers of KafkaConsumerGroup {name} was changed"
        ));
    }
    let clusters = planned.cluster_id.as_ref().zip(cluster_of(group));
    clusters.filter(|(before, now)| before != now).map(|(before, now)| {
        format!(
            "the addresses of KafkaConsumerGroup {name} lead to another Kafka cluster now: {now} instead of {before}"
        )
    })
}

fn cluster_of(group: &KafkaConsumerGroup) -> Option<&String> {
    group.status.as_ref()?.cluster_id.as_ref()
}

#[cfg(test)]
mod tests {
    use crds::KafkaConsumerGroupStatus;

    use super::*;
    use crate::fixtures::group;

    fn in_cluster(id: Option<&str>) -> KafkaConsumerGroup {
        let mut group = group();
        group.spec.kafka.bootstrap_servers = vec!["a:9092".into(), "b:9092".into()];
        group.status = Some(KafkaConsumerGroupStatus {
            cluster_id: id.map(String::from),
            ..Default::default()
        });
        group
    }

    #[test]
    fn a_plan_is_for_one_group_resource_one_group_id_and_one_cluster() {
        let planned = in_cluster(Some("here"));
        let status = KafkaOffsetResetStatus {
            group_id: Some(id_of(&planned)),
            planned_for: Some(planned_for(&planned)),
            ..Default::default()
        };
        let changed = |change: &dyn Fn(&mut KafkaConsumerGroup)| {
            let mut group = planned.clone();
            change(&mut group);
            difference(&status, &group)
        };
        let differs = |change: &dyn Fn(&mut KafkaConsumerGroup), words: &str| {
            let why = changed(change).unwrap();
            assert!(why.contains(words), "{why}");
        };
        differs(&|group| group.metadata.uid = Some("new".into()), "created again");
        differs(
            &|group| group.spec.group_id = Some("other".into()),
            "other instead of shop.orders",
        );
        differs(
            &|group| group.spec.kafka.bootstrap_servers = vec!["c:9092".into()],
            "bootstrapServers",
        );
        differs(
            &|group| group.status = in_cluster(Some("there")).status,
            "there instead of here",
        );
        assert_eq!(changed(&|_| {}), None);
        // The order of the addresses says nothing, and neither does a cluster that is not known.
        assert_eq!(
            changed(&|group| group.spec.kafka.bootstrap_servers.reverse()),
            None
        );
        assert_eq!(changed(&|group| group.status = None), None);
        assert_eq!(changed(&|group| group.metadata.generation = Some(9)), None);
    }

    #[test]
    fn a_cluster_that_was_not_known_is_not_compared() {
        let planned = in_cluster(None);
        let status = KafkaOffsetResetStatus {
            group_id: Some(id_of(&planned)),
            planned_for: Some(planned_for(&planned)),
            ..Default::default()
        };
        assert_eq!(difference(&status, &in_cluster(Some("here"))), None);
    }
}
