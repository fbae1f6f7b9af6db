//! Reads groups: their coordinators and members. In: a cluster, group ids. Out: one answer for each group. Asks
//! each coordinator once for all of its groups, where the broker can do that.

use std::collections::BTreeMap;

use crds::spec::GroupProtocol;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream;

use super::cluster::{ANSWER, Cluster};
use super::missing::{Answers, Missing, Rounds, all_missing};
use super::model::Partition;
use super::protocol::error_code::ErrorCode;
use super::protocol::groups::{
    CONSUMER, ConsumerGroupDescribe, DescribeGroups, DescribedGroup, FindCoordinator,
};

/// Groups of one request to a coordinator.
pub(super) const GROUPS: usize = 200;

/// Requests at the same time to a broker that takes one group per request.
const SINGLES: usize = 16;

/// State and members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupDescription {
    pub(super) state: String,
    /// The protocol by which the broker knows it.
    pub(super) protocol: GroupProtocol,
    pub(super) is_of_consumers: bool,
    pub(super) assignor: String,
    pub(super) members: Vec<GroupMember>,
}

/// A member with its assigned partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupMember {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) host: String,
    /// None: its assignor writes assignments that only it can read.
    pub(super) assigned: Option<Vec<Partition>>,
}

/// State and members of groups, each with the protocol that it probably uses. None: the broker cannot
/// describe groups.
pub(super) async fn describe(
    cluster: &Cluster,
    protocols: &BTreeMap<String, GroupProtocol>,
) -> Answers<String, Option<GroupDescription>> {
    by_coordinator(cluster, protocols.keys().cloned().collect(), |node, groups| {
        Box::pin(async move {
            let chunks = groups.chunks(GROUPS);
            let asked = chunks.map(|chunk| describe_at(cluster, node, chunk, protocols));
            join_all(asked).await.into_iter().flatten().collect()
        })
    })
    .await
}

pub(super) type GroupAnswers<T> = Vec<(String, Result<T, Missing>)>;

/// Finds the coordinators and lets `ask` ask each of them for its groups; again, if a coordinator has moved.
pub(super) async fn by_coordinator<'a, T: Send>(
    cluster: &'a Cluster,
    groups: Vec<String>,
    ask: impl Fn(i32, Vec<String>) -> BoxFuture<'a, GroupAnswers<T>> + Send + Sync,
) -> Answers<String, T> {
    let mut rounds = Rounds::new(groups);
    while let Some(groups) = rounds.next().await {
        let mut by_node: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (group, node) in coordinators(cluster, groups).await {
            match node {
                Ok(node) => by_node.entry(node).or_default().push(group),
                Err(missing) => rounds.take([(group, Err(missing))]),
            }
        }
        let asked = by_node.into_iter().map(|(node, groups)| ask(node, groups));
        for (group, answer) in join_all(asked).await.into_iter().flatten() {
            if matches!(answer, Err(Missing::Unknown(_) | Missing::Unreachable(_))) {
                cluster.forget_coordinator(&group);
            }
            rounds.take([(group, answer)]);
        }
    }
    rounds.answers
}

/// The broker that coordinates one group.
pub(super) async fn coordinator(cluster: &Cluster, group: &str) -> Result<i32, Missing> {
    let found = coordinators(cluster, vec![group.to_string()]).await.pop();
    found.map_or_else(
        || Err(Missing::Unknown("no coordinator in the answer".into())),
        |(_, node)| node,
    )
}

async fn coordinators(cluster: &Cluster, groups: Vec<String>) -> GroupAnswers<i32> {
    let mut answers = Vec::with_capacity(groups.len());
    let mut unknown = Vec::new();
    for group in groups {
        match cluster.coordinator(&group) {
            Some(node) => answers.push((group, Ok(node))),
            None => unknown.push(group),
        }
    }
    let requests: Vec<FindCoordinator> = unknown
        .chunks(GROUPS)
        .map(|groups| FindCoordinator {
            groups: groups.to_vec(),
        })
        .collect();
    let found = join_all(requests.into_iter().map(|request| find(cluster, request))).await;
    for (group, node) in found.into_iter().flatten() {
        if let Ok(node) = node {
            cluster.set_coordinator(&group, node);
        }
        answers.push((group, node));
    }
    answers
}

fn find(cluster: &Cluster, request: FindCoordinator) -> BoxFuture<'_, GroupAnswers<i32>> {
    async move {
        let found = match cluster.any(&request).await {
            Ok(found) => found,
            Err(problem) => return all_missing(request.groups, &Missing::Unreachable(problem.to_string())),
        };
        // A broker before 3.0 answers for the first group only, and does not name it.
        if let [only] = &found[..]
            && only.group.is_empty()
        {
            let mut groups = request.groups.into_iter();
            let first = groups.next().map(|first| node(&first, only.error, only.node));
            let alone = |group| find(cluster, FindCoordinator { groups: vec![group] });
            return first.into_iter().chain(one_by_one(groups, alone).await).collect();
        }
        let nodes = found
            .iter()
            .map(|found| node(&found.group, found.error, found.node));
        nodes.collect()
    }
    .boxed()
}

/// For brokers that take one group per request.
pub(super) async fn one_by_one<'a, G, T>(
    groups: impl Iterator<Item = G>,
    alone: impl Fn(G) -> BoxFuture<'a, GroupAnswers<T>>,
) -> GroupAnswers<T> {
    let asked = stream::iter(groups.map(alone)).buffer_unordered(SINGLES);
    asked.concat().await
}

fn node(group: &str, error: ErrorCode, node: i32) -> (String, Result<i32, Missing>) {
    let node = if error.is_ok() {
        Ok(node)
    } else {
        Err(Missing::of_code(
            error,
            &format!("coordinator of group \"{group}\""),
        ))
    };
    (group.into(), node)
}

/// A broker knows a group by the protocol that its members use. The other protocol answers that there is no
/// such group, so it is asked for what the first one does not know.
async fn describe_at(
    cluster: &Cluster,
    node: i32,
    groups: &[String],
    protocols: &BTreeMap<String, GroupProtocol>,
) -> GroupAnswers<Option<GroupDescription>> {
    let classic = cluster.supports::<DescribeGroups>(node).await;
    let consumer = cluster.supports::<ConsumerGroupDescribe>(node).await;
    if !classic {
        // The embedded broker.
        return groups.iter().map(|group| (group.clone(), Ok(None))).collect();
    }
    let uses_consumer = |group: &&String| {
        consumer
            && protocols
                .get(*group)
                .is_some_and(|protocol| *protocol == GroupProtocol::Consumer)
    };
    let (new, old): (Vec<String>, Vec<String>) =
        groups.iter().cloned().partition(|group| uses_consumer(&group));
    let (new, old) = futures::future::join(
        described(cluster, node, new, GroupProtocol::Consumer),
        described(cluster, node, old, GroupProtocol::Classic),
    )
    .await;
    let mut answers = Vec::new();
    for (first, other) in [(new, GroupProtocol::Classic), (old, GroupProtocol::Consumer)] {
        let (unknown, known): (Vec<_>, Vec<_>) = first
            .into_iter()
            .partition(|(_, answer)| matches!(answer, Ok(None)));
        answers.extend(known);
        let unknown: Vec<String> = unknown.into_iter().map(|(group, _)| group).collect();
        if other == GroupProtocol::Consumer && !consumer {
            answers.extend(unknown.into_iter().map(|group| (group, Ok(None))));
        } else {
            answers.extend(described(cluster, node, unknown, other).await);
        }
    }
    let dead = || GroupDescription {
        state: "Dead".into(),
        protocol: GroupProtocol::Classic,
        is_of_consumers: true,
        assignor: String::new(),
        members: Vec::new(),
    };
    answers
        .into_iter()
        .map(|(group, answer)| (group, answer.map(|found| Some(found.unwrap_or_else(dead)))))
        .collect()
}

/// None: there is no such group of this protocol.
async fn described(
    cluster: &Cluster,
    node: i32,
    groups: Vec<String>,
    protocol: GroupProtocol,
) -> GroupAnswers<Option<GroupDescription>> {
    if groups.is_empty() {
        return Vec::new();
    }
    let answer = match protocol {
        GroupProtocol::Classic => {
            let request = DescribeGroups {
                groups: groups.clone(),
            };
            cluster.node(node, &request, ANSWER).await
        }
        GroupProtocol::Consumer => {
            let request = ConsumerGroupDescribe {
                groups: groups.clone(),
            };
            cluster.node(node, &request, ANSWER).await
        }
    };
    match answer {
        Ok(described) => described
            .into_iter()
            .map(|group| description(group, protocol))
            .collect(),
        Err(error) => all_missing(groups, &Missing::of_call(error)),
    }
}

fn description(
    described: DescribedGroup,
    protocol: GroupProtocol,
) -> (String, Result<Option<GroupDescription>, Missing>) {
    let description = match described.error {
        // UNSUPPORTED_VERSION: the broker has this protocol switched off.
        ErrorCode::GROUP_ID_NOT_FOUND | ErrorCode::UNSUPPORTED_VERSION => Ok(None),
        error if error.is_ok() && described.state == "Dead" => Ok(None),
        error if error.is_ok() => Ok(Some(GroupDescription {
            state: described.state,
            protocol,
            // Empty in an empty group.
            is_of_consumers: matches!(described.protocol_type.as_str(), CONSUMER | ""),
            assignor: described.assignor,
            members: described
                .members
                .into_iter()
                .map(|member| GroupMember {
                    id: member.member_id,
                    client_id: member.client_id,
                    host: member.host,
                    assigned: member.assignment.map(|topics| {
                        let partitions = |(topic, indexes): (String, Vec<i32>)| {
                            indexes.into_iter().map(move |index| (topic.clone(), index))
                        };
                        topics.into_iter().flat_map(partitions).collect()
                    }),
                })
                .collect(),
        })),
        error => Err(Missing::of_code(error, &format!("group \"{}\"", described.group))),
    };
    (described.group, description)
}
