//! Records per second from reads of the status. In: the status, again and again. Out: a rate with its time, or
//! nothing. Pure. The status says how many records the workers have finished and when the operator read that, so a
//! rate is the difference of two such numbers; two reads of the same number have none.

use std::collections::{BTreeMap, BTreeSet};

use crds::KafkaConsumerGroupStatus;
use jiff::Timestamp;

use super::view::GroupView;
use crate::kafka::model::GroupKey;

/// What the workers had finished at a time.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    at: Timestamp,
    records: i64,
    workers: BTreeSet<String>,
}

/// A measured rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    /// The end of the time for which it was measured.
    pub as_of: Timestamp,
}

/// The last number and rate of each group.
#[derive(Default)]
pub struct Rates {
    samples: BTreeMap<GroupKey, Sample>,
    rates: BTreeMap<GroupKey, Rate>,
}

impl Rates {
    /// Takes a read. The rate stays until there is a newer one.
    pub fn take(&mut self, group: &GroupView) -> Option<Rate> {
        let key = &group.key;
        let Some(now) = sample(&group.status) else {
            self.samples.remove(key);
            self.rates.remove(key);
            return None;
        };
        match self.samples.get(key) {
            Some(before) if before.at >= now.at => return self.rates.get(key).copied(),
            Some(before) => match rate(before, &now) {
                Some(rate) => drop(self.rates.insert(key.clone(), rate)),
                None => drop(self.rates.remove(key)),
            },
            None => {}
        }
        self.samples.insert(key.clone(), now);
        self.rates.get(key).copied()
    }
}

/// None if other workers run, or one has restarted: its count began again.
fn rate(before: &Sample, now: &Sample) -> Option<Rate> {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let records = now.records - before.records;
    (seconds > 0.0 && records >= 0 && before.workers == now.workers).then(|| Rate {
        per_second: records as f64 / seconds,
        as_of: now.at,
    })
}

fn sample(status: &KafkaConsumerGroupStatus) -> Option<Sample> {
    let at = status
        .workers
        .iter()
        .filter_map(|worker| worker.reported_at)
        .max()?;
    let records = match &status.worker_totals {
        Some(totals) => totals.records_total,
        // Workers that push their reports: the list has all of them.
        None => status.workers.iter().map(|worker| worker.records_total).sum(),
    };
    let workers = status.workers.iter().map(|worker| worker.name.clone());
    Some(Sample {
        at,
        records,
        workers: workers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(second: u32, records: i64, worker: &str) -> GroupView {
        GroupView::of(json!({
            "metadata": {"name": "orders", "namespace": "shop"},
            "status": {"workers": [{
                "name": worker, "assigned": 1, "recordsTotal": records, "deadLetteredTotal": 0, "inFlight": 0,
                "reportedAt": format!("2026-01-01T00:00:{second:02}Z"),
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_rate_needs_two_different_numbers_of_the_same_workers() {
        let mut rates = Rates::default();
        assert_eq!(rates.take(&group(0, 1_000, "a")), None, "one number is no rate");
        assert_eq!(rates.take(&group(0, 1_000, "a")), None, "the same number again");
        let rate = rates.take(&group(15, 2_500, "a")).unwrap();
        assert!((rate.per_second - 100.0).abs() < 0.001, "{rate:?}");
        assert_eq!(
            rates.take(&group(15, 2_500, "a")),
            Some(rate),
            "it stays with its time"
        );
        assert_eq!(rates.take(&group(30, 2_500, "a")).unwrap().per_second, 0.0);
        assert_eq!(rates.take(&group(40, 10, "a")), None, "the worker has restarted");
        assert_eq!(rates.take(&group(50, 5_000, "b")), None, "another worker");
        let mut gone = group(55, 0, "b");
        gone.status.workers.clear();
        assert_eq!(rates.take(&gone), None, "no worker reports");
    }
}
