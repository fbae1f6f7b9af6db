//! Positions and rates of partitions. In: what two reads of Kafka have found. Out: offsets, and records per
//! second between the two. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::kafka::model::{Lag, Partition};

/// Reads that follow each other sooner are averaged with the one before: a rate of a second would jump.
const SHORTEST: f64 = 5.0;

/// The last read, and one before it.
#[derive(Debug, Default)]
pub struct Positions {
    last: Option<Read>,
    before: Option<Read>,
}

#[derive(Debug)]
struct Read {
    at: Timestamp,
    partitions: BTreeMap<Partition, Position>,
}

/// A partition at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub end: i64,
    /// Records between the committed offset and the end.
    pub lag: i64,
}

/// Records per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub incoming: f64,
    pub done: f64,
}

impl Positions {
    pub fn note(&mut self, lag: Lag, at: Timestamp) {
        let ends = lag.ends;
        let position = |(partition, lag): (Partition, i64)| {
            let end = ends.get(&partition).copied()?;
            Some((partition, Position { end, lag }))
        };
        let read = Read {
            at,
            partitions: lag.per_partition.into_iter().filter_map(position).collect(),
        };
        let soon = |before: &Read| seconds(before.at, at) < SHORTEST;
        match self.last.take() {
            Some(last) if self.before.is_some() && soon(&last) => {}
            last => self.before = last,
        }
        self.last = Some(read);
    }

    /// The lag of all partitions.
    pub fn total(&self) -> Option<i64> {
        let last = self.last.as_ref()?;
        Some(last.partitions.values().map(|position| position.lag).sum())
    }

    pub fn of(&self, partition: &Partition) -> Option<Position> {
        self.last.as_ref()?.partitions.get(partition).copied()
    }

    /// None before two reads, and when a partition has begun again.
    pub fn rates(&self, partition: &Partition) -> Option<Rates> {
        let (last, before) = (self.last.as_ref()?, self.before.as_ref()?);
        let (new, old) = (last.partitions.get(partition)?, before.partitions.get(partition)?);
        let seconds = seconds(before.at, last.at);
        if seconds <= 0.0 || new.end < old.end {
            return None;
        }
        // A committed offset may be set back; then nothing was done.
        let done = (new.end - new.lag) - (old.end - old.lag);
        Some(Rates {
            incoming: (new.end - old.end) as f64 / seconds,
            done: done.max(0) as f64 / seconds,
        })
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(end: i64, lag: i64) -> Lag {
        let partition = ("orders".to_string(), 0);
        Lag {
            per_partition: [(partition.clone(), lag)].into(),
            ends: [(partition, end)].into(),
            total: lag,
            max: lag,
            max_partition: None,
        }
    }

    #[test]
    fn rates_are_those_between_two_reads() {
        let (mut positions, partition) = (Positions::default(), ("orders".to_string(), 0));
        let at = |second| Timestamp::from_second(second).unwrap();
        positions.note(lag(1000, 100), at(0));
        assert_eq!(positions.rates(&partition), None, "unknown is not 0");
        assert_eq!(
            (positions.total(), positions.of(&partition)),
            (Some(100), Some(Position { end: 1000, lag: 100 }))
        );
        positions.note(lag(1150, 50), at(10));
        let rates = Rates {
            incoming: 15.0,
            done: 20.0,
        };
        assert_eq!(positions.rates(&partition), Some(rates));
        // A read a second later counts from the first one.
        positions.note(lag(1165, 45), at(11));
        assert_eq!(positions.rates(&partition).unwrap().incoming, 15.0);
        // The committed offset was set back, then the topic was created again.
        positions.note(lag(1165, 500), at(21));
        assert_eq!(positions.rates(&partition).unwrap().done, 0.0);
        positions.note(lag(3, 3), at(31));
        assert_eq!(positions.rates(&partition), None);
    }
}
