//! What the answers of a cluster mean for one group: lag and members. Pure. Never fills a gap with a guess.

use std::collections::BTreeSet;

use super::groups::GroupDescription;
use super::model::{GroupFacts, Lag, MemberFacts, Partition};
use super::topics::Offsets;

/// None if any partition has no end or no start. A partition without a committed offset counts from its
/// start.
pub(super) fn lag(
    partitions: &[Partition],
    ends: &Offsets,
    starts: &Offsets,
    committed: &Offsets,
) -> Option<Lag> {
    let mut lag = Lag::default();
    for partition in partitions {
        let (end, start) = (*ends.get(partition)?, *starts.get(partition)?);
        let from = committed.get(partition).copied().unwrap_or(start).max(start);
        // Ends and commits are read at slightly different times; a commit may be ahead of an older end.
        let behind = end.saturating_sub(from).max(0);
        lag.total = lag.total.saturating_add(behind);
        if behind > lag.max {
            lag.max = behind;
            lag.max_partition = Some(format!("{}-{}", partition.0, partition.1));
        }
        lag.per_partition.insert(partition.clone(), behind);
        lag.ends.insert(partition.clone(), end);
    }
    Some(lag)
}

/// Counts only partitions of `topics`: the group may have other members that read other topics.
pub(super) fn group_facts(description: &GroupDescription, topics: &[String]) -> GroupFacts {
    let mut owned = BTreeSet::new();
    let mut readable = true;
    let mut members = Vec::with_capacity(description.members.len());
    for member in &description.members {
        readable &= member.assigned.is_some();
        let assigned = member.assigned.iter().flatten();
        let ours: Vec<_> = assigned.filter(|(topic, _)| topics.contains(topic)).collect();
        owned.extend(ours.iter().copied());
        members.push(MemberFacts {
            client_id: member.client_id.clone(),
            host: member.host.trim_start_matches('/').to_string(),
            assigned: i32::try_from(ours.len()).unwrap_or(i32::MAX),
            reads_others: ours.is_empty() && member.assigned.as_ref().is_some_and(|all| !all.is_empty()),
        });
    }
    let stable = matches!(description.state.as_str(), "Stable" | "Empty" | "Dead");
    GroupFacts {
        state: description.state.clone(),
        members,
        protocol: description.protocol,
        is_of_consumers: description.is_of_consumers,
        assignor: description.assignor.clone(),
        assigned_partitions: (stable && readable).then(|| i32::try_from(owned.len()).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use crds::spec::GroupProtocol;

    use super::super::groups::GroupMember;
    use super::*;

    fn partition(index: i32) -> Partition {
        ("orders".into(), index)
    }

    fn offsets_of(values: &[i64]) -> Offsets {
        values
            .iter()
            .zip(0..)
            .map(|(offset, index)| (partition(index), *offset))
            .collect()
    }

    #[test]
    fn lag_counts_from_the_commit_or_the_log_start_whichever_is_later() {
        let partitions: Vec<_> = (0..3).map(partition).collect();
        let committed = Offsets::from([(partition(0), 40), (partition(1), 5)]);
        let lag = lag(
            &partitions,
            &offsets_of(&[100, 50, 30]),
            &offsets_of(&[0, 20, 10]),
            &committed,
        )
        .unwrap();
        assert_eq!(
            lag.per_partition.values().copied().collect::<Vec<_>>(),
            [60, 30, 20]
        );
        assert_eq!(
            (lag.total, lag.max, lag.max_partition.as_deref()),
            (110, 60, Some("orders-0"))
        );
    }

    #[test]
    fn a_partition_that_was_not_answered_makes_the_lag_unknown() {
        let partitions: Vec<_> = (0..2).map(partition).collect();
        let all = offsets_of(&[10, 10]);
        assert!(lag(&partitions, &offsets_of(&[10]), &all, &all).is_none());
        assert!(lag(&partitions, &all, &offsets_of(&[10]), &all).is_none());
    }

    #[test]
    fn a_commit_ahead_of_an_older_end_is_no_negative_lag() {
        let lag = lag(
            &[partition(0)],
            &offsets_of(&[10]),
            &offsets_of(&[0]),
            &offsets_of(&[12]),
        )
        .unwrap();
        assert_eq!((lag.total, lag.max_partition), (0, None));
    }

    #[test]
    fn assigned_partitions_count_only_our_topics_and_only_in_a_stable_group() {
        let member = |client: &str, assigned: &[(&str, i32)]| GroupMember {
            id: format!("{client}-1"),
            client_id: client.into(),
            host: "/10.0.0.1".into(),
            assigned: Some(
                assigned
                    .iter()
                    .map(|(topic, index)| (topic.to_string(), *index))
                    .collect(),
            ),
        };
        let mut description = GroupDescription {
            state: "Stable".into(),
            protocol: GroupProtocol::Classic,
            is_of_consumers: true,
            assignor: "range".into(),
            members: vec![
                member("a", &[("orders", 0), ("orders", 1)]),
                member("b", &[("orders", 2), ("other", 0)]),
            ],
        };
        let facts = group_facts(&description, &["orders".into()]);
        assert_eq!(facts.assigned_partitions, Some(3));
        assert_eq!(facts.members[1].assigned, 1);
        assert_eq!(facts.members[0].host, "10.0.0.1");
        description.state = "PreparingRebalance".into();
        assert_eq!(
            group_facts(&description, &["orders".into()]).assigned_partitions,
            None
        );
        // Partitions of a member whose assignment cannot be read are not counted as unassigned.
        description.state = "Stable".into();
        description.members[1].assigned = None;
        assert_eq!(
            group_facts(&description, &["orders".into()]).assigned_partitions,
            None
        );
    }
}
