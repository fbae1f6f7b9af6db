//! LeaveGroup and ConsumerGroupHeartbeat.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;

use super::super::leaving::*;
use super::*;

fn answers() -> impl Strategy<Value = Left> {
    (error_codes(), few((texts(), error_codes()))).prop_map(|(error, members)| Left { error, members })
}

proptest! {
    #[test]
    fn leave_group(group in texts(), members in few(texts()), reason in texts(), answer in answers()) {
        for version in LeaveGroup::VERSIONS.iter().copied() {
            let ours = LeaveGroup { group: group.clone(), members: members.clone(), reason: reason.clone() };
            let request: theirs::LeaveGroupRequest = written(&ours, version);
            let identity = |member: &String| {
                let identity = MemberIdentity::default().with_member_id(text(member));
                if version >= 5 { identity.with_reason(Some(text(&reason))) } else { identity }
            };
            let expected = theirs::LeaveGroupRequest::default()
                .with_group_id(group_id(&group))
                .with_members(members.iter().map(identity).collect());
            prop_assert_eq!(request, expected);

            let member = |(member, error): &(String, ErrorCode)| {
                MemberResponse::default()
                    .with_member_id(text(member))
                    .with_group_instance_id(Some(text("instance")))
                    .with_error_code(error.0)
            };
            let theirs = theirs::LeaveGroupResponse::default()
                .with_error_code(answer.error.0)
                .with_members(answer.members.iter().map(member).collect());
            prop_assert_eq!(&read_back::<LeaveGroup, _>(&theirs, version), &answer);
        }
    }

    #[test]
    fn the_heartbeat_of_a_member_that_leaves(
        group in texts(),
        member in texts(),
        error in error_codes(),
        message in maybe_texts(),
        assigned in proptest::option::of(few(vec(any::<i32>(), 0..4))),
    ) {
        let ours = LeavingHeartbeat { group: group.clone(), member: member.clone() };
        let request: theirs::ConsumerGroupHeartbeatRequest = written(&ours, 0);
        let expected = theirs::ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(text(&member))
            .with_member_epoch(-1)
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None);
        prop_assert_eq!(request, expected);

        let topic = |partitions: Vec<i32>| TopicPartitions::default().with_partitions(partitions);
        let assignment = assigned.map(|topics| {
            Assignment::default().with_topic_partitions(topics.into_iter().map(topic).collect())
        });
        let theirs = theirs::ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error.0)
            .with_error_message(message.as_deref().map(text))
            .with_member_id(Some(text(&member)))
            .with_member_epoch(-1)
            .with_heartbeat_interval_ms(5000)
            .with_assignment(assignment);
        let answer = HeartbeatAnswer { error, message };
        prop_assert_eq!(read_back::<LeavingHeartbeat, _>(&theirs, 0), answer);
    }
}
