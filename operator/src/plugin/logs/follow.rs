//! `logs --follow`. In: the logs of the pods, again and again. Out: each line once, until Ctrl-C. A log whose
//! connection ends while its container runs is opened again after its last line.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufReadExt, FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::sources::{Source, none, path, sources};
use crate::plugin::args::LogsArgs;
use crate::plugin::cluster::Cluster;
use crate::plugin::error::Error;
use crate::plugin::terminal::Terminal;
use crate::plugin::view::GroupView;

/// Time between two looks for new workers.
const LOOK: Duration = Duration::from_secs(3);
/// A log without lines for so long is opened again, because its connection may be lost.
const SILENT: Duration = Duration::from_secs(300);
/// Lines that wait for a slow terminal.
const WAITING: usize = 256;

/// Prints lines until Ctrl-C ends the program.
pub async fn follow(
    cluster: &Cluster,
    group: &GroupView,
    args: &LogsArgs,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let (lines, mut arrived) = mpsc::channel::<String>(WAITING);
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    let mut first = true;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut streams: FuturesUnordered<LocalBoxFuture<Ended>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            line = arrived.recv() => {
                if let Some(line) = line {
                    terminal.raw(&line)?;
                    terminal.flush()?;
                }
            }
            Some(ended) = streams.next() => {
                let log = logs.get_mut(&ended.pod);
                if let Some(note) = log.and_then(|log| log.end(ended)) {
                    terminal.note(&note)?;
                }
            }
            _ = looks.tick() => {
                let found = match sources(cluster, group, args).await {
                    Ok(found) => found,
                    Err(error) if first => return Err(error),
                    Err(error) => {
                        terminal.note(&error.to_string())?;
                        continue;
                    }
                };
                if first && found.is_empty() {
                    terminal.note(&format!("{}; waiting for workers", none(group, args)))?;
                }
                for source in found.into_iter().filter(|source| source.has_started) {
                    // A worker that starts later is shown from its first line.
                    let tail = if first { args.tail } else { u32::MAX };
                    let log = logs.entry(source.pod.clone()).or_insert_with(|| Log::new(tail));
                    if log.may_have_more(&source) {
                        let path = log.open(group, &source);
                        streams.push(read(cluster, source.pod, path, log.last, lines.clone()).boxed_local());
                    }
                }
                first = false;
            }
        }
    }
}

/// What is known of the log of a pod while it is followed.
struct Log {
    is_open: bool,
    /// Of the container when the log was opened last. None: it was never opened.
    restarts: Option<i64>,
    was_running: bool,
    /// Nothing more will come from this container.
    is_complete: bool,
    /// Lines to begin with, until one has arrived.
    tail: u32,
    /// Time of the last line, by the clock of its node.
    last: Option<Timestamp>,
    /// Why it ended last, as the user knows it.
    why: String,
}

impl Log {
    fn new(tail: u32) -> Self {
        Self {
            is_open: false,
            restarts: None,
            was_running: false,
            is_complete: false,
            tail,
            last: None,
            why: String::new(),
        }
    }

    /// Whether there may be lines that were not read. A log that ends while its container runs has only lost its
    /// connection; the rest of a container that ends meanwhile is read, too.
    fn may_have_more(&self, source: &Source) -> bool {
        let is_over = self.is_complete && self.restarts == Some(source.restarts);
        !(self.is_open || is_over)
    }

    /// The path of the lines after the last one that has arrived.
    fn open(&mut self, group: &GroupView, source: &Source) -> String {
        if self.restarts.is_some_and(|restarts| restarts != source.restarts) {
            // All lines of a container that started later.
            self.tail = u32::MAX;
        }
        self.is_open = true;
        self.is_complete = false;
        self.restarts = Some(source.restarts);
        self.was_running = source.is_running;
        let tail = self.last.map_or(self.tail, |_| u32::MAX);
        let mut path = path(group, &source.pod, true, false, tail);
        path.push_str("&timestamps=true");
        if let Some(last) = self
            .last
            .and_then(|last| Timestamp::from_second(last.as_second()).ok())
        {
            // The API server knows whole seconds; `read` leaves out what has arrived already.
            path.push_str(&format!("&sinceTime={last}"));
        }
        path
    }

    /// Notes that reading has ended; returns what the user does not know yet.
    fn end(&mut self, ended: Ended) -> Option<String> {
        self.is_open = false;
        self.is_complete = ended.is_clean && !self.was_running;
        let is_known = self.why == ended.why && ended.last == self.last;
        self.last = ended.last;
        if is_known || ended.why.is_empty() {
            return None;
        }
        self.why = ended.why;
        Some(format!("[{}] {}", ended.pod, self.why))
    }
}

/// How reading a log ended.
struct Ended {
    pod: String,
    /// Time of the last line, also of one that arrived before.
    last: Option<Timestamp>,
    /// The server says that this was all.
    is_clean: bool,
    /// For the user; empty: nothing to say.
    why: String,
}

/// Sends the lines of one log after a time, each with its pod.
async fn read(
    cluster: &Cluster,
    pod: String,
    path: String,
    after: Option<Timestamp>,
    lines: mpsc::Sender<String>,
) -> Ended {
    let mut ended = Ended {
        pod,
        last: after,
        is_clean: false,
        why: String::new(),
    };
    // The answer begins with the first line, so a silent worker and a lost connection look the same.
    let Ok(stream) = tokio::time::timeout(SILENT, cluster.stream(&path)).await else {
        return ended;
    };
    let mut stream = match stream {
        Ok(stream) => stream.lines(),
        Err(error) => {
            ended.why = format!("no log: {error}; it is requested again while the worker runs");
            return ended;
        }
    };
    while let Ok(next) = tokio::time::timeout(SILENT, stream.try_next()).await {
        match next {
            Ok(Some(line)) => {
                let (time, text) = stamped(&line);
                if time.is_some() && time <= after {
                    continue;
                }
                ended.last = ended.last.max(time);
                if lines.send(format!("[{}] {text}", ended.pod)).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                ended.is_clean = true;
                ended.why = "the log has ended; it is opened again while the worker runs".into();
                break;
            }
            Err(error) => {
                ended.why =
                    format!("the log was interrupted: {error}; it is opened again while the worker runs");
                break;
            }
        }
    }
    ended
}

/// A line with `timestamps=true`: its time, and what the worker wrote. Errors of the node have no time.
fn stamped(line: &str) -> (Option<Timestamp>, &str) {
    let (time, text) = line.split_once(' ').unwrap_or((line, ""));
    match time.parse() {
        Ok(time) => (Some(time), text),
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(last: Option<&str>, is_clean: bool, why: &str) -> Ended {
        Ended {
            pod: "a".into(),
            last: last.map(|last| last.parse().unwrap()),
            is_clean,
            why: why.into(),
        }
    }

    fn container(restarts: i64, is_running: bool) -> Source {
        Source {
            pod: "a".into(),
            restarts,
            has_started: true,
            is_running,
        }
    }

    fn orders() -> GroupView {
        GroupView::of(json!({"metadata": {"name": "orders", "namespace": "shop"}})).unwrap()
    }

    #[test]
    fn a_log_is_opened_again_until_its_container_has_ended_and_all_is_read() {
        let group = orders();
        let mut log = Log::new(100);
        let runs = container(0, true);
        assert!(log.may_have_more(&runs));
        let path = log.open(&group, &runs);
        assert!(
            path.ends_with("&follow=true&tailLines=100&timestamps=true"),
            "{path}"
        );
        assert!(!log.may_have_more(&runs), "it is open");

        // Refused before the first line: as at the beginning.
        assert!(log.end(ended(None, false, "no log: busy")).is_some());
        assert!(log.may_have_more(&runs));
        assert!(log.open(&group, &runs).contains("tailLines=100"));
        let again = log.end(ended(None, false, "no log: busy"));
        assert_eq!(again, None, "said already");

        // The connection ends although the worker runs, after a line.
        log.open(&group, &runs);
        let last = "2026-01-01T12:00:01.5Z";
        assert!(log.end(ended(Some(last), true, "ended")).is_some());
        assert!(log.may_have_more(&runs));
        let path = log.open(&group, &runs);
        assert!(
            path.ends_with("&follow=true&timestamps=true&sinceTime=2026-01-01T12:00:01Z"),
            "{path}"
        );
        log.end(ended(Some(last), true, "ended"));

        // The container ends: what it wrote last is read, once.
        let over = container(0, false);
        assert!(log.may_have_more(&over));
        log.open(&group, &over);
        log.end(ended(Some(last), false, "interrupted"));
        assert!(log.may_have_more(&over), "not all of it was read");
        log.open(&group, &over);
        log.end(ended(Some(last), true, "ended"));
        assert!(!log.may_have_more(&over));

        // Another container begins after the lines of the first.
        let restarted = container(1, true);
        assert!(log.may_have_more(&restarted));
        assert!(log.open(&group, &restarted).contains("sinceTime"));
    }

    #[test]
    fn all_lines_of_a_restarted_worker_are_shown() {
        let group = orders();
        let mut log = Log::new(0);
        log.open(&group, &container(0, true));
        log.end(ended(None, true, ""));
        let path = log.open(&group, &container(1, true));
        assert!(!path.contains("tailLines"), "{path}");
    }

    #[test]
    fn the_time_of_the_node_is_no_part_of_a_line() {
        let (time, text) = stamped("2026-01-01T12:00:01.123456789+01:00 {\"a\": 1}");
        assert_eq!(
            (time.unwrap().to_string().as_str(), text),
            ("2026-01-01T11:00:01.123456789Z", "{\"a\": 1}")
        );
        assert_eq!(stamped("2026-01-01T12:00:01Z ").1, "");
        for line in ["unable to retrieve container logs", "", "x"] {
            assert_eq!(stamped(line), (None, line));
        }
    }
}
