//! The memory of one group between two reconciles. All of it is reproducible: losing it costs reads and at
//! most one repeated write, never correctness.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroupStatus;
use k8s_openapi::api::apps::v1::Deployment;

use super::known_members::MembersMemory;
use super::terminations::HandledTerminations;
use crate::group::members::Others;
use crate::group::references::ObjectKind;

/// A group counts as healthy for this long after it was last healthy: a cooperative rebalance takes two
/// rounds of heartbeats (3 s each) plus the drain time of the slowest worker, and must not make Ready flap.
pub const HEALTHY_FOR: Duration = Duration::from_secs(30);
/// A converging group is reconciled more often, but only for this long: watch events and the normal refresh
/// follow a longer rollout.
const CONVERGING: Duration = Duration::from_secs(120);

/// The memory of one group.
#[derive(Debug, Default)]
pub struct GroupMemory {
    /// Children that were verified or applied, by kind.
    pub verified: HashMap<&'static str, VerifiedChild>,
    /// The Deployment as the last apply returned it; the watch may lag behind.
    pub deployment: Option<Arc<Deployment>>,
    /// Data of Secrets and ConfigMaps, with its resource version.
    pub data: BTreeMap<(ObjectKind, String), Versioned>,
    /// The last time that brokers answered and all partitions were assigned.
    pub healthy_at: Option<Instant>,
    /// Hash of the last provisioned dead letter topic, and when.
    pub provisioned: Option<(String, Instant)>,
    /// Since when this operator writes the status.
    pub since: Option<Instant>,
    /// The last written status, and when.
    pub written: Option<(KafkaConsumerGroupStatus, Instant)>,
    /// The status that the API server returned then.
    pub returned: Option<KafkaConsumerGroupStatus>,
    /// The generation that is converging, and since when.
    pub converging: Option<(i64, Instant)>,
    /// The claim that this operator has replaced, and when.
    pub claimed: Option<(Option<String>, Instant)>,
    /// Another operator that serves the group.
    pub served_by: Option<String>,
    /// The number that this operator last saw or wrote in spec.replicas as its own.
    pub mirrored: Option<i32>,
    /// Another client that has set spec.replicas, and for which generation the API server was asked.
    pub replicas_set_by: Option<(Option<i64>, String)>,
    /// Since when the compiler has not judged a program of the group.
    pub unjudged_since: Option<Instant>,
    /// Members of the consumer group.
    pub members: MembersMemory,
    /// Those that are not workers, as of the last time that the group was not rebalancing.
    pub others: Others,
    /// Ends of worker processes that need nothing more.
    pub dead_workers: HandledTerminations,
    /// Children that others had changed and that were restored, for Events that are not published yet.
    pub restored: Vec<String>,
    /// Children that were restored lately.
    pub restorations: Vec<Restoration>,
    /// Failed reconciles in a row.
    pub failures: u32,
}

/// One restoration of a child.
#[derive(Debug)]
pub struct Restoration {
    at: Instant,
    kind: &'static str,
    what: String,
}

/// A resource version and the data of that version.
pub type Versioned = (String, BTreeMap<String, Vec<u8>>);

/// A child that was verified or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChild {
    /// Hash of the object that was applied.
    pub desired: String,
    /// The resource version of the live object at that time.
    pub resource_version: String,
    /// Hash of the live object at that time, without status and bookkeeping.
    pub fingerprint: String,
}

/// Restored so often within [`CONTESTED_WITHIN`], a child is contested: another client, such as an HPA or a
/// GitOps tool, writes it too.
const CONTESTED: usize = 3;
const CONTESTED_WITHIN: Duration = Duration::from_secs(120);
/// A contested child is restored this long after the last time at the earliest: two clients that correct each
/// other must not do so all the time.
const CONTESTED_PAUSE: Duration = Duration::from_secs(5);
/// And until it was left unchanged for this long. An HPA writes every 15 s.
const CONTESTED_UNTIL: Duration = Duration::from_secs(20);

impl GroupMemory {
    /// Remembers that a child was restored.
    pub fn restored(&mut self, kind: &'static str, what: String, now: Instant) {
        self.restorations
            .retain(|past| now.duration_since(past.at) < CONTESTED_WITHIN);
        self.restored.push(what.clone());
        self.restorations.push(Restoration { at: now, kind, what });
    }

    /// What was restored last, if that happens to the same child again and again, and still does.
    pub fn contested(&self, now: Instant) -> Option<&str> {
        let mut latest_first = self.restorations.iter().rev();
        let contested = latest_first.find(|past| self.is_contested(past.kind, now))?;
        Some(&contested.what)
    }

    fn is_contested(&self, kind: &str, now: Instant) -> bool {
        let within = |limit| {
            let same = self.restorations.iter().filter(|past| past.kind == kind);
            same.filter(|past| now.duration_since(past.at) < limit).count()
        };
        within(CONTESTED_UNTIL) > 0 && within(CONTESTED_WITHIN) >= CONTESTED
    }

    /// Whether a child of this kind is left for a moment as another client has changed it.
    pub fn is_left(&self, kind: &str, now: Instant) -> bool {
        let last = self.restorations.iter().rfind(|past| past.kind == kind);
        let recent = last.is_some_and(|past| now.duration_since(past.at) < CONTESTED_PAUSE);
        recent && self.is_contested(kind, now)
    }

    /// True if all partitions were assigned within the last [`HEALTHY_FOR`].
    pub fn recently_healthy(&self, now: Instant) -> bool {
        self.healthy_at
            .is_some_and(|at| now.duration_since(at) < HEALTHY_FOR)
    }

    /// Time until the next reconcile.
    pub fn next_requeue(
        &mut self,
        generation: i64,
        converging: bool,
        refresh: Duration,
        now: Instant,
    ) -> Duration {
        if !converging {
            self.converging = None;
            return refresh;
        }
        let since = match self.converging {
            Some((seen, since)) if seen == generation => since,
            _ => {
                self.converging = Some((generation, now));
                now
            }
        };
        // Two seconds: workers join and the group becomes stable within a few seconds, and a user is probably
        // watching.
        if now.duration_since(since) < CONVERGING {
            refresh.min(Duration::from_secs(2))
        } else {
            refresh
        }
    }

    /// Backoff after an error: 1 s doubling to a minute.
    pub fn backoff(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs(1 << self.failures.saturating_sub(1).min(6)).min(Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_converging_group_is_reconciled_often_for_a_limited_time() {
        let (mut memory, refresh, start) = (GroupMemory::default(), Duration::from_secs(15), Instant::now());
        let often = Duration::from_secs(2);
        assert_eq!(memory.next_requeue(1, true, refresh, start), often);
        assert_eq!(memory.next_requeue(1, true, refresh, start + CONVERGING), refresh);
        assert_eq!(memory.next_requeue(2, true, refresh, start + CONVERGING), often);
        assert_eq!(
            memory.next_requeue(2, false, refresh, start + CONVERGING),
            refresh
        );
    }

    #[test]
    fn backoff_doubles_to_a_minute() {
        let mut memory = GroupMemory::default();
        let waits: Vec<u64> = (0..8).map(|_| memory.backoff().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_child_that_is_restored_again_and_again_is_contested() {
        let (mut memory, start) = (GroupMemory::default(), Instant::now());
        for second in [0, 20, 40] {
            assert_eq!(memory.contested(start + Duration::from_secs(second)), None);
            let what = "Deployment a by hpa".to_string();
            memory.restored("Deployment", what, start + Duration::from_secs(second));
        }
        assert_eq!(
            memory.contested(start + Duration::from_secs(41)),
            Some("Deployment a by hpa")
        );
        assert!(memory.is_left("Deployment", start + Duration::from_secs(44)));
        assert!(!memory.is_left("ConfigMap", start + Duration::from_secs(44)));
        assert!(!memory.is_left("Deployment", start + Duration::from_secs(45)));
        assert_eq!(memory.contested(start + Duration::from_secs(66)), None);
    }

    #[test]
    fn two_contested_children_are_both_left_and_another_one_changes_nothing() {
        let (mut memory, start) = (GroupMemory::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        for second in [0, 10, 20] {
            memory.restored("Deployment", "Deployment a".into(), at(second));
            memory.restored("ConfigMap", "ConfigMap a".into(), at(second));
        }
        assert!(memory.is_left("Deployment", at(22)) && memory.is_left("ConfigMap", at(22)));
        memory.restored("Role", "Role a was deleted".into(), at(23));
        assert_eq!(memory.contested(at(24)), Some("ConfigMap a"));
        assert!(!memory.is_left("Role", at(24)));
    }

    #[test]
    fn different_children_that_are_restored_once_are_not_contested() {
        let (mut memory, now) = (GroupMemory::default(), Instant::now());
        for kind in ["Role", "RoleBinding", "ConfigMap", "Deployment"] {
            memory.restored(kind, format!("{kind} a was deleted"), now);
        }
        assert_eq!(memory.contested(now), None);
        assert_eq!(memory.restored.len(), 4);
    }

    #[test]
    fn a_group_counts_as_healthy_for_half_a_minute() {
        let (mut memory, start) = (GroupMemory::default(), Instant::now());
        assert!(!memory.recently_healthy(start));
        memory.healthy_at = Some(start);
        assert!(memory.recently_healthy(start + Duration::from_secs(29)));
        assert!(!memory.recently_healthy(start + Duration::from_secs(31)));
    }
}
