//! The snapshot: the state of the worker that others can see.

use super::{PollLoop, transaction_driver::TransactionDriver};
use crate::health::snapshot::{Snapshot, most_severe_error};

impl PollLoop {
    /// Publishes the snapshot. Status, metrics and probes read it.
    pub(super) fn publish(&mut self) {
        let outage = self.transactions.as_ref().and_then(TransactionDriver::problem);
        let mut shown: Vec<_> = self
            .assigned
            .iter()
            .map(|entry| {
                let end = self
                    .client
                    .cached_end(&entry.partition.topic, entry.partition.partition);
                entry.snapshot(self.paused, end, outage.as_ref())
            })
            .collect();
        shown.sort_by(|(a, _), (b, _)| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let (mut partitions, errors): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
        self.stalls.look(&mut partitions, self.paused);
        self.shared
            .metrics
            .paused_partitions(partitions.iter().filter_map(|partition| partition.paused_reason));
        let reasons = partitions.iter().map(|partition| partition.paused_reason);
        let failing = most_severe_error(reasons.zip(errors))
            // Also without assigned partitions.
            .or_else(|| outage.and_then(|outage| outage.last_error));
        self.handles.snapshot.publish(Snapshot {
            worker: self.config.worker.clone(),
            group_id: self.config.group.clone(),
            phase: self.phase,
            paused: self.paused,
            records_total: self.counters.done,
            dead_lettered_total: self.counters.dead_lettered,
            skipped_total: self.counters.skipped,
            last_error: failing.or_else(|| self.errors.last().cloned()),
            partitions,
        });
    }
}
