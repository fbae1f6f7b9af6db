//! Partitions whose position was out of range, as `consumer.onOffsetOutOfRange` says: retention removed the
//! records there before they were read, or the committed offset lies behind the end. Nothing is skipped in
//! silence: the log has the range, and a metric counts the records.

use crds::spec::OnOffsetOutOfRange;
use rdkafka::{
    consumer::Consumer,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::{AssignedPartition, OutOfRange},
    rewind::SEEK_BUDGET,
};
use crate::record::{Offset, TopicPartition};

impl PollLoop {
    /// Takes the partitions that the client found out of range.
    pub(super) fn serve_out_of_range(&mut self) {
        for (partition, offset) in self.callbacks.out_of_range.take() {
            self.out_of_range(&partition, offset);
        }
    }

    fn out_of_range(&mut self, partition: &TopicPartition, offset: Offset) {
        let policy = self.config.on_offset_out_of_range;
        let reads = |entry: &&mut AssignedPartition| {
            entry.partition == *partition && !entry.is_draining() && !entry.is_parked()
        };
        let Some(entry) = self.assigned.iter_mut().find(reads) else {
            return;
        };
        match policy {
            OnOffsetOutOfRange::Earliest => entry.was_out_of_range(offset),
            OnOffsetOutOfRange::Latest => {
                let mut end = TopicPartitionList::new();
                let added = end.add_partition_offset(&partition.topic, partition.partition, KafkaOffset::End);
                let sought = added.and_then(|()| self.client.consumer().seek_partitions(end, SEEK_BUDGET));
                match sought {
                    Ok(_) => tracing::warn!(
                        %partition, offset,
                        "the offset is out of range: continuing at the end (consumer.onOffsetOutOfRange is Latest)"
                    ),
                    Err(error) => {
                        entry.was_out_of_range(offset);
                        self.errors.note(&format!(
                            "cannot seek to the end of {partition} after its offset was out of range, so it \
                             continues at the first record: {error}"
                        ));
                    }
                }
            }
            OnOffsetOutOfRange::Stop => {
                let message = format!(
                    "offset {offset} of {partition} is out of range, and consumer.onOffsetOutOfRange is Stop: \
                     retention has removed its records, or the offset lies behind the end; set Earliest or \
                     Latest, or stop the group, set its offset of this partition, and start it again"
                );
                tracing::warn!("{message}");
                entry.park_out_of_range(offset, &message);
            }
        }
    }

    /// Reports where partitions have continued that were out of range.
    pub(super) fn report_out_of_range(&mut self) {
        for entry in &mut self.assigned {
            let (topic, number) = (&entry.partition.topic, entry.partition.partition);
            let (Some(from), Some((low, high))) = (
                entry.out_of_range_at(),
                self.client.cached_watermarks(topic, number),
            ) else {
                continue;
            };
            let partition = &entry.partition.clone();
            match entry.resolve_out_of_range(low, high) {
                Some(OutOfRange::Removed { records }) => {
                    tracing::warn!(
                        %partition, from, up_to = low, records,
                        "retention has removed records before they were read: continuing at the first one left"
                    );
                    self.shared.metrics.removed_unread(partition, records);
                }
                Some(OutOfRange::BehindTheEnd) => tracing::warn!(
                    %partition, offset = from, end = high,
                    "the offset lies behind the end of the partition: its records are read again from the first one"
                ),
                None => {}
            }
        }
    }
}
