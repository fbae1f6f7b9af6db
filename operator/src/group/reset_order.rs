//! Which offset reset of a group is first, and whether one holds the workers of the group. In: the
//! KafkaOffsetResets of a namespace. Out: names. Pure.

use crds::KafkaOffsetReset;
use crds::offset_reset::ResetPhase;
use jiff::Timestamp;
use kube::ResourceExt;

/// The phase of a reset; Pending before the operator has seen it.
pub fn phase(reset: &KafkaOffsetReset) -> ResetPhase {
    let phase = reset.status.as_ref().and_then(|status| status.phase);
    phase.unwrap_or(ResetPhase::Pending)
}

/// Whether it will commit offsets, or does. A finalizer may keep one that is deleted.
fn is_open(reset: &KafkaOffsetReset) -> bool {
    !reset.spec.dry_run && !phase(reset).is_final() && reset.metadata.deletion_timestamp.is_none()
}

/// A plan that is stored precedes, because it may be committed in part. Then the oldest, then the name.
fn rank(reset: &KafkaOffsetReset) -> (bool, Option<Timestamp>, String) {
    let created = reset.creation_timestamp().map(|time| time.0);
    (phase(reset) != ResetPhase::Resetting, created, reset.name_any())
}

/// The reset of the same group that has to end before this one starts. Dry runs do not wait.
pub fn first_before<'a>(
    reset: &KafkaOffsetReset,
    all: impl IntoIterator<Item = &'a KafkaOffsetReset>,
) -> Option<String> {
    if reset.spec.dry_run {
        return None;
    }
    let others = all.into_iter().filter(|other| {
        is_open(other)
            && other.namespace() == reset.namespace()
            && other.spec.group_ref == reset.spec.group_ref
            && other.name_any() != reset.name_any()
    });
    let first = others.min_by_key(|other| rank(other))?;
    (rank(first) < rank(reset)).then(|| first.name_any())
}

/// The reset that holds the group at 0 workers. One that stops the group does so until it ends; each does while
/// it commits, so that no worker starts between two partitions.
pub fn hold<'a>(group: &str, resets: impl IntoIterator<Item = &'a KafkaOffsetReset>) -> Option<String> {
    let holding = resets.into_iter().filter(|reset| {
        let holds = match phase(reset) {
            ResetPhase::Stopping => reset.spec.stop_group,
            ResetPhase::Resetting => true,
            ResetPhase::Pending | ResetPhase::Succeeded | ResetPhase::Failed => false,
        };
        holds && is_open(reset) && reset.spec.group_ref.name == group
    });
    holding
        .min_by_key(|reset| rank(reset))
        .map(|reset| reset.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::reset;

    fn with(name: &str, created: &str, phase: ResetPhase) -> KafkaOffsetReset {
        let mut reset = reset(name, serde_json::json!({"stopGroup": true}));
        reset.metadata.creation_timestamp = Some(serde_json::from_value(created.into()).unwrap());
        reset.status = Some(crds::KafkaOffsetResetStatus {
            phase: Some(phase),
            ..Default::default()
        });
        reset
    }

    #[test]
    fn the_oldest_open_reset_of_the_group_is_first() {
        use ResetPhase::{Failed, Pending, Resetting, Succeeded};
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let ended = [with("a", early, Succeeded), with("b", early, Failed)];
        let first = with("y", early, Pending);
        let same_time = with("z", early, Pending);
        let second = with("c", late, Pending);
        let mut all: Vec<_> = ended.into_iter().collect();
        all.extend([first.clone(), same_time.clone(), second.clone()]);
        assert_eq!(first_before(&first, &all), None);
        assert_eq!(first_before(&same_time, &all).as_deref(), Some("y"));
        assert_eq!(first_before(&second, &all).as_deref(), Some("y"));
        // Clocks of API servers differ, so one that has started stays first.
        all.push(with("started", late, Resetting));
        assert_eq!(first_before(&first, &all).as_deref(), Some("started"));
        let mut dry = second;
        dry.spec.dry_run = true;
        assert_eq!(first_before(&dry, &all), None);
        let mut elsewhere = with("elsewhere", early, Pending);
        elsewhere.metadata.namespace = Some("bank".into());
        let mut other_group = with("other", early, Pending);
        other_group.spec.group_ref.name = "returns".into();
        let mut dry = with("dry", early, Pending);
        dry.spec.dry_run = true;
        let all = [elsewhere, other_group, dry];
        assert_eq!(first_before(&with("last", late, Pending), &all), None);
    }

    #[test]
    fn a_reset_that_is_deleted_neither_holds_nor_precedes() {
        for phase in [ResetPhase::Pending, ResetPhase::Stopping, ResetPhase::Resetting] {
            let mut deleted = with("deleted", "2026-01-01T00:00:00Z", phase);
            deleted.metadata.finalizers = Some(vec!["example.com/audit".into()]);
            deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
            let next = with("next", "2026-01-02T00:00:00Z", ResetPhase::Pending);
            assert_eq!(hold("orders", [&deleted]), None, "{phase}");
            assert_eq!(first_before(&next, [&deleted, &next]), None, "{phase}");
        }
    }

    #[test]
    fn a_group_is_held_while_it_stops_and_while_offsets_are_committed() {
        use ResetPhase::{Failed, Pending, Resetting, Stopping, Succeeded};
        let created = "2026-01-01T00:00:00Z";
        for (phase, stops, holds) in [
            (Pending, true, false),
            (Stopping, true, true),
            (Stopping, false, false),
            (Resetting, true, true),
            (Resetting, false, true),
            (Succeeded, true, false),
            (Failed, true, false),
        ] {
            let mut reset = with("again", created, phase);
            reset.spec.stop_group = stops;
            let held = hold("orders", [&reset]);
            assert_eq!(held.as_deref(), holds.then_some("again"), "{phase} {stops}");
            assert_eq!(hold("returns", [&reset]), None);
            reset.spec.dry_run = true;
            assert_eq!(hold("orders", [&reset]), None);
        }
        let mut unseen = with("again", created, Pending);
        unseen.status = None;
        assert_eq!(hold("orders", [&unseen]), None);
    }
}
