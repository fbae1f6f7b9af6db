//! A reset in phase Resetting: its plan is stored, and may be committed in part.

use super::*;
use crate::kafka::model::PartlyCommitted;
use crate::operations::planned_for::planned_for;

#[test]
fn a_stored_plan_is_committed_whatever_has_changed_meanwhile() {
    for changes in [
        json!({}),
        json!({"stopGroup": true}),
        json!({"to": {"type": "Shift", "by": -3}}),
    ] {
        let mut scenario = Scenario::new(changes).phase(ResetPhase::Resetting);
        scenario.desired(DesiredState::Running);
        scenario.before = Some("first");
        let situation = scenario.situation();
        assert!(matches!(situation.question(), Ok(Question::Commit(_))));
    }
}

#[test]
fn a_stored_plan_is_committed_for_no_other_group() {
    let mut scenario = Scenario::new(json!({})).phase(ResetPhase::Resetting);
    scenario.reset.status.as_mut().unwrap().planned_for = Some(planned_for(&group(), None));
    assert!(matches!(scenario.situation().question(), Ok(Question::Commit(_))));
    scenario.group.as_mut().unwrap().metadata.uid = Some("4-5-6".into());
    assert_eq!(short(&scenario.step()), "Failed GroupChanged");
    // Nobody waits for a group that is deleted.
    scenario.group = None;
    let failed = scenario.step();
    assert_eq!(short(&failed), "Failed GroupChanged");
    let why = message(failed);
    assert!(why.contains("was deleted") && why.contains("may be set"), "{why}");
}

#[test]
fn a_commit_succeeds_waits_for_members_or_names_what_is_missing() {
    let mut scenario = Scenario::new(json!({})).phase(ResetPhase::Resetting);
    let committed = |scenario: &Scenario, outcome| short(&scenario.situation().after_commit(Ok(outcome)));
    let members = || ResetOutcome::Members(vec![member()]);
    let partly = || {
        ResetOutcome::Partly(PartlyCommitted {
            committed: vec![("orders".into(), 0)],
            failed: BTreeMap::from([(("orders".to_string(), 1), "denied".to_string())]),
        })
    };
    assert_eq!(committed(&scenario, ResetOutcome::Committed), "succeed");
    let elsewhere = ResetOutcome::OtherCluster("there".into());
    assert_eq!(committed(&scenario, elsewhere), "Failed GroupChanged");
    assert_eq!(committed(&scenario, members()), "Resetting WaitingForMembers");
    assert_eq!(committed(&scenario, partly()), "Resetting PartlyCommitted");
    scenario.obstructed_for = LEAVES_WITHIN;
    assert_eq!(committed(&scenario, members()), "Failed GroupNotEmpty");
    let failed = message(scenario.situation().after_commit(Ok(members())));
    // An attempt before this one may have set some.
    assert!(
        failed.contains("may be set") && !failed.contains("nothing was changed"),
        "{failed}"
    );
    assert_eq!(committed(&scenario, partly()), "Failed PartlyCommitted");
    let failed = scenario.situation().after_commit(Ok(partly()));
    assert!(message(failed).contains("orders-1"), "names the partition");
    // A worker that is still there has joined before the group was held.
    scenario.workers.left = 1;
    assert_eq!(committed(&scenario, members()), "Resetting WaitingForMembers");
}
