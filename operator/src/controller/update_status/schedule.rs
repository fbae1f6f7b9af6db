//! When a status is written, and as which patch. In: the old, the last written and the new status. Out:
//! whether to write now. What users wait for is written at once; numbers that change all the time are written
//! rarely, so that the cost does not grow with the number of groups and workers. Pure.

use std::time::{Duration, Instant};

use crds::KafkaConsumerGroupStatus;
use serde_json::{Map, Value};

/// A watch delivers our own write within milliseconds; for this long an old status in the cache counts as
/// delayed.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Fields of an entry in `status.workers` that are written at once.
const REASONS: [&str; 3] = ["name", "assigned", "pausedReason"];
/// Fields of `status.workerTotals` that are written at once.
const COUNTS: [&str; 2] = ["reporting", "silent"];
/// Fields of an entry in `status.stalledPartitions` that are written at once.
const PLACES: [&str; 4] = ["topic", "partition", "since", "reason"];

/// What the operator writes, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// The operator writes status.workers, and not the workers.
    pub(super) owns_workers: bool,
    /// Numbers alone, which are the lag and those of workers, are written at most this often. They change all
    /// the time.
    pub(super) numbers_interval: Duration,
}

impl Schedule {
    /// Whether to write `new` at `now`. `written`: the last written status; None: none since the start at
    /// `since`.
    pub(super) fn is_due(
        self,
        old: &KafkaConsumerGroupStatus,
        new: &KafkaConsumerGroupStatus,
        written: Option<(&KafkaConsumerGroupStatus, Instant)>,
        since: Instant,
        now: Instant,
    ) -> bool {
        let differs = |other: &KafkaConsumerGroupStatus| self.fields(other) != self.fields(new);
        if !differs(old) {
            return false;
        }
        if let Some((written, at)) = written
            && !differs(written)
        {
            return now.duration_since(at) > WATCH_DELAY;
        }
        let (base, at) = written.unwrap_or((old, since));
        let same = base.lag.is_some() == new.lag.is_some()
            && self.without_numbers(base) == self.without_numbers(new);
        if !same {
            return true;
        }
        now.duration_since(at) >= self.numbers_interval
    }

    /// Whether `new` is stored as far as the CRD allows: when it was `written`, the API server `returned` what
    /// the cache has. A CRD that is older than the operator drops fields, and writing them again has no effect.
    pub(super) fn is_stored(
        self,
        old: &KafkaConsumerGroupStatus,
        new: &KafkaConsumerGroupStatus,
        written: Option<&KafkaConsumerGroupStatus>,
        returned: Option<&KafkaConsumerGroupStatus>,
    ) -> bool {
        let same = |one: Option<&KafkaConsumerGroupStatus>, other| {
            one.is_some_and(|one| self.fields(one) == self.fields(other))
        };
        same(written, new) && same(returned, old)
    }

    /// `new` as a merge patch over `old`, with null for removed fields.
    pub(super) fn patch(
        self,
        old: &KafkaConsumerGroupStatus,
        new: &KafkaConsumerGroupStatus,
    ) -> Map<String, Value> {
        let mut patch = self.fields(new);
        for (field, value) in self.fields(old) {
            match (patch.get_mut(&field), value) {
                (None, _) => {
                    patch.insert(field, Value::Null);
                }
                // A merge patch merges objects; removed members need a null too.
                (Some(Value::Object(new)), Value::Object(old)) => {
                    for member in old.keys() {
                        new.entry(member.clone()).or_insert(Value::Null);
                    }
                }
                _ => {}
            }
        }
        patch
    }

    /// The fields that the operator writes.
    fn fields(self, status: &KafkaConsumerGroupStatus) -> Map<String, Value> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(status) else {
            return Map::new();
        };
        if !self.owns_workers {
            fields.remove("workers");
        }
        fields
    }

    /// Without what changes all the time.
    fn without_numbers(self, status: &KafkaConsumerGroupStatus) -> Map<String, Value> {
        let mut fields = self.fields(status);
        fields.remove("lag");
        keep(fields.get_mut("workers"), &REASONS);
        keep(fields.get_mut("stalledPartitions"), &PLACES);
        keep(fields.get_mut("workerTotals"), &COUNTS);
        fields
    }
}

/// Keeps only these members of an object, or of each object of a list.
fn keep(value: Option<&mut Value>, members: &[&str]) {
    match value {
        Some(Value::Object(object)) => object.retain(|name, _| members.contains(&name.as_str())),
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| keep(Some(item), members)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::update_status::workers::shown;
    use crate::controller::worker_reports::numbers_interval;
    use crds::status::{LagStatus, StalledPartition, WorkerStatus, WorkerTotals};
    use jiff::Timestamp;

    const ONE: Schedule = Schedule {
        owns_workers: true,
        numbers_interval: Duration::from_secs(15),
    };
    const MANY: Schedule = Schedule {
        numbers_interval: Duration::from_secs(600),
        ..ONE
    };

    fn status(lag: i64) -> KafkaConsumerGroupStatus {
        KafkaConsumerGroupStatus {
            group_id: Some("shop.orders".into()),
            lag: Some(LagStatus {
                total: lag,
                max: lag,
                max_partition: None,
                as_of: Timestamp::UNIX_EPOCH,
            }),
            ..Default::default()
        }
    }

    fn with_worker(edit: impl FnOnce(&mut WorkerStatus)) -> KafkaConsumerGroupStatus {
        let mut worker = WorkerStatus {
            name: "a".into(),
            ..Default::default()
        };
        edit(&mut worker);
        KafkaConsumerGroupStatus {
            workers: vec![worker],
            ..status(1)
        }
    }

    /// Whether `new` is written when `written` was written so many seconds ago.
    fn due_after(
        schedule: Schedule,
        written: &KafkaConsumerGroupStatus,
        new: &KafkaConsumerGroupStatus,
        seconds: u64,
    ) -> bool {
        let at = Instant::now();
        let now = at + Duration::from_secs(seconds);
        schedule.is_due(written, new, Some((written, at)), at, now)
    }

    #[test]
    fn the_patch_clears_removed_fields_and_leaves_the_entries_of_workers_that_write_them() {
        let mut old = with_worker(|_| {});
        old.group_state = Some("Stable".into());
        if let Some(lag) = &mut old.lag {
            lag.max_partition = Some("orders-1".into());
        }
        let pushed = Schedule {
            owns_workers: false,
            ..ONE
        };
        let patch = pushed.patch(&old, &status(2));
        assert!(!patch.contains_key("workers"));
        assert_eq!(patch["groupState"], Value::Null);
        assert_eq!(patch["lag"]["maxPartition"], Value::Null);
        assert_eq!(patch["lag"]["total"], 2);
        assert_eq!(ONE.patch(&old, &status(2))["workers"], Value::Null);
        assert_eq!(ONE.patch(&status(1), &old)["workers"][0]["name"], "a");
    }

    #[test]
    fn an_unchanged_status_is_not_written() {
        let now = Instant::now();
        assert!(!ONE.is_due(&status(1), &status(1), None, now, now + Duration::from_secs(3600)));
        let pushed = Schedule {
            owns_workers: false,
            ..ONE
        };
        let later = now + Duration::from_secs(3600);
        assert!(!pushed.is_due(&with_worker(|_| {}), &status(1), None, now, later));
    }

    #[test]
    fn a_lag_change_is_written_as_rarely_as_other_numbers_and_other_changes_at_once() {
        assert!(!due_after(ONE, &status(1), &status(2), 14));
        assert!(due_after(ONE, &status(1), &status(2), 15));
        assert!(!due_after(MANY, &status(1), &status(2), 599));
        assert!(due_after(MANY, &status(1), &status(2), 600));
        let mut stable = status(2);
        stable.group_state = Some("Stable".into());
        assert!(due_after(ONE, &status(1), &stable, 3));
        let mut unknown = status(2);
        unknown.lag = None;
        assert!(due_after(ONE, &status(1), &unknown, 3));
    }

    #[test]
    fn reasons_of_workers_are_written_at_once_and_their_numbers_less_often_with_more_groups() {
        let before = with_worker(|_| {});
        let counted = with_worker(|worker| {
            worker.records_total = 7;
            worker.reported_at = Some(Timestamp::UNIX_EPOCH);
            worker.last_error = Some("after 17 ms".into());
        });
        assert!(!due_after(ONE, &before, &counted, 14));
        assert!(due_after(ONE, &before, &counted, 15));
        assert!(!due_after(MANY, &before, &counted, 599));
        assert!(due_after(MANY, &before, &counted, 600));
        let paused = with_worker(|worker| worker.paused_reason = Some("WriterUnavailable".into()));
        assert!(due_after(MANY, &before, &paused, 0));
        let assigned = with_worker(|worker| worker.assigned = 2);
        assert!(due_after(MANY, &before, &assigned, 0));
        let mut silent = before.clone();
        silent.worker_totals = Some(WorkerTotals {
            silent: 1,
            ..Default::default()
        });
        assert!(due_after(MANY, &before, &silent, 0));
    }

    #[test]
    fn attempts_at_a_stalled_partition_are_numbers() {
        let stalled = |attempts, reason: &str| KafkaConsumerGroupStatus {
            stalled_partitions: vec![StalledPartition {
                attempts,
                reason: reason.into(),
                ..Default::default()
            }],
            ..status(1)
        };
        let before = stalled(1, "WriterUnavailable");
        assert!(!due_after(ONE, &before, &stalled(2, "WriterUnavailable"), 3));
        assert!(due_after(ONE, &before, &stalled(2, "RecordFailed"), 3));
    }

    #[test]
    fn after_a_start_numbers_wait_as_if_they_had_just_been_written() {
        let (old, new) = (
            with_worker(|_| {}),
            with_worker(|worker| worker.records_total = 7),
        );
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!MANY.is_due(&old, &new, None, start, at(599)));
        assert!(MANY.is_due(&old, &new, None, start, at(600)));
        let mut stable = new.clone();
        stable.group_state = Some("Stable".into());
        assert!(MANY.is_due(&old, &stable, None, start, at(0)));
    }

    #[test]
    fn a_delayed_cache_causes_no_write_but_an_edit_by_others_is_reverted() {
        let (old, mut new) = (status(1), status(1));
        new.replicas = Some(3);
        let at = Instant::now();
        let after = |seconds| {
            let now = at + Duration::from_secs(seconds);
            ONE.is_due(&old, &new, Some((&new, at)), at, now)
        };
        assert!(!after(1));
        assert!(after(6));
    }

    #[test]
    fn fields_that_the_api_server_drops_are_not_written_again() {
        let returned = status(1);
        let new = KafkaConsumerGroupStatus {
            worker_totals: Some(WorkerTotals::default()),
            ..status(1)
        };
        let stored = |old: &KafkaConsumerGroupStatus, wanted: &KafkaConsumerGroupStatus| {
            ONE.is_stored(old, wanted, Some(&new), Some(&returned))
        };
        assert!(stored(&returned, &new));
        assert!(!stored(&status(7), &new), "another client has edited it");
        assert!(!stored(&returned, &status(2)), "something has changed");
        assert!(
            !ONE.is_stored(&returned, &new, None, None),
            "nothing was written yet"
        );
    }

    /// Writes within ten minutes, with workers that finish records all the time, a lag that changes all the
    /// time, and one outage of a writer.
    fn simulated_writes(groups: usize, workers_each: usize) -> (usize, usize) {
        let schedule = Schedule {
            owns_workers: true,
            numbers_interval: numbers_interval(groups),
        };
        let start = Instant::now();
        let mut written = vec![(KafkaConsumerGroupStatus::default(), start); groups];
        let (mut writes, mut longest) = (0, 0);
        for second in 0..600_u64 {
            for (group, (last, at)) in written.iter_mut().enumerate() {
                // Each group is reconciled every 15 s, not all at the same time.
                if !(second + group as u64).is_multiple_of(15) {
                    continue;
                }
                let entries: Vec<WorkerStatus> = (0..workers_each)
                    .map(|worker| WorkerStatus {
                        name: format!("orders-worker-5d8f9c7b6-{worker:05}"),
                        assigned: 1,
                        records_total: second as i64 * 1000 + worker as i64,
                        paused_reason: (300..360).contains(&second).then(|| "WriterUnavailable".into()),
                        last_error: Some("connection refused ".repeat(50)),
                        reported_at: Timestamp::from_second(second as i64).ok(),
                        ..Default::default()
                    })
                    .collect();
                let new = KafkaConsumerGroupStatus {
                    workers: shown(&entries, &last.workers),
                    ..status(second as i64)
                };
                let now = start + Duration::from_secs(second);
                if schedule.is_due(last, &new, Some((last, *at)), start, now) {
                    let patch = schedule.patch(last, &new);
                    longest = longest.max(serde_json::to_string(&patch).unwrap().len());
                    writes += 1;
                    (*last, *at) = (new, now);
                }
            }
        }
        (writes, longest)
    }

    #[test]
    fn a_thousand_workers_cause_less_than_one_write_per_second_however_they_are_grouped() {
        for (groups, workers_each) in [(1, 1000), (20, 50), (200, 5), (200, 0)] {
            let (writes, longest) = simulated_writes(groups, workers_each);
            // The first status, the start and the end of the outage, and one per second for numbers.
            assert!(writes <= 600 + 3 * groups, "{groups} groups: {writes} writes");
            assert!(longest < 64 * 1024, "{groups} groups: {longest} bytes");
        }
    }
}
