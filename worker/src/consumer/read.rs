//! Reading: into the chunks of the partitions while there is room, and holding back the partitions that cannot go on.

use rdkafka::{
    consumer::Consumer,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{PollLoop, TICK, assigned::AssignedPartition, rewind::SEEK_BUDGET};
use crate::kafka::ffi::Read;

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

    /// Reads what is there, waiting a tick at most, and puts it into the chunks of its partitions. Of large records no more than
    /// there is `read_budget` for in bytes, as far as the last ones tell how large they are.
    pub(super) fn read(&mut self, limit: usize, read_budget: usize) {
        let limit = limit.min((read_budget / self.record_bytes.max(1)).max(1));
        let Self {
            record_bytes,
            source,
            assigned,
            config,
            ..
        } = self;
        let mut run: Option<(usize, i32, Option<usize>)> = None;
        let mut errors = Vec::new();
        let mut bytes = 0;
        let read = source.drain(TICK, limit, |read| match read {
            Read::Record(message) => {
                let (topic, partition) = (message.topic_id(), message.partition());
                let index = match run {
                    Some((run_topic, run_partition, index))
                        if (run_topic, run_partition) == (topic, partition) =>
                    {
                        index
                    }
                    _ => {
                        let found = position(assigned, message.topic(), partition);
                        run = Some((topic, partition, found));
                        found
                    }
                };
                // Not ours (any more): whoever gets the partition reads it again.
                bytes += message.bytes();
                let Some(entry) = index.and_then(|index| assigned.get_mut(index)) else {
                    return;
                };
                let Some(chunk_for) = entry.chunk_for(message.offset(), message.timestamp()) else {
                    return;
                };
                if chunk_for.is_empty() {
                    chunk_for.log_append_time = message.log_append_time();
                }
                chunk_for.push(
                    message.offset(),
                    message.timestamp(),
                    message.key(),
                    message.value(),
                    config.headers.then(|| message.headers()).into_iter().flatten(),
                );
                if entry.is_full(config.max_records, config.max_bytes) {
                    entry.dispatch();
                }
            }
            Read::Error(topic, partition, offset, code) => {
                errors.push(format!("reading {topic}-{partition}: {code}"));
                // The batch call moves the position behind whatever it gives out, so also behind an error at the next record.
                if offset >= 0
                    && let Some(index) = position(assigned, topic, partition)
                {
                    assigned[index].seek_to(offset);
                }
            }
        });
        if let Some(mean) = bytes.checked_div(read) {
            *record_bytes = mean;
        }
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.take(read);
        }
        for error in errors {
            self.note_error(&error);
        }
    }

    /// Reads partitions again from where librdkafka's position is not to be trusted any more.
    pub(super) fn seek(&mut self) {
        let mut targets = TopicPartitionList::new();
        for entry in &self.assigned {
            if let Some(offset) = entry.pending_seek().filter(|_| !entry.draining) {
                let (topic, partition) = (&entry.partition.topic, entry.partition.partition);
                // Fails only for offsets that are no offsets; ours come from the broker.
                let _ = targets.add_partition_offset(topic, partition, KafkaOffset::Offset(offset));
            }
        }
        if targets.count() == 0 {
            return;
        }
        match self.source.consumer().seek_partitions(targets, SEEK_BUDGET) {
            Ok(reached) => {
                for element in reached
                    .elements()
                    .iter()
                    .filter(|element| element.error().is_ok())
                {
                    if let Some(index) = position(&self.assigned, element.topic(), element.partition()) {
                        self.assigned[index].seek_done();
                    }
                }
            }
            Err(error) => self.note_error(&format!("seek: {error}")),
        }
    }

    /// Takes in how far idle partitions are read, which may be behind their last record: transaction markers are none.
    /// Not from end-of-partition events: for one at offset n, the batch call moves the position to n + 1, from where
    /// reading goes on after a pause, without record n.
    pub(super) fn pass_markers(&mut self) {
        if !self.assigned.iter().any(AssignedPartition::is_idle) {
            return;
        }
        let Ok(positions) = self.source.consumer().position() else {
            return;
        };
        for element in positions.elements() {
            if let KafkaOffset::Offset(offset) = element.offset()
                && let Some(index) = position(&self.assigned, element.topic(), element.partition())
            {
                self.assigned[index].read_up_to(offset);
            }
        }
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
            let consumer = self.source.consumer();
            let done = if name == "pause" {
                consumer.pause(list)
            } else {
                consumer.resume(list)
            };
            if let Err(error) = done {
                self.note_error(&format!("{name}: {error}"));
            }
        }
    }
}

/// Where a partition that is being read is in the list.
fn position(assigned: &[AssignedPartition], topic: &str, partition: i32) -> Option<usize> {
    assigned.iter().position(|entry| {
        entry.partition.partition == partition && *entry.partition.topic == *topic && !entry.draining
    })
}
