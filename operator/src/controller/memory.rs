//! What the operator remembers about one group between two reconciles, all of it reproducible: losing it costs reads
//! and at most one repeated write, never correctness.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroupStatus;
use k8s_openapi::api::apps::v1::Deployment;

use crate::group::references::ObjectKind;
use crate::kafka::model::{FactsQuery, KafkaFacts};

/// How long a group counts as well after it was seen well: a cooperative rebalance takes two rounds of heartbeats
/// (3 s each) plus the drain budget of the slowest worker, and must not make Ready flap.
pub const SETTLING: Duration = Duration::from_secs(30);
/// While something converges a group is looked at more often, but not for ever: a rollout that takes longer than this
/// is followed by watch events and by the normal refresh.
const CONVERGING: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug, Default)]
pub struct GroupMemory {
    /// Children that were found or made as wanted.
    pub marks: HashMap<&'static str, Mark>,
    /// The Deployment as the last apply returned it; the watch may lag behind.
    pub deployment: Option<Arc<Deployment>>,
    /// Contents of Secrets and ConfigMaps by resource version.
    pub data: BTreeMap<(ObjectKind, String), Versioned>,
    /// The last facts with the question they answer.
    pub facts: Option<(FactsQuery, Instant, KafkaFacts)>,
    /// The last time that brokers answered and all partitions had owners.
    pub healthy_at: Option<Instant>,
    /// Hash of the topics that were provisioned, and when.
    pub provisioned: Option<(String, Instant)>,
    /// The last status that was written, and when.
    pub written: Option<(KafkaConsumerGroupStatus, Instant)>,
    /// Generation and start of what is converging now.
    pub converging: Option<(i64, Instant)>,
    /// Reconciles that failed in a row.
    pub failures: u32,
}

/// A resource version and the data of that version.
pub type Versioned = (String, BTreeMap<String, Vec<u8>>);

/// One verified child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Hash of the object that was applied.
    pub desired: String,
    /// The live object's resource version then.
    pub resource_version: String,
    /// Hash of what the live object held then, without status and bookkeeping.
    pub fingerprint: String,
}

impl GroupMemory {
    /// True while all partitions were recently seen with their owners.
    pub fn settling(&self, now: Instant) -> bool {
        self.healthy_at
            .is_some_and(|at| now.duration_since(at) < SETTLING)
    }

    /// How long to wait before the next look.
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
        // Two seconds: workers join and the group settles within a few, and a user is probably watching.
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
    fn converging_groups_are_looked_at_often_but_not_for_ever() {
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
    fn a_group_settles_for_half_a_minute() {
        let (mut memory, start) = (GroupMemory::default(), Instant::now());
        assert!(!memory.settling(start));
        memory.healthy_at = Some(start);
        assert!(memory.settling(start + Duration::from_secs(29)));
        assert!(!memory.settling(start + Duration::from_secs(31)));
    }
}
