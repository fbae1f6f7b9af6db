//! What a session waits for while its workers stop. In: the running workers, with their last reports. Out: a
//! message for users. Pure.

use std::time::{Duration, Instant};

use crate::group::wording::count;
use crate::local::supervise::WorkerView;
use crate::reports::PartitionReport;

/// A message names at most this many partitions.
const NAMED: usize = 5;
/// Most workers have stopped by then.
const FIRST: Duration = Duration::from_secs(2);
/// Time between two messages.
const NEXT: Duration = Duration::from_secs(10);

/// Says from time to time what is waited for.
pub struct Draining {
    until: Instant,
    due: Instant,
}

impl Draining {
    /// Workers that have not stopped after `longest` are killed.
    pub fn new(now: Instant, longest: Duration) -> Self {
        Self {
            until: now + longest,
            due: now + FIRST,
        }
    }

    /// The first message, for this many workers.
    pub fn begins(&self, now: Instant, workers: usize) -> String {
        format!(
            "stopping: {} finish what they have read, for at most {} s; press Ctrl-C again to stop at once",
            count(workers, "worker"),
            self.left(now)
        )
    }

    /// The next message, if it is due.
    pub fn message(&mut self, now: Instant, workers: impl FnOnce() -> Vec<WorkerView>) -> Option<String> {
        if now < self.due {
            return None;
        }
        let workers = workers();
        if workers.is_empty() {
            return None;
        }
        self.due = now + NEXT;
        let mut text = format!(
            "still waiting for {}, at most {} s:",
            count(workers.len(), "worker"),
            self.left(now)
        );
        let unfinished: Vec<String> = workers.iter().flat_map(unfinished).collect();
        for line in unfinished.iter().take(NAMED) {
            text.push_str(&format!("\n  {line}"));
        }
        let more = unfinished.len().saturating_sub(NAMED);
        if more > 0 {
            text.push_str(&format!("\n  and {}", count(more, "more partition")));
        }
        text.push_str("\n  press Ctrl-C again to stop at once: these records will be read again");
        Some(text)
    }

    fn left(&self, now: Instant) -> u64 {
        self.until.saturating_duration_since(now).as_secs()
    }
}

/// One line per partition with unfinished records; one line if the worker does not say.
fn unfinished(worker: &WorkerView) -> Vec<String> {
    let Some(report) = &worker.report else {
        return vec![format!("{}: does not answer", worker.name)];
    };
    let busy = report
        .partitions
        .iter()
        .filter(|partition| partition.in_flight > 0);
    let lines: Vec<String> = busy
        .map(|partition| format!("{}: {}", worker.name, records(partition)))
        .collect();
    if lines.is_empty() {
        return vec![format!(
            "{}: commits its offsets and leaves the group",
            worker.name
        )];
    }
    lines
}

fn records(partition: &PartitionReport) -> String {
    let mut text = format!(
        "{}-{}, {} in process",
        partition.topic,
        partition.partition,
        count(partition.in_flight as usize, "record")
    );
    if let Some(oldest) = &partition.oldest {
        text.push_str(&format!(", the oldest at offset {}", oldest.offset));
        if let Some(error) = &oldest.last_error {
            text.push_str(&format!(
                ", which waits after {}: {error}",
                count(oldest.attempts as usize, "attempt")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::WorkerReport;

    fn worker(name: &str, report: Option<&str>) -> WorkerView {
        WorkerView {
            name: name.into(),
            started_at: 0,
            exits: 0,
            report: report.map(|json| serde_json::from_str::<WorkerReport>(json).unwrap()),
        }
    }

    #[test]
    fn messages_name_the_records_that_are_waited_for() {
        let start = Instant::now();
        let mut draining = Draining::new(start, Duration::from_secs(60));
        assert_eq!(
            draining.begins(start, 2),
            "stopping: 2 workers finish what they have read, for at most 60 s; press Ctrl-C again to stop at once"
        );
        let stuck = r#"{"partitions": [
            {"topic": "orders", "partition": 0, "inFlight": 0},
            {"topic": "orders", "partition": 1, "inFlight": 3, "oldest":
                {"offset": 17, "since": "2026-11-30T10:00:00Z", "attempts": 4, "lastError": "connection refused"}},
            {"topic": "orders", "partition": 2, "inFlight": 1}
        ]}"#;
        let workers = [
            worker("orders-0", Some(stuck)),
            worker("orders-1", None),
            worker("orders-2", Some("{}")),
        ];
        assert_eq!(
            draining.message(start, || workers.to_vec()),
            None,
            "most workers stop at once"
        );
        let at = start + FIRST;
        assert_eq!(
            draining.message(at, || workers.to_vec()).unwrap(),
            "still waiting for 3 workers, at most 58 s:\n\
             \x20 orders-0: orders-1, 3 records in process, the oldest at offset 17, which waits after 4 attempts: \
             connection refused\n\
             \x20 orders-0: orders-2, 1 record in process\n\
             \x20 orders-1: does not answer\n\
             \x20 orders-2: commits its offsets and leaves the group\n\
             \x20 press Ctrl-C again to stop at once: these records will be read again"
        );
        assert_eq!(draining.message(at + FIRST, || workers.to_vec()), None);
        assert!(draining.message(at + NEXT, || workers.to_vec()).is_some());
        assert_eq!(draining.message(at + NEXT * 2, Vec::new), None);
    }

    #[test]
    fn a_message_names_a_few_partitions() {
        let partitions: Vec<String> = (0..9)
            .map(|partition| format!(r#"{{"topic": "t", "partition": {partition}, "inFlight": 1}}"#))
            .collect();
        let report = format!(r#"{{"partitions": [{}]}}"#, partitions.join(","));
        let start = Instant::now();
        let mut draining = Draining::new(start, Duration::from_secs(60));
        let message = draining
            .message(start + FIRST, || vec![worker("w", Some(&report))])
            .unwrap();
        assert!(
            message.contains("t-4, 1 record") && !message.contains("t-5"),
            "{message}"
        );
        assert!(message.contains("and 4 more partitions"), "{message}");
    }
}
