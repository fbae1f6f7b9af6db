//! DeleteGroups.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;

use super::super::delete_groups::*;
use super::*;

proptest! {
    #[test]
    fn delete_groups(groups in few(texts()), answer in few((texts(), error_codes()))) {
        for version in DeleteGroups::VERSIONS.iter().copied() {
            let request: theirs::DeleteGroupsRequest = written(&DeleteGroups { groups: groups.clone() }, version);
            let expected = theirs::DeleteGroupsRequest::default()
                .with_groups_names(groups.iter().map(|group| group_id(group)).collect());
            prop_assert_eq!(request, expected);

            let result = |(group, error): &(String, ErrorCode)| {
                DeletableGroupResult::default()
                    .with_group_id(group_id(group))
                    .with_error_code(error.0)
            };
            let theirs = theirs::DeleteGroupsResponse::default()
                .with_results(answer.iter().map(result).collect());
            prop_assert_eq!(&read_back::<DeleteGroups, _>(&theirs, version), &answer);
        }
    }
}
