//! FindCoordinator, DescribeGroups and ConsumerGroupDescribe.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as ConsumerGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use kafka_protocol::messages::describe_groups_response::{
    DescribedGroup as ClassicGroup, DescribedGroupMember,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator as TheirCoordinator;

use super::super::groups::*;
use super::*;

fn coordinators() -> impl Strategy<Value = Coordinator> {
    (
        texts(),
        error_codes(),
        maybe_texts(),
        any::<i32>(),
        texts(),
        any::<i32>(),
    )
        .prop_map(|(group, error, message, node, host, port)| Coordinator {
            group,
            error,
            message,
            node,
            host,
            port,
        })
}

fn members() -> impl Strategy<Value = DescribedMember> {
    let assignment = few((texts(), vec(any::<i32>(), 0..4)));
    (texts(), maybe_texts(), texts(), texts(), assignment).prop_map(
        |(member_id, instance_id, client_id, host, assignment)| DescribedMember {
            member_id,
            instance_id,
            client_id,
            host,
            assignment: Some(assignment),
        },
    )
}

fn groups() -> impl Strategy<Value = DescribedGroup> {
    (error_codes(), maybe_texts(), texts(), texts(), few(members())).prop_map(
        |(error, message, group, state, members)| DescribedGroup {
            error,
            message,
            group,
            state,
            protocol_type: CONSUMER.to_owned(),
            assignor: "range".to_owned(),
            members,
        },
    )
}

/// The assignment as a member of the group writes it, with user data.
fn written_by_member(assignment: &[(String, Vec<i32>)], version: i16) -> Vec<u8> {
    let topic = |(name, partitions): &(String, Vec<i32>)| {
        TopicPartition::default()
            .with_topic(topic_name(name))
            .with_partitions(partitions.clone())
    };
    let mut bytes = version.to_be_bytes().to_vec();
    ConsumerProtocolAssignment::default()
        .with_assigned_partitions(assignment.iter().map(topic).collect())
        .with_user_data(Some(b"user data".to_vec().into()))
        .encode(&mut bytes, version)
        .unwrap();
    bytes
}

fn classic_member(member: &DescribedMember, assignment: Vec<u8>) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(member.instance_id.as_deref().map(text))
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.host))
        .with_member_metadata(b"subscription".to_vec().into())
        .with_member_assignment(assignment.into())
}

fn classic_group(group: &DescribedGroup, members: Vec<DescribedGroupMember>) -> ClassicGroup {
    ClassicGroup::default()
        .with_error_code(group.error.0)
        .with_group_id(group_id(&group.group))
        .with_group_state(text(&group.state))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text("range"))
        .with_members(members)
}

fn consumer_member(member: &DescribedMember) -> Member {
    let topic = |(name, partitions): &(String, Vec<i32>)| {
        TopicPartitions::default()
            .with_topic_name(topic_name(name))
            .with_partitions(partitions.clone())
            .with_unknown_tagged_field(4, vec![0; 3].into())
    };
    let assigned = member.assignment.iter().flatten().map(topic).collect();
    let target = TopicPartitions::default().with_topic_name(topic_name("target"));
    Member::default()
        .with_member_id(text(&member.member_id))
        .with_instance_id(member.instance_id.as_deref().map(text))
        .with_rack_id(Some(text("rack")))
        .with_member_epoch(3)
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.host))
        .with_subscribed_topic_names(vec![topic_name("a"), topic_name("b")])
        .with_subscribed_topic_regex(Some(text("a|b")))
        .with_assignment(Assignment::default().with_topic_partitions(assigned))
        .with_target_assignment(Assignment::default().with_topic_partitions(vec![target]))
}

proptest! {
    #[test]
    fn find_coordinator_of_one_group(group in texts(), mut answer in coordinators()) {
        let request: theirs::FindCoordinatorRequest =
            written(&FindCoordinator { groups: vec![group.clone()] }, 1);
        prop_assert_eq!(request, theirs::FindCoordinatorRequest::default().with_key(text(&group)));

        let theirs = theirs::FindCoordinatorResponse::default()
            .with_error_code(answer.error.0)
            .with_error_message(answer.message.as_deref().map(text))
            .with_node_id(answer.node.into())
            .with_host(text(&answer.host))
            .with_port(answer.port);
        answer.group.clear();
        prop_assert_eq!(read_back::<FindCoordinator, _>(&theirs, 1), vec![answer]);
    }

    #[test]
    fn find_coordinator_of_several_groups(groups in few(texts()), answer in few(coordinators())) {
        let keys = groups.iter().map(|group| text(group)).collect();
        let request: theirs::FindCoordinatorRequest = written(&FindCoordinator { groups }, 4);
        prop_assert_eq!(request, theirs::FindCoordinatorRequest::default().with_coordinator_keys(keys));

        let coordinator = |coordinator: &Coordinator| {
            TheirCoordinator::default()
                .with_key(text(&coordinator.group))
                .with_node_id(coordinator.node.into())
                .with_host(text(&coordinator.host))
                .with_port(coordinator.port)
                .with_error_code(coordinator.error.0)
                .with_error_message(coordinator.message.as_deref().map(text))
                .with_unknown_tagged_field(1, vec![1].into())
        };
        let theirs = theirs::FindCoordinatorResponse::default()
            .with_coordinators(answer.iter().map(coordinator).collect());
        prop_assert_eq!(read_back::<FindCoordinator, _>(&theirs, 4), answer);
    }

    #[test]
    fn describe_groups(
        requested in few(texts()),
        mut answer in few(groups()),
        assignment_version in 0..4_i16,
    ) {
        let ids = requested.iter().map(|group| group_id(group)).collect();
        let request: theirs::DescribeGroupsRequest = written(&DescribeGroups { groups: requested }, 4);
        prop_assert_eq!(request, theirs::DescribeGroupsRequest::default().with_groups(ids));

        let member = |member: &DescribedMember| {
            let assignment = member.assignment.as_deref().unwrap();
            classic_member(member, written_by_member(assignment, assignment_version))
        };
        let group = |group: &DescribedGroup| {
            classic_group(group, group.members.iter().map(member).collect())
        };
        let theirs =
            theirs::DescribeGroupsResponse::default().with_groups(answer.iter().map(group).collect());
        answer.iter_mut().for_each(|group| group.message = None);
        prop_assert_eq!(read_back::<DescribeGroups, _>(&theirs, 4), answer);
    }

    #[test]
    fn consumer_group_describe(requested in few(texts()), answer in few(groups())) {
        let ids = requested.iter().map(|group| group_id(group)).collect();
        let request: theirs::ConsumerGroupDescribeRequest =
            written(&ConsumerGroupDescribe { groups: requested }, 0);
        prop_assert_eq!(request, theirs::ConsumerGroupDescribeRequest::default().with_group_ids(ids));

        let group = |group: &DescribedGroup| {
            ConsumerGroup::default()
                .with_error_code(group.error.0)
                .with_error_message(group.message.as_deref().map(text))
                .with_group_id(group_id(&group.group))
                .with_group_state(text(&group.state))
                .with_group_epoch(4)
                .with_assignment_epoch(5)
                .with_assignor_name(text("range"))
                .with_members(group.members.iter().map(consumer_member).collect())
        };
        let theirs = theirs::ConsumerGroupDescribeResponse::default()
            .with_groups(answer.iter().map(group).collect())
            .with_unknown_tagged_field(300, vec![0; 300].into());
        prop_assert_eq!(read_back::<ConsumerGroupDescribe, _>(&theirs, 0), answer);
    }

    #[test]
    fn a_damaged_assignment_never_damages_the_answer(
        bytes in vec(prop_oneof![0..4_u8, any::<u8>()], 1..40),
    ) {
        let group = described_with(CONSUMER, bytes);
        prop_assert_eq!(&group.members[0].client_id, "client");
    }
}

/// A group of this type with one member that has this assignment.
fn described_with(protocol_type: &str, assignment: Vec<u8>) -> DescribedGroup {
    let member = DescribedMember {
        member_id: "member".to_owned(),
        instance_id: None,
        client_id: "client".to_owned(),
        host: "/10.0.0.1".to_owned(),
        assignment: None,
    };
    let group = DescribedGroup {
        error: ErrorCode::NONE,
        message: None,
        group: "group".to_owned(),
        state: "Stable".to_owned(),
        protocol_type: protocol_type.to_owned(),
        assignor: "range".to_owned(),
        members: Vec::new(),
    };
    let theirs = classic_group(&group, vec![classic_member(&member, assignment)]);
    let theirs = theirs::DescribeGroupsResponse::default().with_groups(vec![theirs]);
    read_back::<DescribeGroups, _>(&theirs, 4).remove(0)
}

#[test]
fn an_assignment_is_empty_malformed_or_that_of_another_protocol() {
    let one_topic = vec![("orders".to_owned(), vec![0, 1])];
    let whole = written_by_member(&one_topic, 1);
    let assignment = |protocol_type: &str, bytes: &[u8]| {
        let members = described_with(protocol_type, bytes.to_vec()).members;
        members[0].assignment.clone()
    };
    assert_eq!(assignment(CONSUMER, &whole), Some(one_topic.clone()));
    assert_eq!(assignment(CONSUMER, &[]), Some(Vec::new()));
    // The version, and the user data that is missing.
    let without_user_data = &whole[..whole.len() - b"user data".len() - 4];
    assert_eq!(assignment(CONSUMER, without_user_data), Some(one_topic));
    assert_eq!(assignment(CONSUMER, &whole[..20]), None);
    assert_eq!(assignment(CONSUMER, &[0xff, 0xff, 0, 0, 0, 0]), None);
    assert_eq!(assignment(CONSUMER, &[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    assert_eq!(assignment("connect", &whole), None);
}
