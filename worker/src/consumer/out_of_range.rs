//! Partitions whose position was out of range, as `consumer.onOffsetOutOfRange` says: retention removed the
//! records there before they were read, or the committed offset lies behind the end. Nothing is skipped in
//! silence: the log and the status have the range, and a metric counts the records. Records that were fetched before are
//! processed first.

use crds::spec::OnOffsetOutOfRange;

use super::{
    PollLoop,
    assigned::{AssignedPartition, OutOfRange},
};
use crate::record::{Offset, TopicPartition};

impl PollLoop {
    /// Takes the partitions that the client found out of range, and stops those that have read everything
    /// before, or lets them continue at the end.
    pub(super) fn serve_out_of_range(&mut self) {
        for (partition, offset) in self.callbacks.out_of_range.take() {
            self.out_of_range(&partition, offset);
        }
        let policy = self.config.on_offset_out_of_range;
        for entry in &mut self.assigned {
            let Some(offset) = entry.past_range() else {
                continue;
            };
            let partition = &entry.partition.clone();
            match policy {
                // librdkafka has continued there.
                OnOffsetOutOfRange::Earliest => {}
                OnOffsetOutOfRange::Latest => {
                    let known = self
                        .client
                        .cached_watermarks(&partition.topic, partition.partition);
                    let Some((low, end)) = known else { continue };
                    if low > offset {
                        let records = entry.was_removed_unread(offset, low);
                        self.shared.metrics.removed_unread(partition, records);
                    }
                    tracing::warn!(
                        %partition, from = offset, up_to = end, first = low,
                        "the offset is out of range: continuing at the end (consumer.onOffsetOutOfRange is Latest)"
                    );
                    entry.skip_to(end);
                }
                OnOffsetOutOfRange::Stop => {
                    let message = format!(
                        "offset {offset} of {partition} is out of range, and consumer.onOffsetOutOfRange is \
                         Stop: retention has removed its records, or the offset lies behind the end; set \
                         Earliest or Latest, or stop the group, set its offset of this partition, and start it \
                         again"
                    );
                    tracing::warn!("{message}");
                    entry.park_out_of_range(offset, &message);
                }
            }
        }
    }

    fn out_of_range(&mut self, partition: &TopicPartition, offset: Offset) {
        let reads = |entry: &&mut AssignedPartition| entry.partition == *partition && entry.is_read();
        let present = self.callbacks.topic_ids.of(&partition.topic);
        let Some(entry) = self.assigned.iter_mut().find(reads) else {
            return;
        };
        let ids = entry.topic_id().zip(present.as_ref());
        if ids.is_some_and(|(own, present)| own != present) {
            // The offset belongs to a deleted topic.
            self.topic_recreated(&partition.topic, None);
        } else {
            entry.was_out_of_range(offset);
        }
    }

    /// Reports where partitions have continued that were out of range.
    pub(super) fn report_out_of_range(&mut self) {
        for entry in &mut self.assigned {
            entry.finish_skip();
            if self.config.on_offset_out_of_range != OnOffsetOutOfRange::Earliest {
                continue;
            }
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
                Some(OutOfRange::BehindTheEnd) => match entry.bounded_end() {
                    Some(to) => tracing::warn!(
                        "the log of {partition} ends at {high}, before {to}: brokers have lost records after the \
                         plan was made; the run waits until the log has grown. Plan it again to process what is \
                         left"
                    ),
                    None => tracing::warn!(
                        %partition, offset = from, end = high,
                        "the offset lies behind the end of the partition: its records are read again from the \
                         first one"
                    ),
                },
                None => {}
            }
        }
    }
}
