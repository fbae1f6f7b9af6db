//! Reading: records go into the chunks of their partitions. Also seeks, and how far idle partitions are read.

use std::time::Duration;

use crds::spec::OnOffsetOutOfRange;
use rdkafka::{
    consumer::Consumer,
    error::RDKafkaErrorCode,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop, TICK, assigned::AssignedPartition, bounded_run::denies_existence, rewind::SEEK_BUDGET,
};
use crate::kafka::ffi::Read;

impl PollLoop {
    /// Reads at most `limit` records, waiting for the first one a tick at most, and adds them to the chunks of their
    /// partitions. Reads fewer if they would need more than `budget` bytes, estimated from the size of the
    /// records of the last read.
    pub(super) fn read(&mut self, limit: usize, budget: usize) {
        let limit = self.pace.fitting(limit, budget);
        let wait = self.read_wait();
        let Self {
            client,
            callbacks,
            assigned,
            config,
            bounded,
            ..
        } = self;
        let continues_out_of_range = config.on_offset_out_of_range == OnOffsetOutOfRange::Earliest;
        let mut recreated = Vec::new();
        let mut run: Option<(usize, i32, Option<usize>)> = None;
        let mut errors = Vec::new();
        let (mut records, mut bytes, mut outside) = (0, 0, 0);
        let (mut seek_again, mut denied) = (false, false);
        client.drain(wait, limit, |read| match read {
            Read::Record(message) => {
                let (topic, partition) = (message.topic_id(), message.partition());
                let index = match run {
                    Some((run_topic, run_partition, index))
                        if (run_topic, run_partition) == (topic, partition) =>
                    {
                        index
                    }
                    _ => {
                        let found = position(assigned, message.topic(), partition).filter(|index| {
                            let present = callbacks.topic_ids.of(message.topic());
                            let fits = bounded
                                .as_ref()
                                .is_none_or(|run| run.bounds.fits(message.topic(), present.as_ref()));
                            let continues = fits && assigned[*index].continues(present.as_ref());
                            if !continues {
                                recreated.push(message.topic().to_owned());
                            } else if let Some(at) =
                                callbacks.out_of_range.take_of(message.topic(), partition)
                            {
                                assigned[*index].was_out_of_range(at);
                            }
                            continues
                        });
                        run = Some((topic, partition, found));
                        found
                    }
                };
                // Without an entry, the partition is not assigned to this worker (any more): its next owner
                // reads the record again. Or the record is the first one of a recreated topic: the partition
                // starts again.
                records += 1;
                bytes += message.bytes();
                let Some(entry) = index.and_then(|index| assigned.get_mut(index)) else {
                    outside += 1;
                    return;
                };
                if !entry.admits(message.offset()) {
                    seek_again |= entry.pending_seek().is_some();
                    outside += 1;
                    return;
                }
                if entry.continues_at(message.offset()) && !continues_out_of_range {
                    return;
                }
                let Some(chunk) = entry.chunk_for(message.offset(), message.timestamp()) else {
                    return;
                };
                if chunk.is_empty() {
                    chunk.log_append_time = message.log_append_time();
                }
                chunk.push(
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
            Read::Error(topic, partition, offset, RDKafkaErrorCode::PartitionEOF) => {
                if let Some(index) = position(assigned, topic, partition) {
                    seek_again |= assigned[index].log_ends(offset);
                }
            }
            Read::Error(topic, partition, offset, code) => {
                denied |= denies_existence(code);
                errors.push(format!("reading {topic}-{partition}: {code}"));
                // The batch call moves the position behind everything that it returns, so also behind an
                // error at the next record.
                if offset >= 0
                    && let Some(index) = position(assigned, topic, partition)
                {
                    assigned[index].seek_to(offset);
                }
            }
        });
        // Events, such as the end of a partition, are no records: they have no size and use no rate.
        self.pace.took(records, bytes, outside);
        for topic in recreated {
            self.topic_recreated(&topic, None);
        }
        for error in errors {
            self.errors.note(&error);
        }
        let Some(run) = &mut self.bounded else { return };
        if denied {
            run.suspect_gone();
        }
        if seek_again {
            self.seek();
        }
        if self
            .assigned
            .iter()
            .any(|entry| entry.is_read_out() && !entry.fetch_paused)
        {
            // Soon, because what the client fetches now is not needed.
            self.pause_and_resume();
        }
    }

    /// How long to wait for a record: no open chunk must be dispatched late.
    fn read_wait(&self) -> Duration {
        let open = self.assigned.iter().filter(|entry| !entry.is_draining());
        let waits = open.filter_map(|entry| entry.check_again_in(self.config.linger));
        waits.min().map_or(TICK, |wait| wait.min(TICK))
    }

    /// Seeks in partitions whose position in librdkafka cannot be trusted any more.
    pub(super) fn seek(&mut self) {
        let mut targets = TopicPartitionList::new();
        for entry in &self.assigned {
            if let Some(offset) = entry.pending_seek().filter(|_| !entry.is_draining()) {
                let (topic, partition) = (&entry.partition.topic, entry.partition.partition);
                // Fails only for invalid offsets; these come from the broker.
                let _ = targets.add_partition_offset(topic, partition, KafkaOffset::Offset(offset));
            }
        }
        if targets.count() == 0 {
            return;
        }
        match self.client.consumer().seek_partitions(targets, SEEK_BUDGET) {
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
            Err(error) => self.errors.note(&format!("seek: {error}")),
        }
    }

    /// Updates how far idle partitions are read. That may be behind their last record, because transaction
    /// markers are not records. End-of-partition events, which only bounded runs
    /// have, are no source for it: for one at offset n, the batch
    /// call moves the position to n + 1, and reading would continue there after a pause, without record n.
    pub(super) fn advance_past_markers(&mut self) {
        if !self.assigned.iter().any(AssignedPartition::is_idle) {
            return;
        }
        let Ok(positions) = self.client.consumer().position() else {
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
}

/// The index of a partition in the list, unless it is draining or parked.
fn position(assigned: &[AssignedPartition], topic: &str, partition: i32) -> Option<usize> {
    assigned.iter().position(|entry| {
        entry.partition.partition == partition && *entry.partition.topic == *topic && entry.is_read()
    })
}
