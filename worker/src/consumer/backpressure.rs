//! Backpressure: how much the loop may read, and which partitions it pauses so that they do not fill the
//! memory that others need.

use rdkafka::{consumer::Consumer, topic_partition_list::TopicPartitionList};

use super::{PollLoop, assigned::AssignedPartition};

/// Limit of in-flight records per assigned partition, in batches: one being written, one waiting, two being
/// read.
const BATCHES_IN_FLIGHT: usize = 4;

impl PollLoop {
    /// Bytes that may be read now; 0 when nothing may be read.
    pub(super) fn read_budget(&self) -> usize {
        if self.stopping.is_some() || self.is_rewinding() {
            return 0;
        }
        let records: usize = self.assigned.iter().map(AssignedPartition::in_flight).sum();
        if records >= self.max_in_flight() {
            return 0;
        }
        let bytes = self.assigned.iter().map(AssignedPartition::bytes_in_flight).sum();
        self.config.bytes_in_flight.saturating_sub(bytes)
    }

    /// Limit of in-flight records, all partitions together.
    fn max_in_flight(&self) -> usize {
        self.config.max_records * BATCHES_IN_FLIGHT * self.assigned.len().max(1)
    }

    /// Pauses partitions that cannot make progress, so that they do not fill the memory that others need, and
    /// resumes them once they can.
    pub(super) fn pause_and_resume(&mut self) {
        let mut pause = TopicPartitionList::new();
        let mut resume = TopicPartitionList::new();
        let several = self.assigned.len() > 1;
        let limit = self.config.bytes_in_flight;
        let most = self.max_in_flight();
        for entry in self.assigned.iter_mut().filter(|entry| !entry.is_draining()) {
            let bytes = entry.bytes_in_flight();
            let stuck = entry.problems.oldest().paused_reason.is_some() || entry.is_far_ahead();
            // Wide hysteresis: pausing discards the prefetched records, and resuming takes up to a second.
            let part = if entry.fetch_paused { 8 } else { 2 };
            // A partition that is only busy may hold all the records: being the only busy one is no reason to
            // pause it.
            let failing = entry.problems.oldest().attempts > 0;
            let greedy = several && (bytes > limit / part || failing && entry.in_flight() > most / part);
            let fetch_paused = self.paused || stuck || greedy || entry.is_read_out();
            if fetch_paused != entry.fetch_paused {
                entry.fetch_paused = fetch_paused;
                let list = if fetch_paused { &mut pause } else { &mut resume };
                list.add_partition(&entry.partition.topic, entry.partition.partition);
            }
        }
        for (list, name) in [(&pause, "pause"), (&resume, "resume")] {
            if list.count() == 0 {
                continue;
            }
            let consumer = self.client.consumer();
            let done = if name == "pause" {
                consumer.pause(list)
            } else {
                consumer.resume(list)
            };
            if let Err(error) = done {
                self.errors.note(&format!("{name}: {error}"));
            }
        }
    }
}
