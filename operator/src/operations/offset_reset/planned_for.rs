//! Whether a stored plan still is for the group that the reset names. In: the status of a reset, its group as it
//! is now. Out: what has changed. Pure.

use std::collections::BTreeSet;

use crds::offset_reset::PlannedFor;
use crds::{KafkaConsumerGroup, KafkaOffsetResetStatus};
use kube::ResourceExt;

use crate::group::id::id_of;

/// What a plan is stored with.
pub fn planned_for(group: &KafkaConsumerGroup, cluster_id: Option<String>) -> PlannedFor {
    PlannedFor {
        group_uid: group.uid().unwrap_or_default(),
        cluster_id,
        bootstrap_servers: group.spec.kafka.bootstrap_servers.clone(),
    }
}

/// Why the plan of this status must not be committed for this group. None: it is for this group. Its cluster is
/// compared with the brokers that answer.
pub fn difference(status: &KafkaOffsetResetStatus, group: &KafkaConsumerGroup) -> Option<String> {
    let name = group.name_any();
    let id = id_of(group);
    if let Some(before) = status.group_id.as_ref().filter(|before| **before != id) {
        return Some(format!(
            "KafkaConsumerGroup {name} has another consumer group id now: {id} instead of {before}"
        ));
    }
    let planned = status.planned_for.as_ref()?;
    if group.uid().as_ref() != Some(&planned.group_uid) {
        return Some(format!("KafkaConsumerGroup {name} was deleted and created again"));
    }
    let servers = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    // The id of the cluster says more, if it is known.
    let is_changed = servers(&planned.bootstrap_servers) != servers(&group.spec.kafka.bootstrap_servers);
    (is_changed && planned.cluster_id.is_none())
        .then(|| format!("kafka.bootstrapServers of KafkaConsumerGroup {name} was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::group;

    fn status(group: &KafkaConsumerGroup, cluster_id: Option<&str>) -> KafkaOffsetResetStatus {
        KafkaOffsetResetStatus {
            group_id: Some(id_of(group)),
            planned_for: Some(planned_for(group, cluster_id.map(String::from))),
            ..Default::default()
        }
    }

    #[test]
    fn a_plan_is_for_one_group_resource_and_one_group_id() {
        let planned = group();
        let status = status(&planned, Some("here"));
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
        assert_eq!(changed(&|_| {}), None);
        assert_eq!(changed(&|group| group.metadata.generation = Some(9)), None);
        // A plan that somebody else has stored.
        let foreign = KafkaOffsetResetStatus {
            planned_for: None,
            group_id: Some("other".into()),
            ..Default::default()
        };
        assert!(difference(&foreign, &planned).is_some());
    }

    #[test]
    fn other_addresses_are_another_cluster_unless_its_id_is_known() {
        let mut planned = group();
        planned.spec.kafka.bootstrap_servers = vec!["a:9092".into(), "b:9092".into()];
        let after = |servers: &[&str], cluster_id| {
            let mut group = planned.clone();
            group.spec.kafka.bootstrap_servers = servers.iter().map(|it| it.to_string()).collect();
            difference(&status(&planned, cluster_id), &group)
        };
        assert!(after(&["c:9092"], None).unwrap().contains("bootstrapServers"));
        assert_eq!(after(&["b:9092", "a:9092"], None), None);
        // One broker more, or a correction.
        assert_eq!(after(&["c:9092"], Some("here")), None);
    }
}
