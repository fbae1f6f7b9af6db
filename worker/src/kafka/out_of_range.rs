//! Positions that were out of range: the records there were removed before they were read, or the partition
//! ends before. In: log lines of librdkafka, which then continues at the first record. Out: the partitions and
//! their positions. librdkafka 2.12 reports this only in its log.

use std::sync::Mutex;

use crate::{
    record::{Offset, TopicPartition},
    sync,
};

/// The partitions of one consumer that were out of range, until the poll loop takes them.
#[derive(Default)]
pub(crate) struct OutOfRange(Mutex<Vec<(TopicPartition, Offset)>>);

impl OutOfRange {
    /// Takes a line of librdkafka's log.
    pub fn read(&self, line: &str) {
        if let Some((topic, partition, offset)) = parse(line) {
            sync::lock(&self.0).push((TopicPartition::new(topic, partition), offset));
        }
    }

    /// The position of this partition that was out of range, if the poll loop has not taken it yet.
    pub fn take_of(&self, topic: &str, partition: i32) -> Option<Offset> {
        let mut found = sync::lock(&self.0);
        let is = |(of, _): &(TopicPartition, Offset)| *of.topic == *topic && of.partition == partition;
        let offset = found.iter().rfind(|entry| is(entry))?.1;
        found.retain(|entry| !is(entry));
        Some(offset)
    }

    /// The partition is read from another position.
    pub fn forget(&self, partition: &TopicPartition) {
        sync::lock(&self.0).retain(|(of, _)| of != partition);
    }

    /// The partitions since the last call, each with the position that was out of range.
    pub fn take(&self) -> Vec<(TopicPartition, Offset)> {
        std::mem::take(&mut sync::lock(&self.0))
    }
}

/// Topic, partition and offset in a line such as `orders [3]: offset reset (at offset 41 (leader epoch 0),
/// broker 1) to cached BEGINNING offset offset 90 (leader epoch -1): fetch failed due to requested offset not
/// available on the broker: Broker: Offset out of range`.
fn parse(line: &str) -> Option<(&str, i32, Offset)> {
    let line = line.strip_suffix("Broker: Offset out of range")?;
    let (place, rest) = line.split_once("]: offset reset (at offset ")?;
    let (topic, partition) = place.rsplit_once(" [")?;
    // The name of the thread may come first.
    let topic = topic.rsplit_once(' ').map_or(topic, |(_, topic)| topic);
    let (offset, _) = rest.split_once(|c: char| !c.is_ascii_digit())?;
    Some((topic, partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "[thrd:main]: orders [3]: offset reset (at offset 41 (leader epoch 0), broker 1) to \
                        cached BEGINNING offset offset 90 (leader epoch -1): fetch failed due to requested \
                        offset not available on the broker: Broker: Offset out of range";

    #[test]
    fn the_partition_and_its_position_are_taken_once() {
        let found = OutOfRange::default();
        found.read(LINE);
        assert_eq!(found.take_of("orders", 2), None);
        assert_eq!(found.take_of("orders", 3), Some(41));
        assert!(found.take().is_empty());
        found.read(LINE);
        assert_eq!(found.take(), [(TopicPartition::new("orders", 3), 41)]);
        found.read(LINE);
        found.forget(&TopicPartition::new("orders", 3));
        assert!(found.take().is_empty());
    }

    #[test]
    fn resets_for_other_reasons_mean_nothing() {
        let found = OutOfRange::default();
        for other in [
            LINE.replace("Offset out of range", "Request timed out"),
            LINE.replace("at offset 41 (leader epoch 0)", "at BEGINNING (leader epoch -1)"),
            "Broker: Offset out of range".into(),
            String::new(),
        ] {
            found.read(&other);
        }
        assert!(found.take().is_empty());
    }
}
