//! Deletes a consumer group that the operator has made, with its committed offsets. In: a cluster, a group. Out:
//! whether it is gone. Never deletes a group with members: the coordinator refuses that.

use super::cluster::{ANSWER, Cluster};
use super::frames::CallError;
use super::groups;
use super::missing::{Missing, Rounds, answer_of};
use super::model::{Deleted, KafkaProblem};
use super::protocol::delete_groups::DeleteGroups;
use super::protocol::error_code::ErrorCode;

/// Deletes the group. A group that does not exist is deleted.
pub(super) async fn delete(cluster: &Cluster, group: &str) -> Result<Deleted, KafkaProblem> {
    let mut rounds = Rounds::new(vec![()]);
    while rounds.next().await.is_some() {
        rounds.take([((), attempt(cluster, group).await)]);
    }
    answer_of(&rounds.answers, &()).map_err(Missing::problem)
}

async fn attempt(cluster: &Cluster, group: &str) -> Result<Deleted, Missing> {
    let node = groups::coordinator(cluster, group).await?;
    let request = DeleteGroups {
        groups: vec![group.into()],
    };
    let answered = match cluster.node(node, &request, ANSWER).await {
        Ok(answered) => answered,
        Err(error @ CallError::Unsupported(_)) => {
            // It never will, so the answer is not asked for again.
            let message = format!("group \"{group}\": {error}");
            return Err(Missing::Refused(KafkaProblem::InvalidConfiguration(message)));
        }
        Err(error) => {
            cluster.forget_coordinator(group);
            return Err(Missing::of_call(error));
        }
    };
    let code = answered.into_iter().find(|(name, _)| name == group);
    let Some((_, code)) = code else {
        let message = format!("group \"{group}\": the broker has not answered about it");
        return Err(Missing::Unknown(message));
    };
    let deleted = deleted(group, code);
    if deleted.is_err() {
        // It may have another coordinator now.
        cluster.forget_coordinator(group);
    }
    deleted
}

fn deleted(group: &str, code: ErrorCode) -> Result<Deleted, Missing> {
    match code {
        code if code.is_ok() => Ok(Deleted::Gone),
        ErrorCode::GROUP_ID_NOT_FOUND => Ok(Deleted::Gone),
        ErrorCode::NON_EMPTY_GROUP => Ok(Deleted::HasMembers),
        code => Err(Missing::of_code(code, &format!("deleting group \"{group}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_gone_already_is_deleted_and_one_with_members_is_not() {
        assert_eq!(deleted("g", ErrorCode::NONE), Ok(Deleted::Gone));
        assert_eq!(deleted("g", ErrorCode::GROUP_ID_NOT_FOUND), Ok(Deleted::Gone));
        assert_eq!(deleted("g", ErrorCode::NON_EMPTY_GROUP), Ok(Deleted::HasMembers));
    }

    #[test]
    fn a_refusal_names_the_group_and_what_may_pass_is_asked_again() {
        let Err(Missing::Refused(problem)) = deleted("g", ErrorCode::GROUP_AUTHORIZATION_FAILED) else {
            panic!("no later attempt is allowed either")
        };
        assert!(problem.to_string().contains("deleting group \"g\""), "{problem}");
        // NOT_COORDINATOR
        assert!(matches!(deleted("g", ErrorCode(16)), Err(Missing::Unknown(_))));
    }
}
