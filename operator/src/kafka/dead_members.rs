//! Takes the members of dead processes out of a group, so that their partitions are assigned to others now
//! and not after the session timeout. In: a cluster, a group, the dead processes. Out: the removed members.
//! A member that no dead process has left behind is never touched; one that is already gone is no error.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crds::incarnation::Incarnation;
use crds::spec::GroupProtocol;
use futures::future::join_all;

use super::cluster::{ANSWER, Cluster};
use super::frames::CallError;
use super::groups::{self, GroupDescription, GroupMember};
use super::missing::{Missing, Rounds, answer_of};
use super::model::{DeadProcess, KafkaProblem, RemovedMember};
use super::protocol::error_code::ErrorCode;
use super::protocol::leaving::{LeaveGroup, LeavingHeartbeat};

/// Reason in the broker's log.
const REASON: &str = "the process of this member has ended";

/// Timeout of a removal; the caller tries again later.
const REMOVAL: Duration = Duration::from_secs(10);

/// Removes the members that `dead` processes have left behind in the group, which probably uses `protocol`.
/// Empty if there are none, or if the broker cannot do it.
pub(super) async fn remove(
    cluster: &Cluster,
    group: &str,
    protocol: GroupProtocol,
    dead: &[DeadProcess],
) -> Result<Vec<RemovedMember>, KafkaProblem> {
    let attempts = tokio::time::timeout(REMOVAL, attempts(cluster, group, protocol, dead));
    let removed = attempts.await.unwrap_or_else(|_| {
        let seconds = REMOVAL.as_secs();
        Err(Missing::Unreachable(format!("no answer within {seconds} s")))
    });
    removed.map_err(|missing| match missing.problem() {
        KafkaProblem::Unreachable(message) => {
            KafkaProblem::Unreachable(format!("removing dead members: {message}"))
        }
        problem => problem,
    })
}

async fn attempts(
    cluster: &Cluster,
    group: &str,
    protocol: GroupProtocol,
    dead: &[DeadProcess],
) -> Result<Vec<RemovedMember>, Missing> {
    let protocols = BTreeMap::from([(group.to_string(), protocol)]);
    let mut removed = Vec::new();
    let mut rounds = Rounds::new(vec![()]);
    while rounds.next().await.is_some() {
        // Described again in each round: who is a member now?
        let described = answer_of(&groups::describe(cluster, &protocols).await, group);
        let answer = match described {
            Ok(Some(description)) => leave(cluster, group, &description, dead, &mut removed).await,
            // The embedded broker does not describe groups.
            Ok(None) => Ok(()),
            Err(missing) => Err(missing),
        };
        rounds.take([((), answer)]);
    }
    answer_of(&rounds.answers, &())?;
    Ok(removed)
}

/// The members of the group that dead processes have left behind.
fn select<'a>(members: &'a [GroupMember], dead: &[DeadProcess]) -> Vec<(&'a GroupMember, String)> {
    let left_behind = |member: &'a GroupMember| {
        let incarnation = Incarnation::parse(&member.client_id)?;
        let is_dead = dead.iter().any(|process| process.was(&incarnation));
        is_dead.then_some((member, incarnation.worker))
    };
    members.iter().filter_map(left_behind).collect()
}

async fn leave(
    cluster: &Cluster,
    group: &str,
    description: &GroupDescription,
    dead: &[DeadProcess],
    removed: &mut Vec<RemovedMember>,
) -> Result<(), Missing> {
    let selected = select(&description.members, dead);
    if selected.is_empty() {
        return Ok(());
    }
    let node = groups::coordinator(cluster, group).await?;
    let ids: Vec<String> = selected.iter().map(|(member, _)| member.id.clone()).collect();
    let left = match description.protocol {
        GroupProtocol::Classic if !cluster.supports::<LeaveGroup>(node).await => {
            // Before Kafka 2.4 only a member itself can leave, so the broker ends the session.
            tracing::debug!(group, "the broker cannot remove dead members");
            return Ok(());
        }
        GroupProtocol::Classic => classic(cluster, node, group, ids).await,
        GroupProtocol::Consumer => consumer(cluster, node, group, ids).await,
    };
    let codes = left.map_err(|error| {
        cluster.forget_coordinator(group);
        Missing::of_call(error)
    })?;
    for (member, worker) in selected {
        match codes.get(&member.id) {
            Some(code) if code.is_ok() => removed.push(RemovedMember {
                worker,
                assigned: member.assigned.as_ref().map(Vec::len),
            }),
            // Its session has ended meanwhile.
            Some(&ErrorCode::UNKNOWN_MEMBER_ID | &ErrorCode::GROUP_ID_NOT_FOUND) => {}
            Some(code) => {
                cluster.forget_coordinator(group);
                return Err(Missing::of_code(*code, &format!("group \"{group}\"")));
            }
            None => {
                let message = format!("group \"{group}\": no answer for a member");
                return Err(Missing::Unknown(message));
            }
        }
    }
    Ok(())
}

/// The result for each member id.
type Codes = HashMap<String, ErrorCode>;

async fn classic(cluster: &Cluster, node: i32, group: &str, ids: Vec<String>) -> Result<Codes, CallError> {
    let request = LeaveGroup {
        group: group.into(),
        members: ids.clone(),
        reason: REASON.into(),
    };
    let left = cluster.node(node, &request, ANSWER).await?;
    Ok(if left.error.is_ok() {
        left.members.into_iter().collect()
    } else {
        // Such as NOT_COORDINATOR.
        ids.into_iter().map(|id| (id, left.error)).collect()
    })
}

async fn consumer(cluster: &Cluster, node: i32, group: &str, ids: Vec<String>) -> Result<Codes, CallError> {
    let asked = ids.into_iter().map(async |id| {
        let request = LeavingHeartbeat {
            group: group.into(),
            member: id.clone(),
        };
        let answer = cluster.node(node, &request, ANSWER).await?;
        Ok((id, answer.error))
    });
    join_all(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client_id: &str) -> GroupMember {
        GroupMember {
            id: format!("{client_id}-id"),
            client_id: client_id.into(),
            host: "/10.0.0.1".into(),
            assigned: None,
        }
    }

    fn selected(members: &[&str], dead: &[DeadProcess]) -> Vec<String> {
        let members: Vec<GroupMember> = members.iter().map(|client| member(client)).collect();
        let selected = select(&members, dead);
        selected
            .into_iter()
            .map(|(member, _)| member.client_id.clone())
            .collect()
    }

    #[test]
    fn only_members_of_processes_that_have_ended_are_selected() {
        let members = [
            // Two earlier runs of the container, the one that ended at 2000, and its successors.
            "orders-a@500",
            "orders-a@1999",
            "orders-a@2000",
            "orders-a@2001",
            // Other workers, and programs that are no workers.
            "orders-b@500",
            "orders-ab@500",
            "orders@500",
            "orders-a",
            "rdkafka",
            "",
        ];
        let ended = DeadProcess::before("orders-a", 2000);
        assert_eq!(selected(&members, &[ended]), ["orders-a@500", "orders-a@1999"]);
        assert!(selected(&members, &[]).is_empty());
    }

    #[test]
    fn a_process_whose_start_is_known_is_told_from_another_of_the_same_name() {
        let members = ["orders-0@1000", "orders-0@1001", "orders-0@999", "orders-1@1000"];
        let ended = DeadProcess::exact("orders-0", 1000);
        assert_eq!(selected(&members, &[ended]), ["orders-0@1000"]);
    }

    #[test]
    fn several_dead_processes_are_removed_at_once() {
        let members = ["a@1", "b@1", "c@1"];
        let dead = [DeadProcess::before("a", 2), DeadProcess::exact("c", 1)];
        assert_eq!(selected(&members, &dead), ["a@1", "c@1"]);
    }
}
