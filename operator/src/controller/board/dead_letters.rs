//! Dead letters of the last minute. In: what the workers report since their starts. Out: how much it has grown.
//! Pure; the time is a parameter.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroupStatus;

use super::reports;

const MINUTE: Duration = Duration::from_secs(60);

/// What workers have reported.
#[derive(Debug, Default)]
pub struct DeadLetters {
    /// The last number of each worker.
    workers: BTreeMap<String, i64>,
    /// The last number of all workers together, if the status does not list each of them.
    all: Option<i64>,
    /// When numbers have grown, and by how much.
    grown: VecDeque<(Instant, i64)>,
    /// Since when it is known.
    since: Option<Instant>,
}

impl DeadLetters {
    /// Notes the status of a group. A worker that is new has counted before this operator knew it.
    pub fn note(&mut self, status: Option<&KafkaConsumerGroupStatus>, now: Instant) {
        let Some(status) = status else { return };
        if reports::missing(status).is_some() {
            // What happens until the next report cannot be dated.
            *self = Self::default();
            return;
        }
        let totals = status.worker_totals.as_ref();
        let all =
            totals.filter(|all| usize::try_from(all.reporting).is_ok_and(|it| it > status.workers.len()));
        if let Some(now_all) = all.map(|all| all.dead_lettered_total) {
            // It shrinks when a worker goes.
            let grown = self.all.map_or(0, |before| (now_all - before).max(0));
            self.all = Some(now_all);
            self.workers.clear();
            self.grew(grown, now);
            return;
        }
        self.all = None;
        let reports = status.workers.iter();
        let reports: BTreeMap<String, i64> = reports
            .map(|worker| (worker.name.clone(), worker.dead_lettered_total))
            .collect();
        let grown = reports.iter().filter_map(|(name, count)| {
            let before = self.workers.get(name).copied();
            // A worker that was restarted counts from 0.
            before.map(|before| if count < &before { *count } else { count - before })
        });
        let grown: i64 = grown.sum();
        self.workers = reports;
        self.grew(grown, now);
    }

    fn grew(&mut self, by: i64, now: Instant) {
        if by > 0 {
            self.grown.push_back((now, by));
        }
        self.since.get_or_insert(now);
    }

    /// None while no worker reports, and while it is not known for a minute.
    pub fn last_minute(&mut self, now: Instant) -> Option<u64> {
        while self
            .grown
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE)
        {
            self.grown.pop_front();
        }
        if self.since.is_none_or(|since| now.duration_since(since) < MINUTE) {
            return None;
        }
        let sum = self.grown.iter().map(|(_, grown)| *grown).sum::<i64>();
        u64::try_from(sum).ok()
    }
}

#[cfg(test)]
mod tests {
    use crds::status::{WorkerStatus, WorkerTotals};

    use super::*;

    #[test]
    fn dead_letters_are_counted_for_a_minute_and_over_restarts_of_workers() {
        let (mut letters, start) = (DeadLetters::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let status = |counts: &[(&str, i64)]| KafkaConsumerGroupStatus {
            workers: counts
                .iter()
                .map(|(name, count)| WorkerStatus {
                    name: name.to_string(),
                    dead_lettered_total: *count,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        assert_eq!(letters.last_minute(start), None);
        letters.note(Some(&status(&[("a", 500)])), start);
        assert_eq!(letters.last_minute(at(30)), None, "unknown is not 0");
        letters.note(Some(&status(&[("a", 507), ("b", 90)])), at(50));
        assert_eq!(letters.last_minute(at(60)), Some(7));
        letters.note(Some(&status(&[("a", 2), ("b", 91)])), at(70));
        assert_eq!(letters.last_minute(at(71)), Some(10));
        assert_eq!(letters.last_minute(at(111)), Some(3));
        assert_eq!(letters.last_minute(at(131)), Some(0));
    }

    #[test]
    fn with_more_workers_than_the_status_lists_the_totals_count() {
        let (mut letters, start) = (DeadLetters::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let status = |total: i64| KafkaConsumerGroupStatus {
            worker_totals: Some(WorkerTotals {
                reporting: 40,
                dead_lettered_total: total,
                ..Default::default()
            }),
            ..Default::default()
        };
        for (second, total) in [(0, 500), (50, 507), (55, 300), (58, 302)] {
            letters.note(Some(&status(total)), at(second));
        }
        assert_eq!(letters.last_minute(at(61)), Some(9));
    }

    #[test]
    fn without_a_report_nothing_is_known_and_a_minute_begins_with_the_next_one() {
        let (mut letters, start) = (DeadLetters::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let status = |reporting, silent, replicas| KafkaConsumerGroupStatus {
            replicas: Some(replicas),
            worker_totals: Some(WorkerTotals {
                reporting,
                silent,
                ..Default::default()
            }),
            ..Default::default()
        };
        letters.note(Some(&status(0, 3, 3)), start);
        assert_eq!(letters.last_minute(at(61)), None);
        letters.note(Some(&status(3, 0, 3)), at(70));
        assert_eq!(letters.last_minute(at(100)), None);
        assert_eq!(letters.last_minute(at(130)), Some(0));
        letters.note(Some(&status(0, 3, 3)), at(140));
        assert_eq!(letters.last_minute(at(141)), None);
        letters.note(Some(&status(0, 0, 0)), at(150));
        assert_eq!(letters.last_minute(at(210)), Some(0), "no worker shall run");
    }
}
