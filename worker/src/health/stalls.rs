//! Finds stalled partitions: those that have work to do and make no progress. In: the partitions of the poll
//! loop's snapshot, several times a second. Out: since when each one has been stalled, and what changed.
//! Knows no clock and triggers nothing else: a paused partition resumes without this module, or its status
//! shows why it does not.
//!
//! Work to do is a record that was read and is not finished, a record that arrived since the last progress
//! and was not read, or a reason that pauses the partition. Lag alone does not count: transaction markers at
//! the end of a partition are never read, so the lag may stay above 0 indefinitely.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    health::snapshot::{PartitionSnapshot, PausedReason},
    record::{Offset, TopicPartition},
};

/// Watches the partitions of a worker.
#[derive(Debug)]
pub struct Stalls {
    after: Duration,
    marks: HashMap<(TopicPartition, u64), Mark>,
}

/// When a partition last made progress or had no work to do.
#[derive(Clone, Debug)]
struct Mark {
    watermark: Option<Offset>,
    lag: Option<i64>,
    at: Instant,
    since: Timestamp,
    stalled: bool,
}

/// A partition stalled or made progress again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The partition.
    pub partition: TopicPartition,
    /// True: it stalled. False: it made progress again.
    pub stalled: bool,
}

impl Stalls {
    /// `after` is the time without progress after which a partition counts as stalled.
    pub fn new(after: Duration) -> Self {
        Self {
            after,
            marks: HashMap::new(),
        }
    }

    /// Calls [`Stalls::observe`] with the present time and logs each change.
    pub fn look(&mut self, partitions: &mut [PartitionSnapshot], paused: bool) {
        for Change { partition, stalled } in
            self.observe(partitions, paused, Instant::now(), Timestamp::now())
        {
            if stalled {
                let same = |it: &&PartitionSnapshot| {
                    *it.topic == *partition.topic && it.partition == partition.partition
                };
                let found = partitions.iter().find(same);
                tracing::warn!(
                    %partition,
                    offset = found.and_then(|found| found.watermark),
                    in_flight = found.map(|found| found.in_flight),
                    reason = found.and_then(|found| found.paused_reason).map(|reason| reason.as_str()),
                    "partition stalled: no progress for {} s",
                    self.after.as_secs()
                );
            } else {
                tracing::info!(%partition, "partition makes progress again");
            }
        }
    }

    /// Sets `stalled_since` of each partition and returns the partitions that changed. `paused` is true if
    /// the resource pauses the group, so no progress is expected. Durations are measured with `now`; `wall`
    /// is the time to show.
    pub fn observe(
        &mut self,
        partitions: &mut [PartitionSnapshot],
        paused: bool,
        now: Instant,
        wall: Timestamp,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.marks);
        for shown in partitions {
            let partition = TopicPartition::new(shown.topic.as_str(), shown.partition);
            let key = (partition, shown.assignment_epoch);
            let fresh = Mark {
                watermark: shown.watermark,
                lag: shown.lag,
                at: now,
                since: wall,
                stalled: false,
            };
            let mut mark = before.remove(&key).unwrap_or_else(|| fresh.clone());
            let arrived = shown.lag > mark.lag && mark.lag.is_some();
            let paused_by_problem = shown
                .paused_reason
                .is_some_and(|reason| reason != PausedReason::Paused);
            let work = shown.in_flight > 0 || arrived || paused_by_problem;
            if paused || !work || shown.watermark != mark.watermark {
                if mark.stalled {
                    changes.push(Change {
                        partition: key.0.clone(),
                        stalled: false,
                    });
                }
                mark = fresh;
            } else if !mark.stalled && now.duration_since(mark.at) >= self.after {
                mark.stalled = true;
                changes.push(Change {
                    partition: key.0.clone(),
                    stalled: true,
                });
            }
            shown.stalled_since = mark.stalled.then_some(mark.since);
            // Partitions that are no longer assigned are dropped.
            self.marks.insert(key, mark);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::snapshot::PausedReason;

    const AFTER: Duration = Duration::from_secs(300);

    /// The code under test, and the present time.
    struct Fixture {
        stalls: Stalls,
        start: Instant,
        seconds: u64,
        assignment_epoch: u64,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                stalls: Stalls::new(AFTER),
                start: Instant::now(),
                seconds: 0,
                assignment_epoch: 1,
            }
        }

        fn wall(seconds: u64) -> Timestamp {
            Timestamp::from_second(1_000_000 + seconds as i64).unwrap()
        }

        /// Observes after this many seconds; returns the second since which the partition is stalled, and
        /// what changed.
        fn look(
            &mut self,
            seconds: u64,
            watermark: i64,
            in_flight: u64,
            lag: Option<i64>,
            paused: bool,
        ) -> (Option<u64>, Vec<bool>) {
            self.seconds += seconds;
            let mut shown = [PartitionSnapshot {
                topic: "orders".into(),
                partition: 3,
                assignment_epoch: self.assignment_epoch,
                committed: None,
                watermark: Some(watermark),
                lag,
                in_flight,
                oldest: None,
                paused_reason: (in_flight > 0).then_some(PausedReason::WriterUnavailable),
                stalled_since: None,
                skipped_by_retention: None,
            }];
            let now = self.start + Duration::from_secs(self.seconds);
            let changes = self
                .stalls
                .observe(&mut shown, paused, now, Self::wall(self.seconds));
            let since = (0..=self.seconds).find(|second| shown[0].stalled_since == Some(Self::wall(*second)));
            assert_eq!(since.is_some(), shown[0].stalled_since.is_some());
            (since, changes.iter().map(|change| change.stalled).collect())
        }
    }

    #[test]
    fn a_stall_of_unfinished_work_and_its_end_are_each_reported_once() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.look(10, 7, 5, None, false), (None, vec![]));
        assert_eq!(fixture.look(299, 7, 5, None, false), (None, vec![]));
        assert_eq!(fixture.look(1, 7, 5, None, false), (Some(10), vec![true]));
        assert_eq!(fixture.look(1000, 7, 9, None, false), (Some(10), vec![]));
        assert_eq!(fixture.look(1, 8, 8, None, false), (None, vec![false]));
        assert_eq!(fixture.look(299, 8, 8, None, false), (None, vec![]));
        assert_eq!(fixture.look(1, 8, 8, None, false), (Some(1311), vec![true]));
        // Finished to the last record.
        assert_eq!(fixture.look(1, 16, 0, None, false), (None, vec![false]));
    }

    #[test]
    fn slow_is_not_stalled() {
        let mut fixture = Fixture::new();
        for watermark in 0..20 {
            assert_eq!(fixture.look(299, watermark, 5, Some(1000), false), (None, vec![]));
        }
    }

    #[test]
    fn unread_records_that_arrive_count_but_markers_at_the_end_do_not() {
        let mut fixture = Fixture::new();
        for _ in 0..5 {
            assert_eq!(fixture.look(1000, 7, 0, Some(1), false), (None, vec![]));
        }
        assert_eq!(fixture.look(1, 7, 0, Some(2), false), (None, vec![]));
        assert_eq!(fixture.look(300, 7, 0, Some(2), false), (Some(5000), vec![true]));
        assert_eq!(fixture.look(1, 9, 0, Some(0), false), (None, vec![false]));
    }

    #[test]
    fn an_idle_partition_has_the_full_time_from_its_next_record() {
        let mut fixture = Fixture::new();
        fixture.look(0, 7, 0, Some(0), false);
        assert_eq!(fixture.look(5000, 7, 0, Some(0), false), (None, vec![]));
        assert_eq!(fixture.look(1, 7, 1, Some(1), false), (None, vec![]));
        assert_eq!(fixture.look(200, 7, 1, Some(1), false), (None, vec![]));
    }

    #[test]
    fn a_requested_pause_is_no_stall_and_restarts_the_time() {
        let mut fixture = Fixture::new();
        fixture.look(0, 7, 5, Some(5), false);
        assert_eq!(fixture.look(1000, 7, 5, Some(5), true), (None, vec![]));
        assert_eq!(fixture.look(299, 7, 5, Some(5), false), (None, vec![]));
        assert_eq!(fixture.look(1, 7, 5, Some(5), false), (Some(1000), vec![true]));
        assert_eq!(fixture.look(1, 7, 5, Some(5), true), (None, vec![false]));
    }

    #[test]
    fn a_new_assignment_restarts_the_time() {
        let mut fixture = Fixture::new();
        fixture.look(0, 7, 5, None, false);
        fixture.look(300, 7, 5, None, false);
        fixture.assignment_epoch = 2;
        assert_eq!(fixture.look(1, 7, 5, None, false), (None, vec![]));
        assert_eq!(fixture.stalls.marks.len(), 1);
    }
}
