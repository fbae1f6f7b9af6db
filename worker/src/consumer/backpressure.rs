//! Backpressure: how much may be read, and which partitions are paused so that they do not fill the memory that others need.

use rdkafka::{consumer::Consumer, topic_partition_list::TopicPartitionList};

use super::{PollLoop, assigned::AssignedPartition};

/// In-flight records per assigned partition, in batches: one being written, one waiting, two being read.
const BATCHES_IN_FLIGHT: usize = 4;

impl PollLoop {
    /// Bytes that may be read now; 0 when nothing may be.
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

    /// Records of all partitions together.
    fn max_in_flight(&self) -> usize {
        self.config.max_records * BATCHES_IN_FLIGHT * self.assigned.len().max(1)
    }

    /// Pauses partitions that cannot go on, so that they do not fill the memory that others need, and resumes them.
    pub(super) fn pause_and_resume(&mut self) {
        let mut pause = TopicPartitionList::new();
        let mut resume = TopicPartitionList::new();
        let several = self.assigned.len() > 1;
        let limit = self.config.bytes_in_flight;
        let most = self.max_in_flight();
        for entry in self.assigned.iter_mut().filter(|entry| !entry.draining) {
            let bytes = entry.bytes_in_flight();
            let stuck = entry.problems.oldest().paused_reason.is_some() || entry.is_far_ahead();
            // Wide hysteresis: pausing throws the prefetched records away and resuming takes up to a second.
            let part = if entry.fetch_paused { 8 } else { 2 };
            // One that is only busy may have all the records: it is not stopped for being the only one.
            let troubled = entry.problems.oldest().attempts > 0;
            let greedy = several && (bytes > limit / part || troubled && entry.in_flight() > most / part);
            let hold = self.paused || stuck || greedy;
            if hold != entry.fetch_paused {
                entry.fetch_paused = hold;
                let list = if hold { &mut pause } else { &mut resume };
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
