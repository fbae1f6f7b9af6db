//! Members of a consumer group that are not workers of its resource. In: the members that the broker reports,
//! and which workers are known. Out: the others, described for a user. Pure.

use crds::incarnation::Incarnation;
use crds::spec::GroupProtocol;

use super::wording::count;
use crate::kafka::model::{GroupFacts, MemberFacts};

/// Members in one message.
const MAX_SHOWN: usize = 4;
/// Longest client id in a message, in characters; brokers accept any.
const MAX_CLIENT_ID: usize = 80;
/// The assignor of workers with groupProtocol Classic.
const ASSIGNOR: &str = "cooperative-sticky";

/// Other members that read the same topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedGroup {
    /// Who they are and what to do.
    pub message: String,
    /// Why the workers of the resource cannot join the group, if they cannot.
    pub refuses: Option<String>,
}

impl SharedGroup {
    /// The reason and what to do.
    pub fn with_reason(&self) -> String {
        match &self.refuses {
            Some(refuses) => format!("GroupRefusesWorkers: {refuses}"),
            None => format!("GroupShared: {}", self.message),
        }
    }
}

/// How a worker of the resource is recognized.
pub struct Known<'a> {
    pub worker: &'a dyn Fn(&Incarnation) -> bool,
    /// The `client.id` of all workers, if clientConfig sets one: then only their number distinguishes them.
    pub client_id: Option<&'a str>,
    /// Number of workers that may be members.
    pub workers: usize,
}

/// What is known of the members of a consumer group that are not workers of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Set if some of them may take a part of the records.
    pub shared: Option<SharedGroup>,
    /// There are some, perhaps only readers of other topics: the group is not empty without the workers.
    pub present: bool,
}

/// Members that are not workers of the resource.
pub fn others<'a>(group: &'a GroupFacts, known: &Known<'_>) -> Vec<&'a MemberFacts> {
    let mut same_name = 0;
    let ours = |member: &&MemberFacts| {
        if known.client_id == Some(member.client_id.as_str()) {
            same_name += 1;
            return same_name <= known.workers;
        }
        Incarnation::parse(&member.client_id).is_some_and(|run| (known.worker)(&run))
    };
    let (_, mut others): (Vec<_>, Vec<_>) = group.members.iter().partition(ours);
    others.sort_by_key(|member| (&member.client_id, &member.host));
    others
}

/// The assignments of a classic group cannot be read while it is rebalancing.
pub fn is_rebalancing(group: &GroupFacts) -> bool {
    matches!(&*group.state, "PreparingRebalance" | "CompletingRebalance")
}

/// What to say about [`others`]; `users` are other resources with the same consumer group. None if they take
/// nothing away: they only read other topics.
pub fn shared(
    group_id: &str,
    protocol: GroupProtocol,
    group: &GroupFacts,
    others: &[&MemberFacts],
    users: &[String],
) -> Option<SharedGroup> {
    let takes_records = |member: &&&MemberFacts| member.assigned > 0 || !member.reads_others;
    let others: Vec<&MemberFacts> = others.iter().filter(takes_records).copied().collect();
    if others.is_empty() {
        return None;
    }
    let shown = names(&others);
    let number = count(others.len(), "member");
    let verb = if others.len() == 1 {
        "is not a worker"
    } else {
        "are not workers"
    };
    let users = match users {
        [] => String::new(),
        users => format!("; the group is also used by {}", users.join(", ")),
    };
    let message = format!(
        "{number} of consumer group {group_id} {verb} of this resource, and may take a part of the records: {shown}{users}; give each its own consumer group (spec.groupId), or stop the others"
    );
    let joined = others.len() < group.members.len();
    let refuses = refusal(protocol, group).filter(|_| !joined).map(|why| {
        format!("consumer group {group_id} does not admit the workers, because {why}: {shown}{users}; stop these members, or set another spec.groupId")
    });
    Some(SharedGroup { message, refuses })
}

/// Why a group with only other members refuses workers.
fn refusal(protocol: GroupProtocol, group: &GroupFacts) -> Option<String> {
    if !group.is_of_consumers {
        return Some("its members are not consumers".into());
    }
    match (protocol, group.protocol) {
        (GroupProtocol::Classic, GroupProtocol::Classic) => {
            let differs = !group.assignor.is_empty() && group.assignor != ASSIGNOR;
            differs.then(|| {
                format!(
                    "its members use the assignor {} and workers use {ASSIGNOR}",
                    group.assignor
                )
            })
        }
        (GroupProtocol::Consumer, GroupProtocol::Consumer) => None,
        (GroupProtocol::Consumer, GroupProtocol::Classic) => {
            Some("its members use the group protocol Classic and workers use Consumer".into())
        }
        (GroupProtocol::Classic, GroupProtocol::Consumer) => {
            Some("its members use the group protocol Consumer and workers use Classic".into())
        }
    }
}

/// The first members, each with its client id and host, and the number of others.
pub fn names(members: &[&MemberFacts]) -> String {
    let mut shown: Vec<String> = members
        .iter()
        .take(MAX_SHOWN)
        .map(|member| name(member))
        .collect();
    if members.len() > MAX_SHOWN {
        shown.push(format!("{} more", members.len() - MAX_SHOWN));
    }
    shown.join(", ")
}

fn name(member: &MemberFacts) -> String {
    let id: String = member.client_id.chars().take(MAX_CLIENT_ID).collect();
    format!("client.id {id:?} at {}", member.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client_id: &str, assigned: i32) -> MemberFacts {
        MemberFacts {
            client_id: client_id.into(),
            host: "10.0.0.7".into(),
            assigned,
            reads_others: false,
        }
    }

    fn group(members: Vec<MemberFacts>) -> GroupFacts {
        GroupFacts {
            state: "Stable".into(),
            members,
            assigned_partitions: None,
            protocol: GroupProtocol::Classic,
            is_of_consumers: true,
            assignor: ASSIGNOR.into(),
        }
    }

    fn found(group: &GroupFacts, client_id: Option<&str>, workers: usize) -> Vec<String> {
        let worker = |run: &Incarnation| run.worker.starts_with("orders-");
        let known = Known {
            worker: &worker,
            client_id,
            workers,
        };
        let others = others(group, &known).into_iter();
        others.map(|member| member.client_id.clone()).collect()
    }

    #[test]
    fn members_that_are_not_workers_are_found() {
        let group = group(vec![
            member("orders-a@5", 1),
            member("rdkafka", 0),
            member("returns-a@5", 2),
            member("orders-a", 1),
        ]);
        assert_eq!(found(&group, None, 1), ["orders-a", "rdkafka", "returns-a@5"]);
    }

    #[test]
    fn a_member_that_only_reads_other_topics_takes_nothing_away() {
        let mut reader = member("rdkafka", 0);
        reader.reads_others = true;
        let is_shared = |reader: &MemberFacts| {
            let group = group(vec![reader.clone()]);
            // It is a member nevertheless: the group is not empty when the workers have stopped.
            assert_eq!(found(&group, None, 1), ["rdkafka"]);
            let others: Vec<&MemberFacts> = group.members.iter().collect();
            shared("g", GroupProtocol::Classic, &group, &others, &[]).is_some()
        };
        assert!(!is_shared(&reader));
        reader.assigned = 1;
        assert!(is_shared(&reader));
    }

    #[test]
    fn workers_with_one_client_id_are_counted() {
        let same = || member("shop", 1);
        let group = group(vec![same(), same(), same()]);
        assert!(found(&group, Some("shop"), 3).is_empty());
        assert_eq!(found(&group, Some("shop"), 2), ["shop"]);
        assert_eq!(found(&group, None, 3).len(), 3);
    }

    #[test]
    fn the_message_names_members_and_other_resources_and_says_what_to_do() {
        let mut facts = group((0..6).map(|number| member(&format!("c{number}"), 1)).collect());
        let others: Vec<&MemberFacts> = facts.members.iter().collect();
        let users = ["KafkaConsumerGroup bank/orders".to_string()];
        let found = shared("shop.orders", GroupProtocol::Classic, &facts, &others, &users).unwrap();
        for part in [
            "6 members of consumer group shop.orders are not workers",
            "client.id \"c0\" at 10.0.0.7",
            "2 more; the group is also used by KafkaConsumerGroup bank/orders",
            "spec.groupId",
        ] {
            assert!(found.message.contains(part), "{} lacks {part}", found.message);
        }
        assert_eq!(found.refuses, None);
        assert_eq!(shared("g", GroupProtocol::Classic, &facts, &[], &users), None);
        facts.assignor = "range".into();
        let others: Vec<&MemberFacts> = facts.members.iter().collect();
        let refuses = |others: &[&MemberFacts]| {
            shared("g", GroupProtocol::Classic, &facts, others, &[])
                .unwrap()
                .refuses
        };
        assert!(
            refuses(&others)
                .unwrap()
                .contains("assignor range and workers use cooperative-sticky")
        );
        // A worker has joined.
        assert_eq!(refuses(&others[1..]), None);
    }

    #[test]
    fn groups_of_another_protocol_or_kind_refuse_workers() {
        let (classic, consumer) = (GroupProtocol::Classic, GroupProtocol::Consumer);
        let refuses = |own, protocol, is_of_consumers| {
            let mut group = group(vec![member("a", 1)]);
            (group.protocol, group.is_of_consumers) = (protocol, is_of_consumers);
            refusal(own, &group).is_some()
        };
        assert!(!refuses(classic, classic, true) && !refuses(consumer, consumer, true));
        assert!(refuses(classic, consumer, true) && refuses(consumer, classic, true));
        assert!(refuses(classic, classic, false));
    }
}
