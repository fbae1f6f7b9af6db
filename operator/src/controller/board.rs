//! What the API shows of the groups. In: the resources of the caches, and what was read from Kafka last. Out:
//! groups on the board. Reads no Kafka and no API server of its own, so that open dashboards cost them nothing.
//! A group that has not changed stays the same allocation.

mod dead_letters;
mod group;
mod positions;
mod reports;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use self::dead_letters::DeadLetters;
use self::positions::Positions;
use self::view::View;
use super::caches::{Filled, Guarded};
use crate::api::board::Board;
use crate::api::model::{Group, Role};
use crate::kafka::KafkaClients;
use crate::kafka::model::{GroupKey, KafkaFacts, KafkaProblem};

/// What was read is shown for at least this long when nothing is read any more, for example because another
/// operator serves the group now.
const OUTDATED: Duration = Duration::from_secs(120);
/// A read that is due may take this long.
const LATE: Duration = Duration::from_secs(30);

/// What was read about a group, and when.
type Answer = (Instant, Result<KafkaFacts, KafkaProblem>);

/// Where groups come from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The resources, by scope.
    pub groups: Vec<(Store<Guarded>, Filled)>,
    /// None while this operator stands by: then only the status of each resource is known.
    pub kafka: Option<KafkaClients>,
}

impl Sources {
    /// Before that, a missing group means nothing.
    pub fn are_filled(&self) -> bool {
        !self.groups.is_empty() && self.groups.iter().all(|(_, filled)| filled.get())
    }
}

/// Publishes groups, and remembers what it has published.
pub struct Publisher {
    board: Arc<Board>,
    known: HashMap<GroupKey, Known>,
}

/// What is known of a group.
#[derive(Debug, Default)]
struct Known {
    /// Resource version that is shown.
    version: Option<String>,
    /// When Kafka was read.
    read: Option<Instant>,
    kafka: View,
    positions: Positions,
    dead_letters: DeadLetters,
    shown: Option<Arc<Group>>,
}

impl Publisher {
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            known: HashMap::new(),
        }
    }

    /// Shows all groups as they are now.
    pub fn publish(&mut self, sources: &Sources) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.known);
        let mut shown = Vec::with_capacity(before.len());
        for resource in sources.groups.iter().flat_map(|(store, _)| store.state()) {
            let key = GroupKey::new(&resource.namespace().unwrap_or_default(), &resource.name_any());
            let mut known = before.remove(&key).unwrap_or_default();
            shown.push(known.update(&key, &resource, sources.kafka.as_ref(), now));
            self.known.insert(key, known);
        }
        let role = match sources.kafka {
            Some(_) => Role::Leader,
            None => Role::Standby,
        };
        self.board.show(shown, role, Timestamp::now());
    }
}

impl Known {
    /// Takes in what has changed.
    fn update(
        &mut self,
        key: &GroupKey,
        resource: &Guarded,
        kafka: Option<&KafkaClients>,
        now: Instant,
    ) -> Arc<Group> {
        let mut changed = self.read_kafka(key, kafka, now);
        let version = resource.resource_version();
        if self.version != version || version.is_none() {
            self.version = version;
            let status = resource.0.as_ref().ok().and_then(|group| group.status.as_ref());
            self.dead_letters.note(status, now);
            changed = true;
        }
        let dead_letters = self.dead_letters.last_minute(now);
        if let Some(shown) = &self.shown
            && !changed
            && shown.summary.dead_letters_per_minute == dead_letters
        {
            return Arc::clone(shown);
        }
        let group = match &resource.0 {
            Ok(group) => group::group(group, &self.kafka, &self.positions, dead_letters),
            Err(invalid) => group::unreadable(key, &invalid.error),
        };
        // A write that changes nothing that is shown, such as an annotation.
        let same = self.shown.take().filter(|shown| **shown == group);
        let shown = same.unwrap_or_else(|| Arc::new(group));
        self.shown = Some(Arc::clone(&shown));
        shown
    }

    /// True if something was read, or what was read is too old now.
    fn read_kafka(&mut self, key: &GroupKey, kafka: Option<&KafkaClients>, now: Instant) -> bool {
        let latest = kafka.and_then(|kafka| kafka.latest(key, self.read));
        let refresh = kafka.map_or(Duration::ZERO, KafkaClients::refresh);
        self.take_answer(
            latest,
            OUTDATED.max(refresh.saturating_mul(2).saturating_add(LATE)),
            now,
        )
    }

    /// Takes in an answer that is new. `read` stays when it is too old: the same answer must not come again.
    fn take_answer(&mut self, latest: Option<Answer>, longest: Duration, now: Instant) -> bool {
        let Some((at, outcome)) = latest else {
            let old = self.read.is_some_and(|read| now.duration_since(read) > longest);
            let outdated = old && !matches!(self.kafka, View::Outdated);
            if outdated {
                self.kafka = View::Outdated;
            }
            return outdated;
        };
        self.read = Some(at);
        self.kafka = match outcome {
            Err(problem) => View::Failed(problem),
            Ok(facts) => {
                let has_lag = facts.lag.is_some();
                if let Some(lag) = facts.lag {
                    self.positions.note(lag, facts.read_at);
                }
                View::Known {
                    topics: facts.topics,
                    has_lag,
                }
            }
        };
        true
    }
}

#[cfg(test)]
mod tests;
