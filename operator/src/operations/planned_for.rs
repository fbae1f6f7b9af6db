//! Whether a stored plan still is for the group that its operation names. In: what it was stored with, the group as
//! it is now. Out: what has changed. Pure.

use std::collections::BTreeSet;

use crds::KafkaConsumerGroup;
use crds::offset_reset::PlannedFor;
use kube::ResourceExt;

/// What a plan is stored with.
pub fn planned_for(group: &KafkaConsumerGroup, cluster_id: Option<String>) -> PlannedFor {
    PlannedFor {
        group_uid: group.uid().unwrap_or_default(),
        cluster_id,
        bootstrap_servers: group.spec.kafka.bootstrap_servers.clone(),
    }
}

/// Why a plan must not be carried out for this group. None: it is for this group. Its cluster is compared with the
/// brokers that answer.
pub fn difference(planned: &PlannedFor, group: &KafkaConsumerGroup) -> Option<String> {
    let name = group.name_any();
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

    fn planned(group: &KafkaConsumerGroup, cluster_id: Option<&str>) -> PlannedFor {
        planned_for(group, cluster_id.map(String::from))
    }

    #[test]
    fn a_plan_is_for_one_group_resource() {
        let group = group();
        let planned = planned(&group, Some("here"));
        let mut changed = group.clone();
        changed.metadata.generation = Some(9);
        assert_eq!(difference(&planned, &group), None);
        assert_eq!(difference(&planned, &changed), None);
        changed.metadata.uid = Some("new".into());
        let why = difference(&planned, &changed).unwrap();
        assert!(why.contains("created again"), "{why}");
    }

    #[test]
    fn other_addresses_are_another_cluster_unless_its_id_is_known() {
        let mut before = group();
        before.spec.kafka.bootstrap_servers = vec!["a:9092".into(), "b:9092".into()];
        let after = |servers: &[&str], cluster_id| {
            let mut group = before.clone();
            group.spec.kafka.bootstrap_servers = servers.iter().map(|it| it.to_string()).collect();
            difference(&planned(&before, cluster_id), &group)
        };
        assert!(after(&["c:9092"], None).unwrap().contains("bootstrapServers"));
        assert_eq!(after(&["b:9092", "a:9092"], None), None);
        // One broker more, or a correction.
        assert_eq!(after(&["c:9092"], Some("here")), None);
    }
}
