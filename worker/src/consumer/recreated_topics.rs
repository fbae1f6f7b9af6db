//! The topics that were deleted and created again and whose partitions have not started again. Does not know the
//! poll loop.

use std::{collections::BTreeMap, time::Instant};

use crate::{offsets::commit_metadata, record::topic_id::TopicId};

/// Recreated topics whose partitions have not started again, with the id of the deleted topic if known.
pub(super) struct RecreatedTopics {
    pub pending: BTreeMap<String, Option<TopicId>>,
    pub retry_at: Instant,
}

impl RecreatedTopics {
    pub fn new(now: Instant) -> Self {
        Self {
            pending: BTreeMap::new(),
            retry_at: now,
        }
    }

    /// Its partitions have started again.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// If a committed offset with this metadata belongs to a deleted topic of the same name: its id, if known.
    pub fn deleted(&self, topic: &str, present: Option<&TopicId>, metadata: &str) -> Option<Option<TopicId>> {
        match (commit_metadata::topic_id(metadata), present) {
            (Some(id), Some(present)) if id.shares_cluster(present) => (id != *present).then_some(Some(id)),
            (Some(_), _) => None,
            (None, _) => self.pending.get(topic).cloned(),
        }
    }
}
